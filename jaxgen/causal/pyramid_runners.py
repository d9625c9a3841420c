"""Runs the streams of PixelCNN++ on one row, or on one pixel, to sample at the cost of one pass.

When a row begins, the stream above is run on it as a whole (`Row`), and of the stream left all that
the row above decides (`AboveOfRow`); the rest of it is run pixel by pixel (`Pixel`). The inner
pyramid is run on every second row and column only. What is remembered is one row of each layer.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgen.causal.condition import Condition
from jaxgen.causal.pyramid import Pyramid, StreamConv

Nested = Any
"""What is kept for each layer of a pyramid, in the order in which they run; for the inner
pyramid, a tuple (what the change of resolution keeps: its input, its output; the same for the inner
pyramid's layers)."""


class Row:
    """Runs a pyramid of the stream above on the next row.

    Of each layer it keeps the input row, of the inner pyramid (the input row, the last output row,
    what is kept inside); `before` is what was kept of the row above, None before any was run.
    """

    def __init__(self, row: Int[Array, ""], before: Nested | None) -> None:
        self._row, self._before = row, _each(before)
        self._states: list[Any] = []

    @property
    def states(self) -> Nested:
        """What is kept of this row."""
        return tuple(self._states)

    def conv(self, layer: StreamConv, x: Array, linked: Array | None = None) -> Array:
        before = next(self._before)
        self._states.append(x)
        return layer(jnp.concatenate([jnp.zeros_like(x) if before is None else before, x], 1), 0)

    def inner(
        self, pyramid: Pyramid, x: Array, condition: Condition, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        before = next(self._before)
        x_before, last, inside = (jnp.zeros_like(x), None, None) if before is None else before
        bind = _binder(pyramid)

        def run() -> Any:
            bound, runner = bind(), Row(self._row // 2, inside)
            shrunk = bound.shrink(jnp.concatenate([x_before, x], 1), 0)
            small, seen = bound.smaller(shrunk, runner, condition.halved(), None, None)
            return (small, runner.states), seen

        states, seen = _every_second(self._row % 2 == 0, run, before and (last, inside))
        self._states.append((x, *states))
        return pyramid.grow(states[0], (1, x.shape[2]), self._row), seen


class AboveOfRow:
    """Runs a pyramid of the stream left to the effect that each layer's share of the rows above is
    known for the row; the values that pass through it are of no use."""

    def __init__(self, row: Int[Array, ""], rows: Nested | None) -> None:
        self._row, self._before = row, _each(rows)
        self._rows: list[Any] = []
        self._shares: list[Any] = []

    @property
    def rows(self) -> Nested:
        """The row above, as it came; zeros if none did."""
        return tuple(self._rows)

    @property
    def shares(self) -> Nested:
        """Each layer's [b 1 w o]; the inner pyramid's (that of its first convolution, its last
        output row, those inside)."""
        return tuple(self._shares)

    def conv(self, layer: StreamConv, x: Array, linked: Array | None = None) -> Array:
        before = next(self._before)
        self._rows.append(jnp.zeros_like(x) if before is None else before)
        share = layer.of_row_above(self._rows[-1])
        self._shares.append(share if linked is None else share + linked)
        return self._shares[-1]

    def inner(
        self, pyramid: Pyramid, x: Array, condition: Condition, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        before = next(self._before)
        row = jnp.zeros_like(x) if before is None else before[0]
        bind = _binder(pyramid)

        def run() -> Any:
            bound, runner = bind(), AboveOfRow(self._row // 2, before and before[2])
            shrunk = bound.shrink.of_row_above(row)
            small, _ = bound.smaller(shrunk, runner, condition.halved(), None, above)
            return (), (shrunk, jnp.zeros_like(small), runner.shares, runner.rows)

        _, (shrunk, last, shares, inside) = _every_second(self._row % 2 == 0, run, before and ())
        if before is not None:
            last, inside = before[1:]
        self._rows.append((row, last, inside))
        self._shares.append((shrunk, last, shares))
        return x, None


class Pixel:
    """Runs a pyramid of the stream left on one pixel.

    Of each layer it keeps the input, of the inner pyramid (the input, the last output, what is kept
    inside); `left` is what was kept of the pixel to the left.
    """

    def __init__(self, row: Array, column: Array, shares: Nested, left: Nested) -> None:
        self._row, self._column = row, column
        self._shares, self._left = _each(shares), _each(left)
        self._states: list[Any] = []

    @property
    def states(self) -> Nested:
        """What is kept of this pixel."""
        return tuple(self._states)

    def conv(self, layer: StreamConv, x: Array, linked: Array | None = None) -> Array:
        self._states.append(x)
        share = _at(next(self._shares), self._column)
        return share + layer.of_own_row(next(self._left), x)

    def inner(
        self, pyramid: Pyramid, x: Array, condition: Condition, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        share, above_row, shares = next(self._shares)
        left, last, inside = next(self._left)
        half = self._row // 2, self._column // 2
        bind = _binder(pyramid)

        def run() -> Any:
            bound, runner = bind(), Pixel(*half, shares, inside)
            shrunk = _at(share, half[1]) + bound.shrink.of_own_row(left, x)
            small, _ = bound.smaller(shrunk, runner, condition.halved(), None, None)
            return (small, runner.states), ()

        here = (self._row % 2 == 0) & (self._column % 2 == 0)
        last = jnp.where(self._row % 2 == 0, last, _at(above_row, half[1]))
        states, _ = _every_second(here, run, (last, inside))
        self._states.append((x, *states))
        return pyramid.grow.pixel(states[0], self._row, self._column), None


def write_pixel(rows: Nested, pixel: Nested, row: Array, column: Array) -> Nested:
    """The rows that the layers keep, with what they keep of that pixel."""

    def write(whole: Array, new: Array, at: Array, here: Array | bool) -> Array:
        new = jnp.where(here, new, _at(whole, at))
        return lax.dynamic_update_slice_in_dim(whole, new, at, 2)

    def walk(rows: Nested, pixel: Nested, row: Array, at: Array, here: Array | bool) -> Nested:
        out: list[Any] = []
        for whole, new in zip(rows, pixel, strict=True):
            if not isinstance(whole, tuple):
                out.append(write(whole, new, at, here))
                continue
            half = row // 2, at // 2, here & (row % 2 == 0) & (at % 2 == 0)
            out.append((
                write(whole[0], new[0], at, here),
                write(whole[1], new[1], *half[1:]),
                walk(whole[2], new[2], *half),
            ))  # fmt: skip
        return tuple(out)

    return walk(rows, pixel, row, column, True)


def _each(states: Nested | None) -> Iterator[Any]:
    """The states in turn; None without end, if there are none."""
    return iter(lambda: None, 0) if states is None else iter(states)


def _at(share: Float[Array, "b 1 w o"], column: Array) -> Float[Array, "b 1 1 o"]:
    return lax.dynamic_slice_in_dim(share, column, 1, 2)


def _binder(pyramid: Pyramid) -> Callable[[], Pyramid]:
    """Binds the pyramid anew: a Linen module is to be called in the branch it was bound in."""
    module, variables = pyramid.unbind()
    return lambda: module.bind(variables)


def _every_second(here: Array, run: Callable[[], Any], last: Any | None) -> tuple[Any, Any]:
    """What `run` returns where it is time, (states, given), else what was kept last and zeros;
    before there is a last, it is run."""
    if last is None:
        return run()
    _, given = jax.eval_shape(run)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), given)
    return lax.cond(here, run, lambda: (last, zeros))
