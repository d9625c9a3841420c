"""Single stacks of masked convolutions, run pixel by pixel or along diagonals, to sample."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt8

from jaxgen.causal.masked import Parts
from jaxgen.causal.masked_stack import Stack, shift
from jaxgen.causal.samplers import Draw, Pixels
from jaxgen.spec import ImageSpec


def sample_pixels_wavefront(
    network: Any,
    spec: ImageSpec,
    draw: Draw,
    image: UInt8[Array, "b h w c"],
    known: Bool[Array, "b h w c"],
    label: Int[Array, " b"] | None = None,
) -> UInt8[Array, "b h w c"]:
    """Fills in the unknown sub-pixels along diagonals: pixel (r, c) at time c + lag * r.

    A stack of masked convolutions reaches at most kernel//2 columns to the right per row up (its
    blind spot), so with lag = the largest kernel//2 + 1 all that a pixel sees is older than it.
    Slot j of step T and phase p is row T - j, column lag * j + p: h + w/lag steps of lag phases
    in place of h*w pixels, each on up to w/lag pixels at once.
    """
    batch, height, width, channels = image.shape
    lag = max(p.kernel // 2 for p in Stack(network, spec, draw, None).spatial) + 1
    slots = -(-width // lag)
    many = None if label is None else jnp.tile(label, slots)
    stack = Stack(network, spec, draw, many)
    rows, columns, inside = _diagonals(height, width, lag)

    def skewed(x: Array) -> Array:
        """[b h w c] -> [steps phases slots*b c]."""
        picked = x.transpose(1, 2, 0, 3)[rows, columns]
        return picked.reshape(*picked.shape[:2], slots * batch, channels)

    def past(parts: Parts, history: Array, phase: int) -> Array:
        """A layer's share of all taps before the centre [slots*b o], from its last inputs
        [times slots b i], newest last."""
        reach = parts.kernel // 2
        taps = []
        for up in range(reach, -1, -1):
            for right in range(-reach, reach + 1 if up else 0):
                ago = lag * up - right
                # The slot where that pixel was drawn, beside this one's.
                taps.append(shift(history[-ago], (phase - ago) // lag + up))
        context = jnp.concatenate(taps, -1).reshape(slots * batch, -1)
        return context @ parts.before.reshape(context.shape[1], -1) + parts.bias

    def step(histories: Any, now: Any) -> tuple[Any, Array]:
        given, keep, valid, positions = now
        noise = draw.noise(positions.reshape(-1))
        noise = noise.reshape(lag, slots, channels, *noise.shape[1:])
        drawn = []
        for phase in range(lag):
            by_channel = noise[phase].swapaxes(0, 1)
            by_channel = by_channel.reshape(channels, slots * batch, *by_channel.shape[3:])
            pixels = Pixels(given[phase], keep[phase], by_channel)
            shares = [past(p, x, phase) for p, x in zip(stack.spatial, histories, strict=True)]
            levels, inputs, *_ = stack.draw(pixels, shares, push=False)
            drawn.append(levels)
            # Beside the image there is nothing: zero, as the convolutions pad.
            alive = valid[phase][:, None, None]
            histories = tuple(
                jnp.concatenate([x[1:], jnp.where(alive, i.reshape(slots, batch, -1), 0.0)[None]])
                for x, i in zip(histories, inputs, strict=True)
            )
        return histories, jnp.stack(drawn)

    histories = tuple(
        jnp.zeros(((lag + 1) * (p.kernel // 2), slots, batch, p.before.shape[1]))
        for p in stack.spatial
    )
    positions = ((rows * width + columns) * channels)[..., None] + np.arange(channels)
    xs = (skewed(image), skewed(known), jnp.asarray(inside), jnp.asarray(positions))
    _, levels = lax.scan(step, histories, xs)
    levels = levels.reshape(*inside.shape, batch, channels)
    row, column = np.ogrid[:height, :width]
    return levels[row + column // lag, column % lag, column // lag].transpose(2, 0, 1, 3)


def _diagonals(height: int, width: int, lag: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of each [step phase slot], and whether that lies in the image; where it does
    not, they are those of some pixel that does."""
    slots = -(-width // lag)
    steps, phases, slot = np.ogrid[: height + slots - 1, :lag, :slots]
    rows, columns = np.broadcast_arrays(steps - slot, lag * slot + phases)
    inside = (rows >= 0) & (rows < height) & (columns < width)
    return rows.clip(0, height - 1), columns.clip(0, width - 1), inside
