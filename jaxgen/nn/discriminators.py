"""Discriminators of data: what they share, and those of fully connected layers and of convolutions.

Each takes its own sizes by keyword and can be used alone. Data is [b h w c], floats in about
[-1, 1]; labels int [b], or None for a network without classes.
"""

from abc import abstractmethod
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from jaxgen.nn.encoders import DCGAN_INIT, several_sizes
from jaxgen.nn.equalized import minibatch_deviation
from jaxgen.nn.labels import Condition, entered, judged
from jaxgen.nn.layers import Conv, Dense
from jaxgen.nn.norm import Norm, NormName, weighed


class Discriminator(nn.Module, kw_only=True):
    """Data [b h w c] to the logit [b] of being real. A network gives what comes before its last
    layer."""

    norm: NormName = "batch"
    """BatchNorm of what layers return, but for the first that sees data, or spectral normalization
    of all weights."""
    group: int = 0
    """Examples, one after another, whose variation the last layer sees; 0 = none."""
    num_classes: int = 0
    condition: Condition = "concat"
    """How labels are taken."""
    train: bool = False
    """Whether BatchNorm normalizes by the batch, and moves its statistics, or by these."""
    axis_name: str | None = None
    """The mapped axis over which BatchNorm's batch extends."""

    last_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    """What the last layer's weights begin with."""

    @abstractmethod
    def seen(self, x: Float[Array, "b h w _"]) -> Float[Array, "b *s f"]:
        """What the last layer sees: features, or maps of them."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        features: bool = False,
        classes: bool = False,
    ) -> Any:
        """With `features`, what the last layer sees [b f] instead of the logit; with `classes`, see
        `judged`."""
        h = self.seen(entered(x, label, self.num_classes, self.condition))
        if self.group and not features:
            maps = h if h.ndim == 4 else h[:, None, None]
            h = minibatch_deviation(maps, self.group)
        # A convolution that covers a whole map is the matrix product that comes of it.
        h = h.reshape(len(h), -1)
        if features:
            return h
        return judged(h, label, self.num_classes, self.condition, self._layer, classes)

    def _layer(self, width: int, what: str) -> Any:
        dense = Dense(width, use_bias=what != "embed", kernel_init=self.last_init)
        return weighed(dense, self.norm, self.train)

    def normed(self, h: Array, norm: NormName) -> Array:
        """BatchNorm of it, if the norm is that."""
        return Norm(norm, self.train, self.axis_name)(h)


class MLPDiscriminator(Discriminator, kw_only=True):
    """Data to the logit of being real, by fully connected layers."""

    hidden: tuple[int, ...]

    def seen(self, x: Float[Array, "b h w _"]) -> Float[Array, "b f"]:
        h = x.reshape(len(x), -1)
        for i, n in enumerate(self.hidden):
            norm = "none" if self.norm == "batch" and i == 0 else self.norm
            h = weighed(Dense(n, use_bias=norm != "batch"), norm, self.train)(h)
            h = jax.nn.leaky_relu(self.normed(h, norm), 0.2)
        return h


class DCGANDiscriminator(Discriminator, kw_only=True):
    """Images to the logit of being real, by convolutions of stride 2 and 4x4 kernels (Radford, Metz
    & Chintala 2016, arXiv:1511.06434)."""

    filters: int
    """Features of the first convolution, doubled at every halving."""

    last_init: nn.initializers.Initializer = DCGAN_INIT

    def seen(self, x: Float[Array, "b h w _"]) -> Float[Array, "b h2 w2 f"]:
        h = x
        for i in range(len(several_sizes(x.shape[1], x.shape[2])) - 1):
            norm = "none" if self.norm == "batch" and i == 0 else self.norm
            conv = Conv(self.filters * 2**i, 4, 2, use_bias=norm != "batch", kernel_init=DCGAN_INIT)
            h = weighed(conv, norm, self.train)(h)
            h = jax.nn.leaky_relu(self.normed(h, norm), 0.2)
        return h
