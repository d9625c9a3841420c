"""Residual generators and discriminators (Gulrajani et al. 2017, arXiv:1704.00028; Miyato et al.
2018, arXiv:1802.05957, whose networks for 128 pixels these are at 64 filters)."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.errors import UserError
from jaxgen.nn.discriminators import Discriminator
from jaxgen.nn.encoders import Output
from jaxgen.nn.labels import with_label
from jaxgen.nn.layers import Conv, upsample
from jaxgen.nn.norm import Norm, NormName, weighed
from jaxgen.nn.style import halved

SMALLEST = 4
"""The smaller side of the smallest maps."""

_INIT = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
"""Glorot's for a residual path, whose rectifiers halve the variance; 1 instead of 2 elsewhere."""
_SKIP = nn.initializers.glorot_uniform()


def residual_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from that of the image down, each half of the one before, to a smaller side of 4; two
    or more. Raises UserError where halving does not lead there."""
    sizes = [(height, width)]
    while min(sizes[-1]) > SMALLEST and not (sizes[-1][0] % 2 or sizes[-1][1] % 2):
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    if len(sizes) == 1 or min(sizes[-1]) != SMALLEST:
        fit, side = [SMALLEST * 2**k for k in range(1, 13)], min(height, width)
        near = {max([n for n in fit if n <= side] or fit[:1]), min(n for n in fit if n > side)}
        flags = " or ".join(f"--size={n}" for n in sorted(near))
        raise UserError(
            f"residual networks halve images until the smaller side is {SMALLEST} pixels, and "
            f"{height}x{width} cannot be halved so: give images of another size, such as {flags}, "
            "or another `architecture`"
        )
    return sizes


class Block(nn.Module, kw_only=True):
    """Two 3x3 convolutions, each after a normalization and a rectifier, beside a shortcut.

    Up, both paths first double their pixels, by repetition; down, both average 2x2 pixels at the
    end. The shortcut is x itself where neither size nor features change, else a 1x1 convolution.
    """

    features: int
    resample: Literal["up", "down", "none"]
    norm: NormName
    first: bool = False
    """Whether x is data, which no rectifier may cut, and no norm centre."""
    train: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        def conv(h: Array, features: int, kernel: int, init: Any) -> Array:
            layer = Conv(features, kernel, kernel_init=init)
            return weighed(layer, self.norm, self.train)(h)

        def active(h: Array) -> Array:
            return jax.nn.relu(Norm(self.norm, self.train, self.axis_name)(h))

        def moved(h: Array) -> Array:
            if self.resample == "none":
                return h
            if self.resample == "down":
                return halved(h)
            return upsample(h, (2 * h.shape[1], 2 * h.shape[2]))

        up = self.resample == "up"
        h = x if self.first else active(x)
        h = conv(moved(h) if up else h, self.features, 3, _INIT)
        h = conv(active(h), self.features, 3, _INIT)
        if self.resample == "none" and x.shape[-1] == self.features:
            return x + h
        # A 1x1 convolution may stand on either side of a mean or a repetition: on the smaller.
        if up:
            return moved(conv(x, self.features, 1, _SKIP)) + h
        return conv(moved(x), self.features, 1, _SKIP) + moved(h)


class ResNetGenerator(nn.Module, kw_only=True):
    """Latents [b z] to images [b h w c], by blocks that double the size from a smaller side of
    4."""

    shape: tuple[int, int, int]
    filters: int
    """Features of the last block, doubled towards the latents at every halving."""
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
        *larger, smallest = residual_sizes(height, width)
        size = (*smallest, self.filters * 2 ** (len(larger) - 1))
        h = with_label(z, label, self.num_classes)
        h = nn.Dense(size[0] * size[1] * size[2], kernel_init=_SKIP)(h).reshape(-1, *size)
        for i in reversed(range(len(larger))):
            h = Block(features=self.filters * 2**i, resample="up", norm=self.norm,
                      train=self.train, axis_name=self.axis_name)(h)  # fmt: skip
        h = jax.nn.relu(Norm(self.norm, self.train, self.axis_name)(h))
        x = Conv(channels, 3, kernel_init=_SKIP)(h)
        return jnp.tanh(x) if self.output == "tanh" else x


class ResNetDiscriminator(Discriminator, kw_only=True):
    """Images to the logit of being real, by blocks that halve the size to a smaller side of 4, one
    more, and the sum over places. BatchNorm comes before every rectifier but that of the first
    block."""

    filters: int
    """Features of the first block, doubled at every halving."""

    last_init: nn.initializers.Initializer = _SKIP

    def seen(self, x: Float[Array, "b h w _"]) -> Float[Array, "b f"]:
        h, halvings = x, len(residual_sizes(x.shape[1], x.shape[2])) - 1
        for i in range(halvings + 1):
            h = Block(
                features=self.filters * 2 ** min(i, halvings - 1),
                resample="down" if i < halvings else "none",
                norm=self.norm,
                first=i == 0,
                train=self.train,
                axis_name=self.axis_name,
            )(h)
        return jax.nn.relu(self.normed(h, self.norm)).sum((1, 2))
