"""The two streams of PixelCNN++ at several resolutions, run on images, on rows, or on pixels.

Salimans et al. 2017, arXiv:1701.05517, section 2.3 and figure 2. A `Pyramid` is one stream: it is
written once, and a runner says how its convolutions and its changes of resolution are computed.
Row R, column C of half the resolution stands at row 2R, column 2C of the whole: it is computed
there, from that place and those before it, and given to the places 2R, 2R+1 by 2C, 2C+1. All
arrays are [b h w c]; a row has h = 1, and a pixel h = w = 1.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxgen.conv import Size, conv, conv_adjoint
from jaxgen.layers import dropout, fold_keys
from jaxgen.streams import LabelShift

Stream = Literal["above", "left"]
"""above: sees its own row and those above it, to both sides; left: what is to the right, too, it
does not see."""

COLUMNS = {"above": 3, "left": 2}
"""Columns of a stream's kernels: with the place itself in the middle, or last."""

Nested = Any
"""What is kept for each layer of a pyramid, in the order in which they run; for the inner
pyramid, a tuple (what the change of resolution keeps: its input, its output; the same for the inner
pyramid's layers)."""


def concat_elu(x: Float[Array, "*s c"]) -> Float[Array, "*s 2c"]:
    """ELU of x and of -x."""
    return jax.nn.elu(jnp.concatenate([x, -x], -1))


