"""A single stack of masked convolutions, run pixel by pixel."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxgen.causal.condition import Condition
from jaxgen.causal.masked import Terms
from jaxgen.causal.samplers import Draw, Pixels, dtype_of, keep_known, stacked
from jaxgen.spec import DataSpec


class Stack:
    """A bound network's single stack of causal convolutions, to be run pixel by pixel.

    The network offers `terms(vector)` and `run(x, run)` (see `PixelCNNNet`). Only spatial layers,
    those with taps beside the centre, carry anything from one pixel to the next: their last
    input rows, from which all of the next row's share of them is computed at once, and what
    the pixels to the left have pushed. They alone take the condition's maps.
    """

    def __init__(self, network: Any, spec: DataSpec, draw: Draw, condition: Condition) -> None:
        self._network, self._spec, self._draw = network, spec, draw
        self._dtype = dtype_of(network)
        maps = condition.maps
        self._maps = None if maps is None else maps.transpose(1, 2, 0, 3)
        self._terms: list[Terms] = network.terms(condition.vector)
        self.spatial = [terms for terms in self._terms if terms.kernel > 1]
        self._pushed = [
            push_weights(terms) if terms.kernel > 1 and i > 0 else None
            for i, terms in enumerate(self._terms)
        ]

    def pass_pixel(
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
                terms = self._terms[i]
                if channel and i:  # noqa: B023
                    h = jnp.concatenate([before[i], h], -1)  # noqa: B023
                inputs.append(h)  # noqa: B023
                weights = terms.centre[channel]  # noqa: B023
                start = sum(w.shape[1] for w in terms.centre[:channel])  # noqa: B023
                stop = start + weights.shape[1]
                share = next(shares) if terms.kernel > 1 else terms.bias  # noqa: B023
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

            params = self._network.run(self._floats(levels), run)
            state, level, record = self._draw.pick(state, pixels.noise[channel], params)
            records.append(record)
            levels = keep_known(levels, level, pixels, channel)
        # No feature of a pixel depends on its last channel; only its own levels do.
        x = self._floats(levels)
        spatial = [h for h, terms in zip(inputs, self._terms, strict=True) if terms.kernel > 1]
        if push:
            pushed = [x @ push_weights(self.spatial[0]), *pushed]
        return levels, (x, *spatial[1:]), pushed, state, stacked(records)

    def _floats(self, levels: Array) -> Array:
        return self._spec.to_float(levels).astype(self._dtype)

    def start(self, batch: int) -> Any:
        """Each spatial layer's last input rows [w b k//2*i], before there are any."""
        width = self._spec.width
        sizes = [terms.kernel // 2 * terms.before.shape[1] for terms in self.spatial]
        return tuple(jnp.zeros((width, batch, size), self._dtype) for size in sizes)

    def begin(self, rows: Any, row: Int[Array, ""]) -> tuple[Any, Any]:
        """Empty queues of what is pushed, and each spatial layer's share of the row [w b o]."""
        maps = None if self._maps is None else self._maps[row]
        shares = tuple(_above(terms, x, maps) for terms, x in zip(self.spatial, rows, strict=True))
        queues = tuple(
            jnp.zeros((share.shape[1], terms.kernel // 2 * share.shape[2]), self._dtype)
            for terms, share in zip(self.spatial, shares, strict=True)
        )
        return queues, shares

    def pixel(
        self, left: Any, above: Any, pixels: Pixels, state: Any
    ) -> tuple[Any, Any, Array, Any, Any]:
        """See `Stepper`; the row keeps each spatial layer's input."""
        past = [a + queue[:, : a.shape[1]] for a, queue in zip(above, left, strict=True)]
        levels, inputs, pushed, state, records = self.pass_pixel(pixels, past, True, state)
        outs = [a.shape[1] for a in above]
        queues = tuple(map(_moved_on, left, pushed, outs))
        return queues, inputs, levels, state, records

    def end(self, rows: Any, left: Any, memos: Any) -> Any:
        """The last input rows, with this one."""
        both = zip(rows, memos, strict=True)
        return tuple(jnp.concatenate([x[..., i.shape[-1] :], i], -1) for x, i in both)


def of_place(terms: Terms, maps: Array | None) -> Array:
    """What a layer adds of itself: its bias [b o], or with that of the maps [*b f], [*b o]."""
    if maps is None or terms.maps is None:
        return terms.bias
    shift = maps @ terms.maps
    return terms.bias.reshape(*(1,) * (shift.ndim - 2), *terms.bias.shape) + shift


def _above(terms: Terms, rows: Array, maps: Array | None) -> Array:
    """A layer's last input rows [w b k//2*i] and the next row's maps [w b f] to their share of
    the next row [w b o]."""
    reach = terms.kernel // 2
    weights = terms.before[:-reach].reshape(reach, terms.kernel, -1, terms.bias.shape[1])
    share = of_place(terms, maps)
    share = share if share.ndim == 3 else share[None]
    # One product for each column of the kernel, moved into place: laid side by side, the inputs
    # of all of them would be read and written k times.
    for column in range(terms.kernel):
        given = rows @ weights[:, column].reshape(-1, weights.shape[-1])
        share = share + shift(given, column - reach)
    return share


def _moved_on(queue: Array, pushed: Array, out: int) -> Array:
    """The queue [n reach*o] for the next pixel, with what this one has pushed."""
    rest = jnp.pad(queue[:, out:], ((0, 0), (0, out)))
    return rest + pushed


def push_weights(terms: Terms) -> Array:
    """[i k//2*o]: what a pixel gives the next k//2 ones to the right."""
    reach = terms.kernel // 2
    return jnp.concatenate(list(terms.before[::-1][:reach]), -1)


def shift(x: Array, places: int) -> Array:
    """x[i + places] at i, zero where there is none."""
    if places == 0:
        return x
    empty = jnp.zeros((min(abs(places), len(x)), *x.shape[1:]), x.dtype)
    return jnp.concatenate([x[places:], empty] if places > 0 else [empty, x[:places]])
