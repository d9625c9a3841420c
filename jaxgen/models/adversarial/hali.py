"""Hierarchical adversarially learned inference (HALI, Belghazi et al. 2018, arXiv:1802.01071)."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.errors import UserError
from jaxgen.models.adversarial.encoding_game import EncodingGame, gaussian
from jaxgen.nn.encoders import Decoder, Encoder

Label = Int[Array, " b"] | None
Normal = tuple[Float[Array, "b z"], Float[Array, "b z"]]
"""Mean and standard deviation."""


class Levels(nn.Module, kw_only=True):
    """The generator, z2 to z1 to data [b h w c], and the encoder, data to z1 to z2.

    Latents [b z2+z1] are in noise space, the topmost first: z1 is the mean of p(z1 | z2) and its
    standard deviation times their second part.
    """

    decoder: Decoder
    encoder: Encoder
    down: Encoder
    up: Encoder
    sizes: tuple[int, int]
    """Dimensions of z1 and z2."""
    tanh: bool

    def setup(self) -> None:
        low, high = self.sizes
        self.code, self.code_above = nn.Dense(2 * low), nn.Dense(2 * high)
        self.prior = nn.Dense(2 * low)

    def lower(self, z2: Float[Array, "b z"], label: Label) -> Normal:
        """p(z1 | z2)."""
        return gaussian(self.prior(self.down(z2, label)))

    def encode(self, x: Float[Array, "b h w c"], label: Label) -> Normal:
        """q(z1 | x)."""
        return gaussian(self.code(self.encoder(x, label)))

    def above(self, z1: Float[Array, "b z"], label: Label) -> Normal:
        """q(z2 | z1)."""
        return gaussian(self.code_above(self.up(z1, label)))

    def draw(self, z1: Float[Array, "b z"], label: Label) -> Float[Array, "b h w c"]:
        """Data of z1."""
        x = self.decoder(z1, label)
        return jnp.tanh(x) if self.tanh else x

    def _low(self, z: Float[Array, "b z"], label: Label) -> Float[Array, "b z"]:
        """z1 of latents in noise space."""
        high = self.sizes[1]
        mean, std = self.lower(z[:, :high], label)
        return mean + std * z[:, high:]

    def generate(self, z: Float[Array, "b z"], label: Label) -> Float[Array, "b h w c"]:
        return self.draw(self._low(z, label), label)

    def latents(self, x: Float[Array, "b h w c"], label: Label) -> Float[Array, "b z"]:
        """What the means of the codes are in noise space: `generate` makes data of this z1."""
        z1, _ = self.encode(x, label)
        z2, _ = self.above(z1, label)
        mean, std = self.lower(z2, label)
        return jnp.concatenate([z2, (z1 - mean) / std], -1)

    def features(self, x: Float[Array, "b h w c"], label: Label) -> Float[Array, "b z"]:
        """The means of the codes, z1's and z2's."""
        z1, _ = self.encode(x, label)
        return jnp.concatenate([z1, self.above(z1, label)[0]], -1)

    def __call__(
        self,
        z: Float[Array, "b z"],
        x: Float[Array, "b h w c"],
        noise: Float[Array, "b z"],
        label: Label = None,
    ) -> tuple[Array, tuple[Array], tuple[Array, Array]]:
        """Data of z, their z1, and the codes z1 and z2 of x."""
        high, low = self.sizes[1], self._low(z, label)
        mean, std = self.encode(x, label)
        code = mean + std * noise[:, high:]
        mean, std = self.above(code, label)
        return self.draw(low, label), (low,), (code, mean + std * noise[:, :high])


@dataclass(frozen=True)
class HALI(EncodingGame):
    """Implicit density with two levels of latents and an encoder of both, against joint pairs.

    The discriminator sees x with z1 ~ q(z1 | x) and z2 ~ q(z2 | z1), and z2 of the prior with
    z1 ~ p(z1 | z2) and G(z1). Decoding a code reconstructs data from z1; with the part of z1 drawn
    anew, which the report shows, from z2, more freely.
    """

    latents: tuple[int, ...] = (32, 16)
    """Dimensions of z1, next to x, and of z2, above it."""
    middle: tuple[int, ...] = (128,)
    """Widths of the fully connected layers between z1 and z2, either way."""

    def check_latents(self) -> None:
        if len(self.latents) != 2 or min(self.latents) < 1:
            raise UserError(f"`latents` are two numbers of at least 1, such as 32 16; got "
                            f"{self.latents}")  # fmt: skip
        if min((1, *self.middle)) < 1:
            raise UserError(f"`middle` must be positive; got {self.middle}")

    @property
    def groups(self) -> tuple[int, ...]:
        return self.latents[::-1]

    def generator(self, train: bool, axis_name: str | None = None) -> Levels:
        low, high = self.latents
        classes = self.spec.num_classes
        down = Encoder(hidden=self.middle, num_classes=classes)
        up = Encoder(hidden=self.middle, activation="leaky_relu", num_classes=classes)
        return Levels(down=down, up=up, sizes=(low, high), **self.ends)
