"""Single stacks of masked convolutions, run pixel by pixel or along diagonals, to sample."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt8

from jaxgen.layers import Parts
from jaxgen.model import ImageSpec
from jaxgen.sampling import Draw, Pixels, keep_known, stacked


class Stack:
    """A bound network's single stack of causal convolutions, to be run pixel by pixel.

    The network offers `parts(label)` and `run(x, run)` (see `PixelCNNNet`). Only spatial layers,
    those with taps beside the centre, carry anything from one pixel to the next: their last
    input rows, from which all of the next row's share of them is computed at once, and what
    the pixels to the left have pushed.
    """

    def __init__(self, network: Any, spec: ImageSpec, draw: Draw, label: Array | None) -> None:
        self._network, self._spec, self._draw = network, spec, draw
        self._parts: list[Parts] = network.parts(label)
        self.spatial = [p for p in self._parts if p.kernel > 1]
        self._pushed = [
            _push_weights(p) if p.kernel > 1 and i > 0 else None for i, p in enumerate(self._parts)
        ]

    def draw(
        self, pixels: Pixels, past: list[Array], push: bool, state: Any = ()
    ) -> tuple[Array, Any, Any, Any, Any]:
        """Levels [n c], channel after channel; with `past` each spatial layer's share of all
        earlier pixels [n o].

        Also each spatial layer's input at this pixel [n i] and, if `push`, its share of the
        layer's output at the next k//2 pixels to the right [n k//2*o]; and the draws' state and
        records [c …].
        """
        spec = self._spec
        levels = jnp.where(pixels.keep, pixels.given, 0).astype(jnp.uint8)
        # Of its own features a channel computes one group; those before it are kept here.
        inputs: list[Array] = []
        pushed: list[Array] = []
        records = []
        for channel in range(spec.channels):
            before, inputs, shares = inputs, [], iter(past)
            last = channel == spec.channels - 1

            def run(_: Any, h: Array) -> Array:
                i = len(inputs)  # noqa: B023
                parts = self._parts[i]
                if channel and i:  # noqa: B023
                    h = jnp.concatenate([before[i], h], -1)  # noqa: B023
                inputs.append(h)  # noqa: B023
                weights = parts.centre[channel]  # noqa: B023
                start = sum(w.shape[1] for w in parts.centre[:channel])  # noqa: B023
                stop = start + weights.shape[1]
                share = next(shares) if parts.kernel > 1 else parts.bias  # noqa: B023
                share = share[:, start:stop]
                if weights.shape[0] == 0:
                    return jnp.broadcast_to(share, (h.shape[0], stop - start))
                to_right = self._pushed[i]
                if not (push and last) or to_right is None:  # noqa: B023
                    return h[:, : weights.shape[0]] @ weights + share
                # Its input is complete: one product for this pixel and for the ones to come.
                both = h @ jnp.concatenate([weights, to_right], 1)
                pushed.append(both[:, stop - start :])
                return both[:, : stop - start] + share

            params = self._network.run(spec.to_float(levels), run)
            state, level, record = self._draw.pick(state, pixels.noise[channel], params)
            records.append(record)
            levels = keep_known(levels, level, pixels, channel)
        # No feature of a pixel depends on its last channel; only its own levels do.
        x = spec.to_float(levels)
        spatial = [h for h, p in zip(inputs, self._parts, strict=True) if p.kernel > 1]
        if push:
            pushed = [x @ _push_weights(self.spatial[0]), *pushed]
        return levels, (x, *spatial[1:]), pushed, state, stacked(records)

    def start(self, batch: int) -> Any:
        """Each spatial layer's last input rows [w b k//2*i], before there are any."""
        width = self._spec.width
        return tuple(
            jnp.zeros((width, batch, p.kernel // 2 * p.before.shape[1])) for p in self.spatial
        )

    def begin(self, rows: Any) -> tuple[Any, Any]:
        """Empty queues of what is pushed, and each spatial layer's share of the row [w b o]."""
        shares = tuple(map(_above, self.spatial, rows))
        queues = tuple(
            jnp.zeros((share.shape[1], p.kernel // 2 * share.shape[2]))
            for p, share in zip(self.spatial, shares, strict=True)
        )
        return queues, shares

    def pixel(
        self, left: Any, above: Any, pixels: Pixels, state: Any
    ) -> tuple[Any, Any, Array, Any, Any]:
        """See `Stepper`; the row keeps each spatial layer's input."""
        past = [a + queue[:, : a.shape[1]] for a, queue in zip(above, left, strict=True)]
        levels, inputs, pushed, state, records = self.draw(pixels, past, True, state)
        outs = [a.shape[1] for a in above]
        queues = tuple(map(_moved_on, left, pushed, outs))
        return queues, inputs, levels, state, records

    def end(self, rows: Any, left: Any, kept: Any) -> Any:
        """The last input rows, with this one."""
        both = zip(rows, kept, strict=True)
        return tuple(jnp.concatenate([x[..., i.shape[-1] :], i], -1) for x, i in both)


def _above(parts: Parts, rows: Array) -> Array:
    """A layer's last input rows [w b k//2*i] to their share of the next row [w b o]."""
    reach = parts.kernel // 2
    weights = parts.before[:-reach].reshape(reach, parts.kernel, -1, parts.bias.shape[1])
    share = parts.bias[None]
    # One product for each column of the kernel, moved into place: laid side by side, the inputs
    # of all of them would be read and written k times.
    for column in range(parts.kernel):
        given = rows @ weights[:, column].reshape(-1, weights.shape[-1])
        share = share + _shift(given, column - reach)
    return share


def _moved_on(queue: Array, pushed: Array, out: int) -> Array:
    """The queue [n reach*o] for the next pixel, with what this one has pushed."""
    rest = jnp.pad(queue[:, out:], ((0, 0), (0, out)))
    return rest + pushed


def _push_weights(parts: Parts) -> Array:
    """[i k//2*o]: what a pixel gives the next k//2 ones to the right."""
    reach = parts.kernel // 2
    return jnp.concatenate(list(parts.before[::-1][:reach]), -1)


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
                taps.append(_shift(history[-ago], (phase - ago) // lag + up))
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


def _shift(x: Array, places: int) -> Array:
    """x[i + places] at i, zero where there is none."""
    if places == 0:
        return x
    empty = jnp.zeros((abs(places), *x.shape[1:]))
    parts = [x[places:], empty] if places > 0 else [empty, x[:places]]
    return jnp.concatenate(parts)
