"""Layers that two or more models use: strided and transposed convolutions, gates, dropout.

Everything is NHWC with kernels [height width in out].
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.nn.conv import conv, conv_adjoint, same_padding

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "elu": jax.nn.elu,
    "tanh": jnp.tanh,
}
Activation = Literal["relu", "leaky_relu", "elu", "tanh"]


class Dense(nn.Module):
    """A matrix product, in the precision of x whatever made the matrix."""

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        shape = (x.shape[-1], self.features)
        # Spectral normalization divides in float32, whatever the precision.
        y = x @ self.param("kernel", self.kernel_init, shape).astype(x.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class Conv(nn.Module):
    """A strided convolution, output size ceil(size / stride)."""

    features: int
    kernel: int
    stride: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        pad = same_padding((x.shape[1], x.shape[2]), shape[:2], self.stride)
        # Spectral normalization divides in float32, whatever the precision.
        kernel = self.param("kernel", self.kernel_init, shape).astype(x.dtype)
        y = conv(x, kernel, self.stride, pad)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias[None, None, None]
        return y


class ConvTranspose(nn.Module):
    """The adjoint of `Conv`: from size ceil(s / stride) back to any such size s.

    Its kernel [k k out in] is the kernel of the convolution whose adjoint it is.
    """

    features: int
    kernel: int
    size: tuple[int, int]
    """Height and width of the output."""
    stride: int = 2
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        shape = (self.kernel, self.kernel, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        pad = same_padding(self.size, shape[:2], self.stride)
        y = conv_adjoint(x, kernel, self.stride, pad, self.size)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias[None, None, None]
        return y


def concat_elu(x: Float[Array, "*s f"]) -> Float[Array, "*s 2f"]:
    """ELU of x and of -x."""
    return jax.nn.elu(jnp.concatenate([x, -x], -1))


def gate(x: Float[Array, "*b 2f"]) -> Float[Array, "*b f"]:
    """tanh of one half times the logistic function of the other (van den Oord et al.
    2016, arXiv:1606.05328, equation 2)."""
    content, opening = jnp.split(x, 2, -1)
    return jnp.tanh(content) * jax.nn.sigmoid(opening)


def upsample(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Each pixel doubled in height and width, cropped to `size`."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)[:, : size[0], : size[1]]


def halvings(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from the image's own down, each half (rounded up) of the one before, until the
    smaller side is at most 4 (at most 2 for images under 16): 28 -> 28, 14, 7, 4; 8 -> 8, 4, 2."""
    smallest = 4 if min(height, width) >= 16 else 2
    sizes = [(height, width)]
    while min(sizes[-1]) > smallest:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def dropout(
    keys: Key[Array, " b"] | None, x: Float[Array, " b *s"], rate: float
) -> Float[Array, " b *s"]:
    """Zeroes entries at `rate` and scales the rest; keys None or rate 0 = identity.

    One key per example: the noise is the same on any number of devices.
    """
    if keys is None or rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def fold_keys(keys: Key[Array, " b"] | None, i: int | Array) -> Key[Array, " b"] | None:
    """The keys of layer i, made of those of the network; None stays None."""
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, i)
