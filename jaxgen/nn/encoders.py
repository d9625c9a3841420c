"""Networks between data and vectors: encoders and decoders, and generators.

Each takes its own sizes by keyword and can be used alone. Data is [b h w c], floats in about
[-1, 1]; labels int [b], or None for a network without classes, are appended as one-hot features.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError
from jaxgen.nn.labels import with_label
from jaxgen.nn.layers import (
    ACTIVATIONS,
    Activation,
    Conv,
    ConvTranspose,
    dropout,
    fold_keys,
    halvings,
    upsample,
)
from jaxgen.nn.norm import Norm

Output = Literal["tanh", "linear"]
"""A generator's last activation."""

DCGAN_INIT = nn.initializers.normal(0.02)
"""The DCGAN paper's initialization, section 4."""


class Encoder(nn.Module, kw_only=True):
    """Data [b h w c] to features [b f]: fully connected layers, behind strided convolutions where
    there are filters."""

    hidden: tuple[int, ...]
    """Widths of the fully connected layers; () = the features are x, or its convolutions'."""
    filters: int = 0
    """Features of the first convolution, doubled at every halving of the size; 0 = none."""
    activation: Activation = "relu"
    num_classes: int = 0
    dropout: float = 0.0
    """Rate after every fully connected layer, and on what enters the first."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b f"]:
        """`keys`, one per example, turn dropout on."""
        act = ACTIVATIONS[self.activation]
        if self.filters:
            x = act(Conv(self.filters, 3, name="conv_in")(x))
            for i in range(len(halvings(x.shape[1], x.shape[2])) - 1):
                x = act(Conv(self.filters * 2 ** (i + 1), 4, stride=2, name=f"convs_{i}")(x))
        h = with_label(x.reshape(len(x), -1), label, self.num_classes)
        h = dropout(keys, h, self.dropout)
        for i, width in enumerate(self.hidden):
            h = act(nn.Dense(width, name=f"encoder_layers_{i}")(h))
            h = dropout(fold_keys(keys, i + 1), h, self.dropout)
        return h


class Decoder(nn.Module, kw_only=True):
    """Latents [b z] to maps [b h w c], without an activation at the end: fully connected layers,
    before convolutions that double the size where there are filters."""

    shape: tuple[int, int, int]
    """Height, width and features of what is returned."""
    hidden: tuple[int, ...]
    """Widths of the fully connected layers, from the latents on."""
    filters: int = 0
    """Features at full resolution, twice as many at half of it, …; 0 = no convolutions."""
    upsample: Literal["resize", "transpose"] = "resize"
    """Double the pixels and convolve, or transposed convolutions."""
    activation: Activation = "relu"
    num_classes: int = 0
    dropout: float = 0.0
    """Rate after every fully connected layer but the last."""

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
        first: int = 0,
    ) -> Float[Array, "b h w c"]:
        """`keys`, one per example, turn dropout on; layer i has the noise number `first` + i, so
        that networks which share the keys share no noise."""
        height, width, features = self.shape
        act = ACTIVATIONS[self.activation]
        h = with_label(z, label, self.num_classes)
        for i, n in enumerate(self.hidden):
            h = act(nn.Dense(n, name=f"decoder_layers_{i}")(h))
            h = dropout(fold_keys(keys, first + i), h, self.dropout)
        if not self.filters:
            h = nn.Dense(height * width * features, name="out")(h)
            return h.reshape(-1, *self.shape)
        *larger, smallest = halvings(height, width)
        size = (*smallest, self.filters * 2 ** len(larger))
        h = act(nn.Dense(size[0] * size[1] * size[2], name="unflatten")(h)).reshape(-1, *size)
        for i, to in enumerate(reversed(larger)):
            h = act(self._doubled(h, to, self.filters * 2 ** (len(larger) - 1 - i), f"deconvs_{i}"))
        return Conv(features, 3, name="conv_out")(h)

    def _doubled(self, h: Array, size: tuple[int, int], features: int, name: str) -> Array:
        if self.upsample == "transpose":
            return ConvTranspose(features, 4, size=size, name=name)(h)
        return Conv(features, 3, name=name)(upsample(h, size))


class MLPGenerator(nn.Module, kw_only=True):
    """Latents [b z] to data [b h w c] by fully connected layers."""

    shape: tuple[int, int, int]
    hidden: tuple[int, ...]
    output: Output = "tanh"
    norm: Literal["batch", "none"] = "batch"
    num_classes: int = 0
    train: bool = False
    """Whether BatchNorm normalizes by the batch, and moves its statistics, or by these."""
    axis_name: str | None = None
    """The mapped axis over which BatchNorm's batch extends."""

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b h w c"]:
        h = with_label(z, label, self.num_classes)
        for n in self.hidden:
            h = nn.Dense(n, use_bias=self.norm == "none")(h)
            h = jax.nn.relu(Norm(self.norm, self.train, self.axis_name)(h))
        height, width, channels = self.shape
        x = nn.Dense(height * width * channels)(h).reshape(-1, *self.shape)
        return jnp.tanh(x) if self.output == "tanh" else x


class DCGANGenerator(nn.Module, kw_only=True):
    """Latents [b z] to images [b h w c] by transposed convolutions, of stride 2 and 4x4 kernels
    (Radford, Metz & Chintala 2016, arXiv:1511.06434)."""

    shape: tuple[int, int, int]
    filters: int
    """Features before the last convolution, doubled towards the latents at every halving."""
    output: Output = "tanh"
    norm: Literal["batch", "none"] = "batch"
    num_classes: int = 0
    train: bool = False
    """Whether BatchNorm normalizes by the batch, and moves its statistics, or by these."""
    axis_name: str | None = None
    """The mapped axis over which BatchNorm's batch extends."""

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b h w c"]:
        height, width, channels = self.shape
        bias = self.norm == "none"
        *larger, smallest = several_sizes(height, width)
        size = (*smallest, self.filters * 2 ** (len(larger) - 1))
        # A transposed convolution of a 1x1 map to the smallest size is this matrix product.
        h = with_label(z, label, self.num_classes)
        h = nn.Dense(size[0] * size[1] * size[2], use_bias=bias, kernel_init=DCGAN_INIT)(h)
        h = h.reshape(-1, *size)
        for i in reversed(range(len(larger))):
            h = jax.nn.relu(Norm(self.norm, self.train, self.axis_name)(h))
            n, use_bias = (self.filters * 2 ** (i - 1), bias) if i else (channels, True)
            h = ConvTranspose(n, 4, larger[i], use_bias=use_bias, kernel_init=DCGAN_INIT)(h)
        return jnp.tanh(h) if self.output == "tanh" else h


def several_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The halvings of that size, two or more; raises UserError where there is nothing to halve."""
    sizes = halvings(height, width)
    if len(sizes) == 1:
        raise UserError(
            f"a DCGAN halves images whose sides are at least 3 pixels, and these are {height}x"
            f"{width}; fully connected networks take any size"
        )
    return sizes
