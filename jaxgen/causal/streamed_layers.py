"""Layers of two streams, of whole images and of one pixel at a time."""

from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.causal.streamed import recall, remember
from jaxgen.nn.conv import conv


class Parametrized(Protocol):
    """A distribution of one sub-pixel."""

    @property
    def num_params(self) -> int:
        """How many numbers it is given by."""


def shift_down(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Each row is the one above it; the first is zero."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def shift_right(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Each pixel is the one to its left; the first of a row is zero."""
    return jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]


def _with_left(
    module: nn.Module, x: Float[Array, "b i"], left: int, column: Int[Array, ""]
) -> Float[Array, "b n"]:
    """The `left` inputs to the left, zeros beside the image, then the pixel's own, n = (left+1)*i;
    the module remembers them."""
    if not left:
        return x
    past = recall(module, "left", (left, *x.shape), x.dtype)
    now = jnp.concatenate([jnp.where(column == 0, 0.0, past), x[None]])
    remember(module, "left", now[1:])
    return now.swapaxes(0, 1).reshape(x.shape[0], -1)


class DownConv(nn.Module):
    """A convolution that sees its own row and `rows` - 1 above, and `columns`//2 to each side."""

    features: int
    rows: int
    columns: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], by_row: bool = False) -> Float[Array, "b h w o"]:
        """The layer on whole images; or, `by_row`, on the next row, h = 1."""
        batch, _, width, features = x.shape
        shape = (self.rows, self.columns, features, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        above, side = self.rows - 1, self.columns // 2
        if by_row and above:
            shape = batch, above, width, features
            x = jnp.concatenate([recall(self, "rows", shape, x.dtype), x], 1)
            remember(self, "rows", x[:, 1:])
            above = 0
        return conv(x, kernel, 1, ((above, 0), (side, side))) + bias[None, None, None]


class RightConv(nn.Module):
    """A convolution along rows that sees its own pixel and `columns` - 1 to the left."""

    features: int
    columns: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *hw i"], column: Int[Array, ""] | None = None
    ) -> Float[Array, "b *hw o"]:
        """The layer on whole images [b h w i]; or on one pixel [b i], in that column."""
        shape = (1, self.columns, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if column is None:
            return conv(x, kernel, 1, ((0, 0), (self.columns - 1, 0))) + bias[None, None, None]
        own = _with_left(self, x, self.columns - 1, column)
        return own @ kernel.reshape(-1, self.features) + bias[None]


class DownRightConv(nn.Module):
    """A convolution that sees its own pixel and `columns` - 1 to the left, in its own row and in
    `rows` - 1 above.

    To stream, `begin_row` comes before the pixels of each row: it computes what the rows above
    give to the whole row, so that only the own row's taps are left to each pixel.
    """

    features: int
    rows: int
    columns: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *hw i"], column: Int[Array, ""] | None = None
    ) -> Float[Array, "b *hw o"]:
        """The layer on whole images [b h w i]; or on one pixel [b i], in that column."""
        shape = (self.rows, self.columns, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        above, left = self.rows - 1, self.columns - 1
        if column is None:
            return conv(x, kernel, 1, ((above, 0), (left, 0))) + bias[None, None, None]
        own = _with_left(self, x, left, column) @ kernel[-1].reshape(-1, self.features)
        if not above:
            return own + bias[None]
        rows: Array = self.get_variable("cache", "rows")
        remember(self, "rows", rows.at[-1, column].set(x))
        return own + self.get_variable("cache", "above")[column]

    def begin_row(self, batch: int, width: int) -> None:
        """Takes the row that is finished into the cache; the parameters exist already."""
        kernel: Array = self.get_variable("params", "kernel")
        bias: Array = self.get_variable("params", "bias")
        above, left = self.rows - 1, self.columns - 1
        if not above:
            return
        rows = recall(self, "rows", (above, width, batch, kernel.shape[2]), kernel.dtype)
        padded = jnp.pad(rows, ((0, 0), (left, 0), (0, 0), (0, 0)))
        taps = [row[i : i + width] for row in padded for i in range(self.columns)]
        share = jnp.concatenate(taps, -1) @ kernel[:-1].reshape(-1, self.features)
        remember(self, "above", share + bias[None, None])
        # The oldest row's place is the next one's, pixel by pixel.
        remember(self, "rows", jnp.roll(rows, -1, 0))


class Head(nn.Module):
    """From a pixel's features to the parameters of its sub-pixels, R before G before B.

    One hidden layer for each channel, which also sees the channels before it.
    """

    hidden: int
    channels: int
    likelihood: Parametrized

    @nn.compact
    def __call__(
        self, features: Float[Array, "*b f"], x: Float[Array, "*b c"]
    ) -> Float[Array, "*b c p"]:
        """x: the pixel's levels in [-1, 1], of which channel d sees those before d."""
        channels, hidden, outputs = self.channels, self.hidden, self.likelihood.num_params
        h = nn.Dense(channels * hidden, name="features")(jax.nn.relu(features))
        h = h.reshape(*h.shape[:-1], channels, hidden)
        if channels > 1:
            normal = nn.initializers.normal(channels**-0.5)
            weights = self.param("before", normal, (channels, channels, hidden))
            earlier = jnp.tril(jnp.ones((channels, channels), x.dtype), -1)
            h = h + jnp.einsum("...i,oih->...oh", x, weights * earlier[..., None])
        init = nn.initializers.lecun_normal(batch_axis=0)
        kernel = self.param("kernel", init, (channels, hidden, outputs))
        bias = self.param("bias", nn.initializers.zeros, (channels, outputs))
        out = jnp.einsum("...oh,ohp->...op", jax.nn.relu(h), kernel)
        return out + bias.reshape(*(1,) * (out.ndim - 2), channels, outputs)
