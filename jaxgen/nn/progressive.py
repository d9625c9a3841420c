"""Networks that grow with the size of their images, by fading in one block after another (Karras et
al. 2018, arXiv:1710.10196, sections 2 to 4).

Sizes come smallest first, each twice the one before. A network has the parameters of all of them
from the start; `stages` says how many it uses. The newest is mixed with the one before by the
number `alpha` in the collection "fade": 0 = the network without it, 1 = its block alone.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.nn.equalized import EqualizedConv, EqualizedDense, minibatch_deviation, pixel_norm
from jaxgen.nn.labels import Condition, entered, judged, with_label
from jaxgen.nn.layers import upsample

Sizes = tuple[tuple[int, int], ...]
"""(height, width), the smallest first."""

_GAIN = 2.0**0.5
"""Before a rectifier (He et al. 2015, arXiv:1502.01852)."""


def growing_sizes(height: int, width: int) -> Sizes:
    """The sizes that double to that one, from the smallest whose sides are 4 or more; () where its
    smaller side is not from 4 to 7."""
    sizes = [(height, width)]
    while min(sizes[0]) >= 8 and not (sizes[0][0] % 2 or sizes[0][1] % 2):
        sizes.insert(0, (sizes[0][0] // 2, sizes[0][1] // 2))
    return tuple(sizes) if 4 <= min(sizes[0]) <= 7 else ()


def halved(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The mean of each 2x2 pixels; exact where they are the same."""
    rows = (x[:, ::2] + x[:, 1::2]) * 0.5
    return (rows[:, :, ::2] + rows[:, :, 1::2]) * 0.5


