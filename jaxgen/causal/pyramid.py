"""The two streams of PixelCNN++ at several resolutions.

Salimans et al. 2017, arXiv:1701.05517, section 2.3 and figure 2. A `Pyramid` is one stream: it is
written once, and a runner says how its convolutions and its changes of resolution are computed.
Row R, column C of half the resolution stands at row 2R, column 2C of the whole: it is computed
there, from that place and those before it and from the condition's maps of that place, and given to
the places 2R, 2R+1 by 2C, 2C+1. All arrays are [b h w c]; a row has h = 1, and a pixel h = w = 1.
"""

from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.condition import Condition, Shift
from jaxgen.nn.conv import Size, conv, conv_adjoint
from jaxgen.nn.layers import concat_elu, dropout, fold_keys

Stream = Literal["above", "left"]
"""above: sees its own row and those above it, to both sides; left: what is to the right, too, it
does not see."""

COLUMNS = {"above": 3, "left": 2}
"""Columns of a stream's kernels: with the place itself in the middle, or last."""


class Runner(Protocol):
    """How a pyramid is run."""

    def conv(self, layer: "StreamConv", x: Array, linked: Array | None = None) -> Array:
        """The layer's output for x, plus `linked`, what the stream above adds to it."""

    def inner(
        self, pyramid: "Pyramid", x: Array, condition: Condition, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        """x at half the resolution through the inner pyramid, and back; and what that has seen."""


class StreamConv(nn.Module):
    """A convolution of two rows, its own and the one above, as a stream may see them."""

    features: int
    stream: Stream
    stride: int = 1
    gain: float = 1.0
    """A factor of the initial kernel."""

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
        """x at that size; or, from one row, the one row with that number (stream above)."""
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
        self.shift = Shift()

    def __call__(
        self,
        x: Float[Array, "b h w f"],
        run: Runner,
        condition: Condition,
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
        value, gate = jnp.split(self.shift(h, condition), 2, -1)
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
        condition: Condition,
        keys: Key[Array, " b"] | None,
        above: Any,
    ) -> tuple[Float[Array, "b h w f"], Any]:
        """The output, and what each block gives to the other stream, which takes it as `above`."""
        links, inner_links = (None, None) if above is None else above
        of = lambda i: None if links is None else links[i]  # noqa: E731
        skips, seen, inner_seen = [x], [], None
        for i, block in enumerate(self.down):
            x = block(x, run, condition, fold_keys(keys, i), of(i))
            skips.append(x)
            seen.append(x)
        if self.scales > 1:
            inner_keys = fold_keys(keys, 2 * self.blocks + 1)
            x, inner_seen = run.inner(self, x, condition, inner_keys, inner_links)
        else:
            x = skips.pop()
        for i, block in enumerate(self.up, self.blocks):
            x = block(x, run, condition, fold_keys(keys, i), of(i), skips.pop())
            seen.append(x)
        return x, (seen, inner_seen)


class Whole:
    """Runs a pyramid on whole images."""

    def conv(self, layer: StreamConv, x: Array, linked: Array | None = None) -> Array:
        y = layer(x)
        return y if linked is None else y + linked

    def inner(
        self, pyramid: Pyramid, x: Array, condition: Condition, keys: Array | None, above: Any
    ) -> tuple[Array, Any]:
        small, seen = pyramid.smaller(pyramid.shrink(x), self, condition.halved(), keys, above)
        return pyramid.grow(small, (x.shape[1], x.shape[2])), seen
