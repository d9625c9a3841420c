"""The network of several layers of latents, and the Gaussians of its layers."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.condition import Condition
from jaxgen.causal.flow import MaskedMLP
from jaxgen.models.latent.gaussian import Gaussian
from jaxgen.nn.encoders import Encoder
from jaxgen.nn.layers import ACTIVATIONS, Activation, dropout, fold_keys

UP, DOWN = 1000, 2000
"""The noise of the layers' dropout, by number: apart from that of encoder and decoder."""


class Layer(nn.Module):
    """Fully connected layers, and the Gaussian that they give."""

    hidden: tuple[int, ...]
    activation: Activation
    dropout: float
    latents: int

    @nn.compact
    def __call__(
        self, h: Float[Array, "b f"], keys: Key[Array, " b"] | None
    ) -> tuple[Float[Array, "b g"], Gaussian]:
        """The last layer's features, and the Gaussian."""
        for i, width in enumerate(self.hidden):
            h = ACTIVATIONS[self.activation](nn.Dense(width)(h))
            h = dropout(fold_keys(keys, i), h, self.dropout)
        mean, logvar = jnp.split(nn.Dense(2 * self.latents)(h), 2, axis=-1)
        return h, Gaussian.of(mean, logvar)


class LadderNet(nn.Module, kw_only=True):
    """Layers of latents; number 0 is the one next to x."""

    encoder: Encoder
    decoder: nn.Module
    """Called with (z, label, keys, first) (see `Decoder`)."""
    pixels: nn.Module | None = None
    """A causal network, which is given what the decoder returns, as maps (see `Condition`)."""
    latents: tuple[int, ...]
    hidden: tuple[int, ...]
    """Width of the fully connected layers next to each layer of latents."""
    depth: int
    """How many of them there are, above the lowest: the encoder and the decoder have their own."""
    sampled: bool
    """Whether the upward pass goes through samples of the latents, or past them."""
    chained: bool
    """Whether the prior of a layer is of each latent given those before it, too."""
    activation: Activation
    dropout: float

    def setup(self) -> None:
        same = self.activation, self.dropout
        widths = [(), *((width,) * self.depth for width in self.hidden[1:])]
        self.up = [Layer(w, *same, n) for w, n in zip(widths, self.latents, strict=True)]
        self.down = [Layer(w, *same, n) for w, n in zip(widths[1:], self.latents, strict=False)]
        if self.chained:
            self.within = [MaskedMLP((width,) * self.depth, 2) for width in self.hidden]

    def encode(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b f"]:
        """The features of x, in [0, 1], from which the upward pass begins."""
        return self.encoder(x, label, keys)

    def upward(
        self, h: Float[Array, "b f"], number: int, keys: Key[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b g"], Gaussian]:
        """From what is below layer `number` of latents: features for the next one, and what they
        say of this one."""
        return self.up[number](h, fold_keys(keys, UP + number))

    def prior(
        self, above: Float[Array, "b z"], number: int, keys: Key[Array, " b"] | None = None
    ) -> Gaussian:
        """p(z | z above) of layer `number`, which is not the topmost."""
        return self.down[number](above, fold_keys(keys, DOWN + number))[1]

    def each_given(
        self,
        z: Float[Array, "b z"],
        above: Float[Array, "b y"] | None,
        number: int,
        keys: Key[Array, " b"] | None = None,
    ) -> Gaussian:
        """p of each latent z of layer `number`, given those before it and the layer above; there is
        none above the topmost. As `prior`, where the latents are independent."""
        if above is None:
            h, p = jnp.ones((len(z), 1)), Gaussian(jnp.zeros_like(z), jnp.zeros_like(z))
        else:
            h, p = self.down[number](above, fold_keys(keys, DOWN + number))
        if not self.chained:
            return p
        moved = self.within[number](z, h)
        return Gaussian.of(p.mean + moved[..., 0], p.logvar + moved[..., 1])

    def decode(
        self,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None = None,
    ) -> Array:
        """What the decoder makes of the lowest layer."""
        return self.decoder(z, label, keys, first=len(self.encoder.hidden) + 1)

    def __call__(self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None) -> Array:
        h = self.encode(x, label)
        for number in range(len(self.latents)):
            h, q = self.upward(h, number)
            h = q.mean if self.sampled else h
        z = self.each_given(q.mean, None, len(self.latents) - 1).noise(q.mean)
        for number in reversed(range(len(self.latents) - 1)):
            zero = jnp.zeros((len(z), self.latents[number]))
            z = self.each_given(zero, z, number).mean
        out = self.decode(z, label)
        return out if self.pixels is None else self.pixels(x, Condition(maps=out))