def enlarged(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Each pixel repeated until the image has that size, a multiple of its own by a power of 2."""
    while x.shape[1:3] != size:
        x = upsample(x, (2 * x.shape[1], 2 * x.shape[2]))
    return x


def faded(new: Array, old: Array, alpha: Float[Array, ""]) -> Array:
    """The new with weight alpha, and the old with the rest."""
    share = alpha.astype(new.dtype)
    return share * new + (1.0 - share) * old


def seen_at(
    x: Float[Array, "b h w c"], sizes: Sizes, stages: int, alpha: Float[Array, ""]
) -> Float[Array, "b h2 w2 c"]:
    """Real images as generated ones of that stage are: shrunk to its size, and while it fades in,
    mixed with their own means over 2x2 pixels."""
    for _ in sizes[stages:]:
        x = halved(x)
    return x if stages == 1 else faded(x, upsample(halved(x), sizes[stages - 1]), alpha)


def features_of(filters: int, sizes: Sizes) -> list[int]:
    """The features at each size: `filters` at the largest, twice as many at each smaller one, up to
    512 or what the largest has."""
    return [min(filters * 2**i, max(filters, 512)) for i in reversed(range(len(sizes)))]


def used(stages: int) -> tuple[frozenset[str], frozenset[str]]:
    """The blocks, by name, of the generator and of the discriminator that a stage trains: all that
    have joined, and the ways to and from images of its size and, to fade out, the one before."""
    blocks = [f"block_{i}" for i in range(stages)]
    ends = range(max(0, stages - 2), stages)
    to, come = ([f"{way}_image_{i}" for i in ends] for way in ("to", "from"))
    return frozenset(blocks + to), frozenset(blocks + come)


def _alpha(module: nn.Module) -> Float[Array, ""]:
    return module.variable("fade", "alpha", jnp.ones, ()).value


class _Normed(nn.Module):
    """A 3x3 convolution, a leaky rectifier, and pixel norm."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        return pixel_norm(jax.nn.leaky_relu(EqualizedConv(self.features, 3, _GAIN)(x), 0.2))


class _Start(nn.Module):
    """Latents to the features of the smallest size."""

    size: tuple[int, int]
    features: int

    @nn.compact
    def __call__(self, z: Float[Array, "b z"]) -> Float[Array, "b h w f"]:
        height, width = self.size
        # What a convolution whose kernel covers the map makes of z at one place.
        h = EqualizedDense(height * width * self.features, _GAIN)(z)
        h = jax.nn.leaky_relu(h.reshape(-1, height, width, self.features), 0.2)
        return _Normed(self.features)(pixel_norm(h))


class _Up(nn.Module):
    """Features of one size to those of the next."""

    size: tuple[int, int]
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        return _Normed(self.features)(_Normed(self.features)(upsample(x, self.size)))


class _Down(nn.Module):
    """Features of one size to those of the one below."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        h = jax.nn.leaky_relu(EqualizedConv(x.shape[-1], 3, _GAIN)(x), 0.2)
        return halved(jax.nn.leaky_relu(EqualizedConv(self.features, 3, _GAIN)(h), 0.2))


class _End(nn.Module):
    """Features of the smallest size to a logit."""

    group: int
    num_classes: int
    condition: Condition

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w f"], label: Int[Array, " b"] | None, classes: bool
    ) -> Any:
        features = x.shape[-1]
        h = minibatch_deviation(x, self.group) if self.group else x
        h = jax.nn.leaky_relu(EqualizedConv(features, 3, _GAIN)(h), 0.2)
        h = jax.nn.leaky_relu(EqualizedDense(features, _GAIN)(h.reshape(len(h), -1)), 0.2)

        def layer(width: int, what: str) -> EqualizedDense:
            # An embedding has one input that is not 0, of which the gain makes variance 1.
            return EqualizedDense(width, self.num_classes**0.5 if what == "embed" else 1.0)

        return judged(h, label, self.num_classes, self.condition, layer, classes, features**0.5)


class ProgressiveGenerator(nn.Module, kw_only=True):
    """Latents [b z] to images [b h w c] of the size of a stage, with a linear end, and alpha."""

    sizes: Sizes
    stages: int
    """How many of the sizes there are by now."""
    channels: int
    filters: int
    """Features at the largest size, doubled at every halving."""
    num_classes: int = 0

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], label: Int[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b h w c"], Float[Array, ""]]:
        stages = len(self.sizes) if self.is_initializing() else self.stages
        features, alpha = features_of(self.filters, self.sizes), _alpha(self)
        h, images = with_label(z, label, self.num_classes), []
        for i in range(stages):
            kind = _Up if i else _Start
            h = kind(self.sizes[i], features[i], name=f"block_{i}")(h)
            if i >= stages - 2 or self.is_initializing():
                images.append(EqualizedConv(self.channels, 1, name=f"to_image_{i}")(h))
        if stages == 1:
            return images[0], alpha
        return faded(images[-1], upsample(images[-2], self.sizes[stages - 1]), alpha), alpha


class ProgressiveDiscriminator(nn.Module, kw_only=True):
    """Images [b h w c] of the size of a stage to the logit [b] of being real."""

    sizes: Sizes
    stages: int
    """How many of the sizes there are by now."""
    filters: int
    """Features at the largest size, doubled at every halving."""
    group: int = 0
    """Examples, one after another, whose variation its last block sees; 0 = none."""
    num_classes: int = 0
    condition: Condition = "concat"
    """How labels are taken."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        classes: bool = False,
    ) -> Any:
        """With `classes`, see `judged`."""
        stages = len(self.sizes) if self.is_initializing() else self.stages
        features, alpha = features_of(self.filters, self.sizes), _alpha(self)

        def from_image(x: Array, i: int) -> Array:
            conv = EqualizedConv(features[i], 1, _GAIN, name=f"from_image_{i}")
            given = entered(x, label, self.num_classes, self.condition)
            return jax.nn.leaky_relu(conv(given), 0.2)

        h = from_image(x, stages - 1)
        for i in range(stages - 1, 0, -1):
            h = _Down(features[i - 1], name=f"block_{i}")(h)
            if i == stages - 1:
                x = halved(x)
                h = faded(h, from_image(x, i - 1), alpha)
            elif self.is_initializing():
                x = halved(x)
                from_image(x, i - 1)
        end = _End(self.group, self.num_classes, self.condition, name="block_0")
        return end(h, label, classes)
