"""What latent-variable models with one layer of latents share: their network, and z ~ N(0, I)."""

from abc import abstractmethod
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError
from jaxgen.models.latent.encoder_decoder import EncoderDecoder
from jaxgen.models.latent.gaussian import Gaussian
from jaxgen.models.latent.observation import ObservationNet
from jaxgen.models.latent.with_decoder import Observed
from jaxgen.nn.encoders import Encoder
from jaxgen.optim.net import Variables


class EncoderDecoderNet(nn.Module, kw_only=True):
    """Encoder x -> (mean, logvar) of q(z | x), and decoder z -> parameters of p(x | z)."""

    encoder: Encoder
    decoder: ObservationNet
    latents: int

    def setup(self) -> None:
        # One scope for all: no parameter's name has a prefix.
        nn.share_scope(self, self.encoder)
        nn.share_scope(self, self.decoder)
        self.posterior = nn.Dense(2 * self.latents)

    def encode(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None = None,
    ) -> Gaussian:
        """q(z | x), x in [0, 1]; keys turn dropout on."""
        return self.gaussian(self.encoder(x, label, keys))

    def gaussian(self, h: Float[Array, "b f"]) -> Gaussian:
        """The Gaussian that the encoder's features stand for."""
        mean, logvar = jnp.split(self.posterior(h), 2, axis=-1)
        return Gaussian.of(mean, logvar)

    def decode(
        self,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c p"]:
        """Parameters of p(x | z); keys turn dropout on."""
        return self.decoder(z, label, keys, first=len(self.encoder.hidden) + 1)

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> tuple[tuple[Array, Array], Float[Array, "b h w c p"]]:
        mean, logvar = self.encode(x, label)
        return (mean, logvar), self.decode(mean, label)


@dataclass(frozen=True)
class OneLayer(Observed, EncoderDecoder):
    """One layer of latents z ~ N(0, I). A model gives its `network`, and q(z | x)."""

    hidden: tuple[int, ...] = (256, 256)
    """Widths of the encoder's fully connected layers; the decoder mirrors them."""
    latents: int = 16
    """Dimensions of z."""

    @abstractmethod
    def check_posterior(self) -> None:
        """Raises UserError where the fields of q(z | x) cannot be."""

    def check_networks(self) -> None:
        if self.latents < 1:
            raise UserError(f"`latents` must be at least 1; got {self.latents}")
        if min(self.hidden, default=1) < 1:
            raise UserError(f"`hidden` must be positive; got {self.hidden}")
        _ = self.observation  # refuses what does not fit x
        self.check_posterior()

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.latents,)

    @property
    def convolutional(self) -> bool:
        return self.architecture == "conv"

    @property
    def autoencoder(self) -> EncoderDecoderNet:
        """Encoder and decoder, of which the model makes its `network`."""
        encoder = Encoder(hidden=self.hidden, **self.ends)
        decoder = self.observation.network(
            hidden=self.hidden[::-1], upsample=self.upsample, **self.ends
        )
        return EncoderDecoderNet(encoder=encoder, decoder=decoder, latents=self.latents)

    def lowest(self, variables: Variables, noise: Float[Array, "b z"]) -> Float[Array, "b z"]:
        return noise

    def facts(self) -> dict[str, str]:
        p = type(self.observation.p).__name__
        return {"latents": f"{self.latents} standard normal; p(x | z) {p}"}
