"""Networks whose latents set the style of each layer (StyleGAN2, Karras et al. 2020,
arXiv:1912.04958, after StyleGAN, Karras et al. 2019, arXiv:1812.04948)."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError
from jaxgen.nn.conv import conv, same_padding
from jaxgen.nn.equalized import (
    EqualizedConv,
    EqualizedDense,
    equalized,
    minibatch_deviation,
    pixel_norm,
)
from jaxgen.nn.labels import Condition, entered, judged
from jaxgen.nn.layers import fold_keys, upsample

Enlarge = Literal["nearest", "bilinear"]
"""How maps are doubled in height and width."""

LEAST, MOST = 4, 7
"""The smaller side of the smallest maps."""
WIDEST = 512
"""Features of the smallest maps, at most."""
MAPPING_RATE = 0.01
"""How fast the mapping learns, beside the other layers (Karras et al. 2019, appendix C)."""
TRACKED = 0.995
"""Decay of the mean of w."""


def style_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes of maps, from the smallest, whose smaller side is 4 to 7, to that of the image:
    each is twice the one before. Raises UserError where halving does not lead to such a size."""
    sizes = [(height, width)]
    while min(sizes[0]) > MOST and not (sizes[0][0] % 2 or sizes[0][1] % 2):
        sizes.insert(0, (sizes[0][0] // 2, sizes[0][1] // 2))
    if not LEAST <= min(sizes[0]) <= MOST:
        side = min(height, width)
        fit = [base * 2**k for k in range(12) for base in range(LEAST, MOST + 1)]
        near = {max((n for n in fit if n <= side), default=fit[0]), min(n for n in fit if n > side)}
        flags = " or ".join(f"--size={n}" for n in sorted(near))
        raise UserError(
            f"styled networks halve images until the smaller side is {LEAST} to {MOST} pixels, and "
            f"{height}x{width} cannot be halved so: give images of another size, such as {flags}"
        )
    return sizes


def features_at(filters: int, levels: int) -> list[int]:
    """The features of each level's maps, the smallest first."""
    return [min(filters * 2**i, max(WIDEST, filters)) for i in reversed(range(levels))]


def act(x: Float[Array, "*b f"]) -> Float[Array, "*b f"]:
    """A leaky rectifier that keeps the mean square of normal inputs."""
    return jax.nn.leaky_relu(x, 0.2) * 2.0**0.5


def bilinear(x: Float[Array, "b h w c"]) -> Float[Array, "b 2h 2w c"]:
    """Maps doubled in height and width by linear interpolation, edges repeated."""
    for axis in (1, 2):
        inner = jax.lax.slice_in_dim
        size = x.shape[axis]
        first, last = inner(x, 0, 1, axis=axis), inner(x, size - 1, size, axis=axis)
        before = jnp.concatenate([first, inner(x, 0, size - 1, axis=axis)], axis)
        after = jnp.concatenate([inner(x, 1, size, axis=axis), last], axis)
        pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def doubled(x: Float[Array, "b h w c"], how: Enlarge) -> Float[Array, "b 2h 2w c"]:
    """Maps at twice the height and width."""
    return bilinear(x) if how == "bilinear" else upsample(x, (2 * x.shape[1], 2 * x.shape[2]))


def halved(x: Float[Array, "b 2h 2w c"]) -> Float[Array, "b h w c"]:
    """The means of 2x2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def demodulation(
    kernel: Float[Array, "kh kw i o"], style: Float[Array, "b i"]
) -> Float[Array, "b o"]:
    """What the weights of each example and output feature are multiplied by, after its style scaled
    them, to have norm 1 (Karras et al. 2020, equation 3)."""
    return jax.lax.rsqrt(style**2 @ (kernel**2).sum((0, 1)) + 1e-8)


def modulated_conv(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw i o"], style: Float[Array, "b i"]
) -> Float[Array, "b h w o"]:
    """A convolution whose weights each example's style scales by input feature, demodulated
    (Karras et al. 2020, equations 1 to 3).

    Scaling the inputs and outputs instead is the same, since all three are linear: every example
    shares one convolution.
    """
    pad = same_padding((x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1]), 1)
    y = conv(x * style[:, None, None], kernel, 1, pad)
    return y * demodulation(kernel, style)[:, None, None]


class Mapping(nn.Module, kw_only=True):
    """Latents [b z] to styles [b w] by fully connected layers."""

    features: int
    layers: int
    num_classes: int = 0

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b w"]:
        h = pixel_norm(z)
        if label is not None:
            one_hot = jax.nn.one_hot(label, self.num_classes, dtype=z.dtype)
            embed = EqualizedDense(z.shape[-1], gain=self.num_classes**0.5, name="embed")
            h = jnp.concatenate([h, pixel_norm(embed(one_hot))], -1)
        for i in range(self.layers):
            h = act(EqualizedDense(self.features, rate=MAPPING_RATE, name=f"layers_{i}")(h))
        return h


class StyledConv(nn.Module, kw_only=True):
    """A modulated convolution, noise, bias and rectifier."""

    features: int
    noise: bool
    """Whether noise is added, one number a pixel, times a strength that is learned."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], w: Float[Array, "b w"], keys: Key[Array, " b"] | None
    ) -> Float[Array, "b h w o"]:
        """`keys`, one per example, turn the noise on."""
        style = EqualizedDense(x.shape[-1], bias=1.0, name="style")(w)
        y = modulated_conv(x, equalized(self, (3, 3, x.shape[-1], self.features)), style)
        if self.noise:
            strength = self.param("strength", nn.initializers.zeros, ())
            if keys is not None:
                draw = jax.vmap(lambda key: jax.random.normal(key, (*y.shape[1:3], 1), y.dtype))
                y = y + strength * draw(keys)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return act(y + bias[None, None, None])


class ToData(nn.Module):
    """Features to channels of data: a modulated 1x1 convolution, not demodulated."""

    channels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], w: Float[Array, "b w"]
    ) -> Float[Array, "b h w c"]:
        style = EqualizedDense(x.shape[-1], bias=1.0, name="style")(w)
        y = (x * style[:, None, None]) @ equalized(self, (x.shape[-1], self.channels))
        return y + self.param("bias", nn.initializers.zeros, (self.channels,))[None, None, None]


