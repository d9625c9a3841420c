"""What latent-variable models with one encoder and one decoder share: their networks, and
p(x | z), whose sub-pixels are independent given z."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Batch, labels_or_all
from jaxgen.models.latent.base import LatentVariable
from jaxgen.models.latent.draws import Training
from jaxgen.models.latent.observation import (
    LikelihoodName,
    Observation,
    ObservationNet,
    Scale,
)
from jaxgen.nn.encoders import Encoder
from jaxgen.nn.layers import Activation
from jaxgen.optim.net import NetState, Variables, apply_in

LOGVAR_RANGE = (-15.0, 15.0)


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
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Mean and log variance of q(z | x), x in [0, 1]; keys turn dropout on."""
        return self.gaussian(self.encoder(x, label, keys))

    def gaussian(self, h: Float[Array, "b f"]) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Mean and log variance that the encoder's features stand for."""
        mean, logvar = jnp.split(self.posterior(h), 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

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
class EncoderDecoder(LatentVariable):
    """One layer of latents z ~ N(0, I). A model gives its `network`, and q(z | x)."""

    architecture: Literal["mlp", "conv"] = "mlp"
    """mlp: fully connected layers alone; conv: strided convolutions around them."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the encoder's fully connected layers; the decoder mirrors them."""
    filters: int = 32
    """conv: features at full resolution, doubled at every halving."""
    upsample: Literal["resize", "transpose"] = "resize"
    """conv: double the pixels and convolve, or transposed convolutions."""
    activation: Activation = "relu"
    """What follows every layer of both networks but the last."""
    latents: int = 16
    """Dimensions of z."""
    likelihood: LikelihoodName = "auto"
    """p(x | z) per sub-pixel; auto: bernoulli for two levels, logistic for more, normal (a density)
    for real numbers."""
    scale: Scale = "pixel"
    """gaussian, logistic, normal: a scale per sub-pixel from the decoder, or one for all, learned.
    """
    dropout: float = 0.05
    """Dropout rate after every hidden layer, and on what enters the first."""

    only: ClassVar = {
        "filters": Only("without `architecture`=conv", lambda vae: vae.convolutional),
        "upsample": Only("without `architecture`=conv", lambda vae: vae.convolutional),
    }

    @abstractmethod
    def check_posterior(self) -> None:
        """Raises UserError where the model's own fields cannot be."""

    def check(self) -> None:
        if self.latents < 1:
            raise UserError(f"`latents` must be at least 1; got {self.latents}")
        if min((self.filters, *self.hidden)) < 1:
            raise UserError("`filters` and `hidden` must be positive")
        if not 0 <= self.dropout < 1:
            raise UserError(f"`dropout` must lie in [0, 1); got {self.dropout}")
        _ = self.observation  # refuses what does not fit x
        self.check_posterior()

    @property
    def observation(self) -> Observation:
        """p(x | z)."""
        return Observation(self.spec, self.likelihood, self.scale)

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.latents,)

    @property
    def convolutional(self) -> bool:
        return self.architecture == "conv"

    @property
    def autoencoder(self) -> EncoderDecoderNet:
        """Encoder and decoder, of which the model makes its `network`."""
        same: dict[str, Any] = {
            "filters": self.filters if self.architecture == "conv" else 0,
            "activation": self.activation, "dropout": self.dropout,
            "num_classes": self.spec.num_classes,
        }  # fmt: skip
        encoder = Encoder(hidden=self.hidden, **same)
        decoder = self.observation.network(hidden=self.hidden[::-1], upsample=self.upsample, **same)
        return EncoderDecoderNet(encoder=encoder, decoder=decoder, latents=self.latents)

    def encoded(self, variables: Variables, batch: Batch, training: Training | None = None) -> Any:
        """What the network's `encode` returns."""
        x = (1.0 + self.spec.to_float(batch["x"])) / 2
        return self._apply("encode", variables, x, batch.get("label"), training)

    def parameters(
        self,
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        training: Training | None = None,
    ) -> Float[Array, "b h w c p"]:
        """Parameters of p(x | z)."""
        return self._apply("decode", variables, z, label, training)

    def _apply(
        self, method: str, variables: Variables, x: Array, label: Any, training: Training | None
    ) -> Any:
        precision = "float32" if training is None else self.precision
        keys = None if training is None else training.keys
        return apply_in(precision, self.network, variables, x, label, keys, method=method)

    def decode(
        self,
        key: Key[Array, ""],
        state: NetState,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        """The mean of p(x | z)."""
        label = labels_or_all(self.spec, label, len(z), start)
        return self.observation.mean(self.parameters(state.ema, z, label))

    def sample_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        temperature: float | Array,
    ) -> Shaped[Array, "b h w c"]:
        params = self.parameters(variables, z, label)
        return self.observation.sample(keys, params, temperature)

    def facts(self) -> dict[str, str]:
        p = type(self.observation.p).__name__
        return {"latents": f"{self.latents} standard normal; p(x | z) {p}"}
