"""Layers with an equalized learning rate (Karras et al. 2018, arXiv:1710.10196, section 4.1):
parameters start standard normal, and are scaled where they are used, so that one step of Adam
moves every layer alike."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.conv import conv, same_padding


def equalized(
    module: nn.Module, shape: tuple[int, ...], gain: float = 1.0, rate: float = 1.0
) -> Float[Array, "..."]:
    """A kernel [… i o] of the module whose outputs have the variance gain^2 for inputs of variance
    1; it learns `rate` times as fast as others."""
    fan_in = 1
    for size in shape[:-1]:
        fan_in *= size
    init = nn.initializers.normal(1.0 / rate)
    return module.param("kernel", init, shape) * (gain * rate / fan_in**0.5)


class EqualizedDense(nn.Module):
    """A fully connected layer."""

    features: int
    gain: float = 1.0
    """Standard deviation of outputs, of inputs with a standard deviation of 1."""
    rate: float = 1.0
    """How many times as fast as others it learns."""
    bias: float = 0.0
    """What the biases start as."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        y = x @ equalized(self, (x.shape[-1], self.features), self.gain, self.rate)
        init = nn.initializers.constant(self.bias / self.rate)
        bias = self.param("bias", init, (self.features,)) * self.rate
        return y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


class EqualizedConv(nn.Module):
    """A convolution that keeps height and width."""

    features: int
    kernel: int
    gain: float = 1.0
    """Standard deviation of outputs, of inputs with a standard deviation of 1."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        w = equalized(self, shape, self.gain)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        pad = same_padding((x.shape[1], x.shape[2]), shape[:2], 1)
        return conv(x, w, 1, pad) + bias[None, None, None]


def pixel_norm(x: Float[Array, "*b f"]) -> Float[Array, "*b f"]:
    """Features divided by their root mean square, position by position (Karras et al. 2018, section
    4.2)."""
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-8)


def minibatch_deviation(x: Float[Array, "b h w f"], group: int) -> Float[Array, "b h w f+1"]:
    """The features and, as one more, how much they vary within each group of `group` examples that
    follow each other: the mean of their standard deviations (Karras et al. 2018, section 3).

    A device whose share of a batch is a multiple of `group` has whole groups, so that their number
    does not depend on that of the devices.
    """
    b, h, w, f = x.shape
    groups = x.reshape(b // group, group, h, w, f)
    deviation = jnp.sqrt(groups.var(1) + 1e-8).mean((1, 2, 3))
    one = jnp.repeat(deviation, group)[:, None, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(one, (b, h, w, 1))], -1)
