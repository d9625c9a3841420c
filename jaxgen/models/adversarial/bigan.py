"""Games with an encoder: BiGAN (Donahue et al. 2017, arXiv:1605.09782) and adversarially learned
inference (ALI, Dumoulin et al. 2017, arXiv:1606.00704)."""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.errors import UserError
from jaxgen.models.adversarial.encoding_game import EncodingGame, gaussian
from jaxgen.nn.encoders import Decoder, Encoder


class Players(nn.Module, kw_only=True):
    """The generator, latents [b z] to data [b h w c], and the encoder, data to latents."""

    decoder: Decoder
    encoder: Encoder
    size: int
    """Latents."""
    noisy: bool
    """Whether the encoder gives a normal density instead of a code."""
    tanh: bool

    def setup(self) -> None:
        self.code = nn.Dense(2 * self.size if self.noisy else self.size)

    def generate(
        self, z: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c"]:
        x = self.decoder(z, label)
        return jnp.tanh(x) if self.tanh else x

    def encode(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Mean and standard deviation, which is 0 of a code."""
        code = self.code(self.encoder(x, label))
        if not self.noisy:
            return code, jnp.zeros_like(code)
        return gaussian(code)

    def latents(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b z"]:
        """The mean of the codes of x."""
        return self.encode(x, label)[0]

    features = latents

    def __call__(
        self,
        z: Float[Array, "b z"],
        x: Float[Array, "b h w c"],
        noise: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b h w c"], tuple[()], tuple[Float[Array, "b z"]]]:
        """Data of z, nothing between, and the code of x."""
        mean, std = self.encode(x, label)
        return self.generate(z, label), (), (mean + std * noise,)


@dataclass(frozen=True)
class BiGAN(EncodingGame):
    """Implicit density with an encoder, against a discriminator of pairs of data and latents.

    It sees data with their codes, and latents with what they become. Where it cannot tell the two
    apart, the encoder inverts the generator.
    """

    encoder: Literal["deterministic", "stochastic"] = "deterministic"
    """deterministic: one code for x (BiGAN); stochastic: a normal density of codes (ALI)."""
    latents: int = 32
    """Dimensions of z, standard normal."""

    def check_latents(self) -> None:
        if self.latents < 1:
            raise UserError(f"`latents` must be at least 1; got {self.latents}")

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.latents,)

    def generator(self, train: bool, axis_name: str | None = None) -> Players:
        return Players(size=self.latents, noisy=self.encoder == "stochastic", **self.ends)