class StyleGenerator(nn.Module, kw_only=True):
    """Latents [b z] to data [b h w c]: styles, and maps that double, whose data are summed.

    The collection "style" holds the mean of w over training, "path" that of path lengths, which
    who trains it moves.
    """

    shape: tuple[int, int, int]
    styles: int
    """Features of w."""
    mapping: int
    """Layers from z to w."""
    filters: int
    """Features of the largest maps, doubled at every halving."""
    noise: bool = True
    enlarge: Enlarge = "bilinear"
    num_classes: int = 0
    train: bool = False
    """Whether the mean of w moves."""

    def setup(self) -> None:
        sizes = style_sizes(*self.shape[:2])
        features = features_at(self.filters, len(sizes))
        self.mapper = Mapping(
            features=self.styles, layers=self.mapping, num_classes=self.num_classes
        )
        self.first = self.param("first", nn.initializers.normal(1.0), (*sizes[0], features[0]))
        wide = features[:1] + [n for n in features[1:] for _ in range(2)]
        self.convs = [StyledConv(features=n, noise=self.noise) for n in wide]
        self.to_data = [ToData(self.shape[2]) for _ in sizes]
        self.w_mean = self.variable("style", "w_mean", jnp.zeros, (self.styles,))
        self.path_mean = self.variable("path", "mean", jnp.zeros, ())

    def styled(
        self, z: Float[Array, "b z"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b w"]:
        """w of latents."""
        return self.mapper(z, label)

    def draw(
        self,
        w: Float[Array, "b w"],
        keys: Key[Array, " b"] | None = None,
        other: Float[Array, "b w"] | None = None,
        crossing: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Data of w; with another one from layer `crossing` on, if it is given. `keys`, one per
        example, turn the noise on."""

        def style(layer: int) -> Float[Array, "b w"]:
            if other is None or crossing is None:
                return w
            return jnp.where((layer < crossing)[:, None], w, other)

        x = jnp.broadcast_to(self.first[None], (len(w), *self.first.shape)).astype(w.dtype)
        x = self.convs[0](x, style(0), fold_keys(keys, 0))
        shown = self.to_data[0](x, style(1))
        for i in range(1, len(self.to_data)):
            x, shown = doubled(x, self.enlarge), doubled(shown, self.enlarge)
            for layer in (2 * i - 1, 2 * i):
                x = self.convs[layer](x, style(layer), fold_keys(keys, layer))
            shown = shown + self.to_data[i](x, style(2 * i + 1))
        return shown

    def truncated(
        self,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None,
        psi: float | Float[Array, ""],
    ) -> Float[Array, "b h w c"]:
        """Data of w_mean + psi (w - w_mean): at psi = 0 all are those of the mean of w (Karras et
        al. 2019, appendix B)."""
        # In this form psi = 1 changes no bit.
        w = psi * self.styled(z, label) + (1.0 - psi) * self.w_mean.value[None]
        return self.draw(w, keys)

    def path_length(self) -> Float[Array, ""]:
        """The mean that the collection "path" holds."""
        return self.path_mean.value

    def __call__(
        self,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
        other: Float[Array, "b z"] | None = None,
        crossing: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Data of z; from layer `crossing` on of the latents `other`, if they are given (style
        mixing, Karras et al. 2019, section 3.1)."""
        w = self.styled(z, label)
        if self.train:
            mean = jax.lax.stop_gradient(w).astype(jnp.float32).mean(0)
            self.w_mean.value = TRACKED * self.w_mean.value + (1.0 - TRACKED) * mean
        return self.draw(w, keys, None if other is None else self.styled(other, label), crossing)


def style_layers(height: int, width: int) -> int:
    """How many layers of a `StyleGenerator` have a style that can be another's: its convolutions,
    and what follows the last."""
    return 2 * len(style_sizes(height, width))


class ResidualDiscriminator(nn.Module, kw_only=True):
    """Data [b h w c] to the logit [b] of being real: residual blocks that halve it, and a layer
    that sees how much the examples of a group differ (Karras et al. 2020, figure 7)."""

    filters: int
    """Features at full resolution, doubled at every halving."""
    group: int
    """Examples, following each other, whose deviation is a feature; 1 = none."""
    num_classes: int = 0
    condition: Condition = "projection"
    """How labels are taken."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        features: bool = False,
        classes: bool = False,
    ) -> Any:
        """With `features`, what stands before examples are compared [b f], instead of the logit;
        with `classes`, see `judged`."""
        wide = features_at(self.filters, len(style_sizes(*x.shape[1:3])))[::-1]
        x = entered(x, label, self.num_classes, self.condition)
        h = act(EqualizedConv(wide[0], 1, name="from_data")(x))
        for i, n in enumerate(wide[:-1]):
            skip = EqualizedConv(wide[i + 1], 1, name=f"skips_{i}")(halved(h))
            h = act(EqualizedConv(n, 3, name=f"first_{i}")(h))
            h = act(EqualizedConv(wide[i + 1], 3, name=f"second_{i}")(h))
            h = (halved(h) + skip) * 0.5**0.5
        if features:
            return h.reshape(len(h), -1)
        if self.group > 1:
            h = minibatch_deviation(h, min(self.group, len(h)))
        h = act(EqualizedConv(wide[-1], 3, name="last")(h)).reshape(len(h), -1)
        h = act(EqualizedDense(wide[-1], name="dense")(h))

        def layer(width: int, what: str) -> EqualizedDense:
            # An embedding has one input that is not 0, of which the gain makes variance 1.
            gain = self.num_classes**0.5 if what == "embed" else 1.0
            return EqualizedDense(width, gain=gain, name=what)

        length = h.shape[-1] ** 0.5
        return judged(h, label, self.num_classes, self.condition, layer, classes, length)
