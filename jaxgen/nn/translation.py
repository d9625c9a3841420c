"""Networks between images: U-Net and ResNet generators, and a discriminator of patches.

Data is [b h w c], floats in about [-1, 1]; the two sides may differ in size and in channels. Labels
int [b], or None for a network without classes, are further channels.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.nn.encoders import Output
from jaxgen.nn.grids import grid_sizes
from jaxgen.nn.labels import with_label
from jaxgen.nn.layers import Conv, ConvTranspose, dropout, fold_keys
from jaxgen.nn.norm import weighed

InstanceName = Literal["instance", "none"]
"""InstanceNorm of what a layer returns, or nothing."""

_SMALL = nn.initializers.normal(0.02)
"""A generator begins with nearly nothing, neither like its source nor like the negative of it: two
that are to be each other's inverse stay with what they begin with, and the papers' begin so too."""

MOST = 8
"""Features are at most so many times those of the first layer."""


def resized(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """The images at another size, by linear interpolation; smaller ones are smoothed before."""
    if x.shape[1:3] == size:
        return x
    return jax.image.resize(x, (len(x), *size, x.shape[-1]), "linear")


class InstanceNorm(nn.Module):
    """Each feature of each example over its places, with a scale and a bias (Ulyanov et al. 2016,
    arXiv:1607.08022): what one example becomes does not depend on the others.

    On a map of a single place it would leave nothing but the bias, and so does not normalize.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        h = x.astype(jnp.float32)
        if x.shape[1] * x.shape[2] > 1:
            mean = h.mean((1, 2), keepdims=True)
            variance = ((h - mean) ** 2).mean((1, 2), keepdims=True)
            h = (h - mean) * jax.lax.rsqrt(variance + 1e-5)
        return h.astype(x.dtype) * scale[None, None, None] + bias[None, None, None]


def _normed(x: Array, kind: str) -> Array:
    return InstanceNorm()(x) if kind == "instance" else x


class UNet(nn.Module, kw_only=True):
    """An image to another: strided convolutions and back, each size beside what was seen at it
    (Ronneberger et al. 2015, arXiv:1505.04597; Isola et al. 2017, arXiv:1611.07004, section 3.2.1,
    with one more layer at full resolution on either side)."""

    shape: tuple[int, int, int]
    """Height, width and channels of what is returned."""
    filters: int
    """Features at full resolution, doubled at every halving, up to eight times as many."""
    halvings: int
    norm: InstanceName = "instance"
    """After every layer but the first and the last."""
    output: Output = "tanh"
    dropout: float = 0.0
    """Rate at every size of the way back: the noise of a translation that has several answers."""
    num_classes: int = 0

    @nn.compact
    def __call__(
        self,
        source: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h2 w2 c2"]:
        """`keys`, one per example, turn dropout on."""
        plain, seen = self.norm == "none", []
        sizes = grid_sizes(*self.shape[:2], self.halvings)
        widths = [self.filters * min(2**i, MOST) for i in range(self.halvings + 1)]
        h = with_label(resized(source, self.shape[:2]), label, self.num_classes)
        h = Conv(self.filters, 3)(h)
        for width in widths[1:]:
            seen.append(h)
            h = Conv(width, 4, 2, use_bias=plain)(jax.nn.leaky_relu(h, 0.2))
            h = _normed(h, self.norm)
        for i in reversed(range(self.halvings)):
            h = ConvTranspose(widths[i], 4, sizes[i], use_bias=plain)(jax.nn.relu(h))
            h = dropout(fold_keys(keys, i), _normed(h, self.norm), self.dropout)
            h = jnp.concatenate([h, seen[i]], -1)
        x = Conv(self.shape[2], 3, kernel_init=_SMALL)(jax.nn.relu(h))
        return jnp.tanh(x) if self.output == "tanh" else x


class ResNet(nn.Module, kw_only=True):
    """An image to another: residual blocks between strided convolutions and back (Johnson et al.
    2016, arXiv:1603.08155; Zhu et al. 2017, arXiv:1703.10593, appendix 7.2, with kernels of 3x3 and
    zeros around the image throughout)."""

    shape: tuple[int, int, int]
    """Height, width and channels of what is returned."""
    filters: int
    """Features at full resolution, doubled at every halving, up to eight times as many."""
    halvings: int
    blocks: int
    """Residual blocks, at the smallest size."""
    norm: InstanceName = "instance"
    """After every layer but the last."""
    output: Output = "tanh"
    dropout: float = 0.0
    """Rate inside every block."""
    num_classes: int = 0

    @nn.compact
    def __call__(
        self,
        source: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h2 w2 c2"]:
        """`keys`, one per example, turn dropout on."""
        plain, sizes = self.norm == "none", grid_sizes(*self.shape[:2], self.halvings)
        widths = [self.filters * min(2**i, MOST) for i in range(self.halvings + 1)]
        h = with_label(resized(source, self.shape[:2]), label, self.num_classes)
        for i, width in enumerate(widths):
            h = Conv(width, 3, 2 if i else 1, use_bias=plain)(h)
            h = jax.nn.relu(_normed(h, self.norm))
        for i in range(self.blocks):
            new = jax.nn.relu(_normed(Conv(widths[-1], 3, use_bias=plain)(h), self.norm))
            new = dropout(fold_keys(keys, i), new, self.dropout)
            h = h + _normed(Conv(widths[-1], 3, use_bias=plain)(new), self.norm)
        for i in reversed(range(self.halvings)):
            h = ConvTranspose(widths[i], 3, sizes[i], use_bias=plain)(h)
            h = jax.nn.relu(_normed(h, self.norm))
        x = Conv(self.shape[2], 3, kernel_init=_SMALL)(h)
        return jnp.tanh(x) if self.output == "tanh" else x


class PatchDiscriminator(nn.Module, kw_only=True):
    """Images, or several of one size side by side in their channels, to a logit [b h' w'] for every
    patch (Isola et al. 2017, arXiv:1611.07004, section 3.2.2)."""

    filters: int
    """Features of the first convolution, doubled at every halving, up to eight times as many."""
    halvings: int
    """How often the size is halved; it decides the `patch`."""
    norm: Literal["instance", "spectral", "none"] = "instance"
    """InstanceNorm after every convolution but the first and the last, or spectral normalization of
    all."""
    num_classes: int = 0
    train: bool = False
    """Whether spectral normalization moves its estimates."""

    @nn.compact
    def __call__(
        self,
        shown: Float[Array, "b h w c"] | tuple[Float[Array, "b h w _"], ...],
        label: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b h2 w2"]:
        h = jnp.concatenate(shown, -1) if isinstance(shown, tuple) else shown
        h = with_label(h, label, self.num_classes)
        for i in range(self.halvings + 1):
            width, stride = self.filters * min(2**i, MOST), 2 if i < self.halvings else 1
            norm = self.norm if i else "none"
            layer = Conv(width, 4, stride, use_bias=norm != "instance")
            h = weighed(layer, "spectral" if self.norm == "spectral" else "none", self.train)(h)
            h = jax.nn.leaky_relu(_normed(h, norm), 0.2)
        last = weighed(Conv(1, 4), "spectral" if self.norm == "spectral" else "none", self.train)
        return last(h)[..., 0]


def patch(halvings: int) -> int:
    """The sides, in pixels, of what one logit of a `PatchDiscriminator` sees: 7, 16, 34, 70, …"""
    side = 7  # of two convolutions of 4x4
    for _ in range(halvings):
        side = 2 * side + 2
    return side
