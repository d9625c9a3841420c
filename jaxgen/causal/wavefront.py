"""Single stacks of masked convolutions, run pixel by pixel or along diagonals, to sample."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, UInt8

from jaxgen.causal.condition import NOTHING, Condition
from jaxgen.causal.masked import Terms
from jaxgen.causal.masked_stack import Stack, of_place, shift
from jaxgen.causal.samplers import Draw, Pixels, dtype_of
from jaxgen.spec import DataSpec


def sample_pixels_wavefront(
    network: Any,
    spec: DataSpec,
    draw: Draw,
    image: UInt8[Array, "b h w c"],
    known: Bool[Array, "b h w c"],
    condition: Condition = NOTHING,
) -> UInt8[Array, "b h w c"]:
    """Fills in the unknown sub-pixels along diagonals: pixel (r, c) at time c + lag * r.

    A stack of masked convolutions reaches at most kernel//2 columns to the right per row up (its
    blind spot), so with lag = the largest kernel//2 + 1 all that a pixel sees is older than it.
    Slot j of step T and phase p is row T - j, column lag * j + p: h + w/lag steps of lag phases
    in place of h*w pixels, each on up to w/lag pixels at once.
    """
    (batch, height, width, channels), dtype = image.shape, dtype_of(network)
    lag = max(terms.kernel // 2 for terms in Stack(network, spec, draw, NOTHING).spatial) + 1
    slots = -(-width // lag)
    vector, maps = condition.astype(dtype)
    many = Condition(None if vector is None else jnp.tile(vector, (slots, 1)))
    stack = Stack(network, spec, draw, many)
    rows, columns, inside = _diagonals(height, width, lag)

    def step(histories: Any, now: Any) -> tuple[Any, Array]:
        given, keep, valid, positions, maps = now
        noise = draw.noise(positions.reshape(-1))
        noise = noise.reshape(lag, slots, channels, *noise.shape[1:])
        drawn = []
        for phase in range(lag):
            by_channel = noise[phase].swapaxes(0, 1)
            by_channel = by_channel.reshape(channels, slots * batch, *by_channel.shape[3:])
            pixels = Pixels(given[phase], keep[phase], by_channel)
            here = None if maps is None else maps[phase]
            each = zip(stack.spatial, histories, strict=True)
            shares = [_past(terms, x, phase, lag, here) for terms, x in each]
            levels, inputs, *_ = stack.pass_pixel(pixels, shares, push=False)
            drawn.append(levels)
            # Beside the image there is nothing: zero, as the convolutions pad.
            alive = valid[phase][:, None, None]
            histories = tuple(
                jnp.concatenate([x[1:], jnp.where(alive, i.reshape(slots, batch, -1), 0.0)[None]])
                for x, i in zip(histories, inputs, strict=True)
            )
        return histories, jnp.stack(drawn)

    histories = tuple(
        jnp.zeros(((lag + 1) * (terms.kernel // 2), slots, batch, terms.before.shape[1]), dtype)
        for terms in stack.spatial
    )
    positions = ((rows * width + columns) * channels)[..., None] + np.arange(channels)
    skewed = lambda x: _skewed(x, rows, columns)  # noqa: E731
    by_place = jnp.asarray(inside), jnp.asarray(positions), None if maps is None else skewed(maps)
    _, levels = lax.scan(step, histories, (skewed(image), skewed(known), *by_place))
    return _straight(levels.reshape(*inside.shape, batch, channels), height, width, lag)


def _past(terms: Terms, history: Array, phase: int, lag: int, maps: Array | None) -> Array:
    """A layer's share of all taps before the centre [slots*b o], from its last inputs
    [times slots b i], newest last, and of the places' maps."""
    reach, (_, slots, batch, _) = terms.kernel // 2, history.shape
    taps = []
    for up in range(reach, -1, -1):
        for right in range(-reach, reach + 1 if up else 0):
            ago = lag * up - right
            # The slot where that pixel was drawn, beside this one's.
            taps.append(shift(history[-ago], (phase - ago) // lag + up))
    context = jnp.concatenate(taps, -1).reshape(slots * batch, -1)
    return context @ terms.before.reshape(context.shape[1], -1) + of_place(terms, maps)


def _skewed(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """[b h w c] -> [steps phases slots*b c]."""
    picked = x.transpose(1, 2, 0, 3)[rows, columns]
    return picked.reshape(*picked.shape[:2], -1, picked.shape[-1])


def _straight(x: Array, height: int, width: int, lag: int) -> Array:
    """[steps phases slots b c] -> [b h w c]."""
    row, column = np.ogrid[:height, :width]
    return x[row + column // lag, column % lag, column // lag].transpose(2, 0, 1, 3)


def _diagonals(height: int, width: int, lag: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of each [step phase slot], and whether that lies in the image; where it does
    not, they are those of some pixel that does."""
    slots = -(-width // lag)
    steps, phases, slot = np.ogrid[: height + slots - 1, :lag, :slots]
    rows, columns = np.broadcast_arrays(steps - slot, lag * slot + phases)
    inside = (rows >= 0) & (rows < height) & (columns < width)
    return rows.clip(0, height - 1), columns.clip(0, width - 1), inside