class Runner(Protocol):
    """How a pyramid is run."""

    def conv(self, layer: "StreamConv", x: Array, linked: Array | None = None) -> Array:
        """The layer's output for x, plus `linked`, what the stream above adds to it."""

    def inner(
        self, pyramid: "Pyramid", x: Array, label: Array | None, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        """x at half the resolution through the inner pyramid, and back; and what that has seen."""


class StreamConv(nn.Module):
    """A convolution of two rows, its own and the one above, as a stream may see them."""

    features: int
    stream: Stream
    stride: int = 1
    gain: float = 1.0
    """Of the initial kernel."""

    @nn.compact
    def weights(self, inputs: int) -> tuple[Float[Array, "2 k i o"], Float[Array, "1 1 1 o"]]:
        """Kernel and bias."""
        shape = (2, COLUMNS[self.stream], inputs, self.features)
        init = nn.initializers.normal(self.gain / float(np.sqrt(np.prod(shape[:3]))))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return self.param("kernel", init, shape), bias[None, None, None]

    def __call__(self, x: Float[Array, "b h w i"], rows: int = 1) -> Float[Array, "b h2 w2 o"]:
        """rows: of zeros above the image; 0 where x begins with the row above."""
        kernel, bias = self.weights(x.shape[-1])
        return conv(x, kernel, self.stride, ((rows, 0), (1, kernel.shape[1] - 2))) + bias

    def of_row_above(self, x: Float[Array, "b 1 w i"]) -> Float[Array, "b 1 w2 o"]:
        """The share of the row above; stream left."""
        kernel, bias = self.weights(x.shape[-1])
        return conv(x, kernel[:1], self.stride, ((0, 0), (1, 0))) + bias

    def of_own_row(self, left: Float[Array, "b 1 1 i"], x: Float[Array, "b 1 1 i"]) -> Array:
        """The share of the pixel to the left and of the pixel itself [b 1 1 o]; stream left."""
        kernel, _ = self.weights(x.shape[-1])
        return jnp.concatenate([left, x], -1) @ kernel[1].reshape(-1, self.features)


class Grow(nn.Module):
    """The adjoint of a strided `StreamConv`: twice the rows and columns."""

    features: int
    stream: Stream

    @nn.compact
    def weights(self, inputs: int) -> tuple[Float[Array, "2 k o i"], Float[Array, "1 1 1 o"]]:
        """Kernel, as of the convolution, and bias."""
        columns = COLUMNS[self.stream]
        # A place is reached by half of the columns, and by one row.
        init = nn.initializers.normal(float(np.sqrt(2.0 / (columns * inputs))))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = self.param("kernel", init, (2, columns, self.features, inputs))
        return kernel, bias[None, None, None]

    def __call__(
        self, x: Float[Array, "b h w i"], size: Size, row: Int[Array, ""] | None = None
    ) -> Float[Array, "b h2 w2 o"]:
        """Of that size; or, from one row, of the one row with that number (stream above)."""
        kernel, bias = self.weights(x.shape[-1])
        if row is not None:
            kernel = lax.dynamic_slice_in_dim(kernel, row % 2, 1)
        below = size[0] % 2 if row is None else 0
        padding = (0, below), (kernel.shape[1] - 2, size[1] % 2)
        return conv_adjoint(x, kernel, 2, padding, size) + bias

    def pixel(self, x: Float[Array, "b 1 1 i"], row: Array, column: Array) -> Array:
        """From one pixel, the one at that row and column [b 1 1 o] (stream left)."""
        kernel, bias = self.weights(x.shape[-1])
        return x @ kernel[row % 2, column % 2].T + bias


class GatedBlock(nn.Module):
    """concat-ELU, convolution; concat-ELU, dropout, convolution to twice the features, of which
    one half gates the other; plus the input."""

    features: int
    stream: Stream
    dropout: float

    def setup(self) -> None:
        self.first = StreamConv(self.features, self.stream)
        self.link = nn.Dense(self.features, use_bias=False)
        self.shortcut = nn.Dense(self.features, use_bias=False)
        # Small, so that a block adds little at first; in place of the paper's weight
        # normalization with its data-dependent initialization.
        self.second = StreamConv(2 * self.features, self.stream, gain=0.1)
        self.label = LabelShift()

    def __call__(
        self,
        x: Float[Array, "b h w f"],
        run: Runner,
        label: Array | None,
        keys: Key[Array, " b"] | None,
        above: Float[Array, "b h w f"] | None,
        skip: Float[Array, "b h w f"] | None = None,
    ) -> Float[Array, "b h w f"]:
        """above: from the other stream; skip: from the way down."""
        linked = None if above is None else self.link(concat_elu(above))
        h = run.conv(self.first, concat_elu(x), linked)
        if skip is not None:
            h = h + self.shortcut(concat_elu(skip))
        h = run.conv(self.second, dropout(keys, concat_elu(h), self.dropout))
        value, gate = jnp.split(self.label(h, label), 2, -1)
        return x + value * jax.nn.sigmoid(gate)


class Pyramid(nn.Module):
    """One stream: blocks, an inner pyramid at half the resolution, and blocks again, each with a
    short-cut from the way down."""

    features: int
    stream: Stream
    blocks: int
    scales: int
    dropout: float

    def setup(self) -> None:
        def stack(number: int) -> list[GatedBlock]:
            return [GatedBlock(self.features, self.stream, self.dropout) for _ in range(number)]

        self.down = stack(self.blocks)
        if self.scales > 1:
            self.shrink = StreamConv(self.features, self.stream, stride=2)
            self.smaller = Pyramid(
                self.features, self.stream, self.blocks, self.scales - 1, self.dropout
            )
            self.grow = Grow(self.features, self.stream)
        self.up = stack(self.blocks + (self.scales > 1))

    def __call__(
        self,
        x: Float[Array, "b h w f"],
        run: Runner,
        label: Array | None,
        keys: Key[Array, " b"] | None,
        above: Any,
    ) -> tuple[Float[Array, "b h w f"], Any]:
        """The output, and what each block gives to the other stream, which takes it as `above`."""
        links, inner_links = (None, None) if above is None else above
        of = lambda i: None if links is None else links[i]  # noqa: E731
        skips, seen, inner_seen = [x], [], None
        for i, block in enumerate(self.down):
            x = block(x, run, label, fold_keys(keys, i), of(i))
            skips.append(x)
            seen.append(x)
        if self.scales > 1:
            inner_keys = fold_keys(keys, 2 * self.blocks + 1)
            x, inner_seen = run.inner(self, x, label, inner_keys, inner_links)
        else:
            x = skips.pop()
        for i, block in enumerate(self.up, self.blocks):
            x = block(x, run, label, fold_keys(keys, i), of(i), skips.pop())
            seen.append(x)
        return x, (seen, inner_seen)


class Whole:
    """Runs a pyramid on whole images."""

    def conv(self, layer: StreamConv, x: Array, linked: Array | None = None) -> Array:
        y = layer(x)
        return y if linked is None else y + linked

    def inner(
        self, pyramid: Pyramid, x: Array, label: Array | None, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        small, seen = pyramid.smaller(pyramid.shrink(x), self, label, keys, above)
        return pyramid.grow(small, x.shape[1:3]), seen


class Row:
    """Runs a pyramid of the stream above on the next row.

    Of each layer it keeps the input row, of the inner pyramid (the input row, the last output row,
    what is kept inside); `before` is what was kept of the row above, None before any was run.
    """

    def __init__(self, row: Int[Array, ""], before: Nested | None) -> None:
        self._row, self._before = row, _each(before)
        self._kept: list[Any] = []

    @property
    def states(self) -> Nested:
        """What is kept of this row."""
        return tuple(self._kept)

    def conv(self, layer: StreamConv, x: Array, linked: Array | None = None) -> Array:
        before = next(self._before)
        self._kept.append(x)
        return layer(jnp.concatenate([jnp.zeros_like(x) if before is None else before, x], 1), 0)

    def inner(
        self, pyramid: Pyramid, x: Array, label: Array | None, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        before = next(self._before)
        x_before, last, inside = (jnp.zeros_like(x), None, None) if before is None else before

        bind = _binder(pyramid)

        def run() -> Any:
            bound, runner = bind(), Row(self._row // 2, inside)
            shrunk = bound.shrink(jnp.concatenate([x_before, x], 1), 0)
            small, seen = bound.smaller(shrunk, runner, label, None, None)
            return (small, runner.states), seen

        kept, seen = _every_second(self._row % 2 == 0, run, before and (last, inside))
        self._kept.append((x, *kept))
        return pyramid.grow(kept[0], x.shape[1:3], self._row), seen


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
        """Of each layer [b 1 w o]; of the inner pyramid (that of its first convolution, its last
        output row, those inside)."""
        return tuple(self._shares)

    def conv(self, layer: StreamConv, x: Array, linked: Array | None = None) -> Array:
        before = next(self._before)
        self._rows.append(jnp.zeros_like(x) if before is None else before)
        share = layer.of_row_above(self._rows[-1])
        self._shares.append(share if linked is None else share + linked)
        return self._shares[-1]

    def inner(
        self, pyramid: Pyramid, x: Array, label: Array | None, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        before = next(self._before)
        row = jnp.zeros_like(x) if before is None else before[0]

        bind = _binder(pyramid)

        def run() -> Any:
            bound, runner = bind(), AboveOfRow(self._row // 2, before and before[2])
            shrunk = bound.shrink.of_row_above(row)
            small, _ = bound.smaller(shrunk, runner, label, None, above)
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
        self._kept: list[Any] = []

    @property
    def states(self) -> Nested:
        """What is kept of this pixel."""
        return tuple(self._kept)

    def conv(self, layer: StreamConv, x: Array, linked: Array | None = None) -> Array:
        self._kept.append(x)
        return self._at(next(self._shares)) + layer.of_own_row(next(self._left), x)

    def inner(
        self, pyramid: Pyramid, x: Array, label: Array | None, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        share, above_row, shares = next(self._shares)
        left, last, inside = next(self._left)
        half = self._row // 2, self._column // 2

        bind = _binder(pyramid)

        def run() -> Any:
            bound, runner = bind(), Pixel(*half, shares, inside)
            shrunk = _at(share, half[1]) + bound.shrink.of_own_row(left, x)
            small, _ = bound.smaller(shrunk, runner, label, None, None)
            return (small, runner.states), ()

        here = (self._row % 2 == 0) & (self._column % 2 == 0)
        last = jnp.where(self._row % 2 == 0, last, _at(above_row, half[1]))
        kept, _ = _every_second(here, run, (last, inside))
        self._kept.append((x, *kept))
        return pyramid.grow.pixel(kept[0], self._row, self._column), None

    def _at(self, share: Array) -> Array:
        return _at(share, self._column)


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
    """What `run` returns where it is time, (kept, given), else what was kept last and zeros; before
    there is a last, it is run."""
    if last is None:
        return run()
    _, given = jax.eval_shape(run)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), given)
    return lax.cond(here, run, lambda: (last, zeros))
