"""Autoencoders: linear, deep and convolutional, and denoising ones (Hinton & Salakhutdinov 2006,
doi:10.1126/science.1127647; Vincent et al. 2008, doi:10.1145/1390156.1390294)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
from jaxtyping import Array, Float, Int, Key

from jaxgen.abilities import Embeds, Encodes
from jaxgen.distributions.normal import normal_like
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Batch, Metric, Metrics, labels_or_all, without_label
from jaxgen.models.latent.descent import Descends
from jaxgen.nn.encoders import Decoder, Encoder
from jaxgen.nn.layers import Activation
from jaxgen.optim.net import NetState, Precision, Variables, apply_in, create, create_state


class AutoencoderNet(nn.Module, kw_only=True):
    """Data [b h w c] to a code [b z] and back."""

    encoder: Encoder
    decoder: Decoder
    latents: int

    def setup(self) -> None:
        self.code = nn.Dense(self.latents)

    def encode(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b z"]:
        return self.code(self.encoder(x, label))

    def decode(
        self, z: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c"]:
        return self.decoder(z, label)

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b h w c"]:
        return self.decode(self.encode(x, label), label)


_LAYERS = Only("without `architecture`=mlp or conv", lambda model: model.architecture != "linear")


@dataclass(frozen=True)
class Autoencoder(Descends, Encodes, Embeds):
    """A code of few numbers, from which data is decoded with the least squared error.

    It has no prior, so nothing can be drawn from it. The linear one spans what PCA does (Baldi &
    Hornik 1989, doi:10.1016/0893-6080(89)90014-2).
    """

    architecture: Literal["linear", "mlp", "conv"] = "mlp"
    """linear: one matrix each way; mlp: fully connected layers; conv: strided convolutions around
    them."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the encoder's fully connected layers; the decoder mirrors them."""
    filters: int = 32
    """conv: features at full resolution, doubled at every halving."""
    activation: Activation = "relu"
    """What follows every layer of both networks but the last."""
    latents: int = 16
    """Numbers that a datum becomes."""
    noise: float = 0.0
    """Standard deviation of the noise that is added to what is encoded in training, in units of the
    range [-1, 1]; the clean data are to be decoded (a denoising autoencoder)."""
    precision: Precision = "float32"
    """What the networks compute in while training; evaluation stays float32."""

    metrics: ClassVar = {"squared_error": Metric("squared error", "per image", "lower")}
    monitor: ClassVar = "squared_error"
    only: ClassVar = {
        "filters": Only("without `architecture`=conv", lambda model: model.convolutional),
        "hidden": _LAYERS,
        "activation": _LAYERS,
    }

    def checks(self) -> None:
        if min((self.latents, self.filters, *self.hidden)) < 1:
            raise UserError("`latents`, `filters` and `hidden` must be positive")
        if self.noise < 0:
            raise UserError(f"`noise` must not be negative; got {self.noise}")

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.latents,)

    @property
    def convolutional(self) -> bool:
        return self.architecture == "conv"

    @property
    def network(self) -> AutoencoderNet:
        hidden = () if self.architecture == "linear" else self.hidden
        same: dict[str, Any] = {
            "filters": self.filters if self.architecture == "conv" else 0,
            "activation": self.activation, "num_classes": self.spec.num_classes,
        }  # fmt: skip
        encoder = Encoder(hidden=hidden, **same)
        decoder = Decoder(shape=self.spec.shape, hidden=hidden[::-1], **same)
        return AutoencoderNet(encoder=encoder, decoder=decoder, latents=self.latents)

    def init(self, key: Key[Array, ""], batch: Batch) -> NetState:
        x = self.spec.to_float(batch["x"])
        return create_state(create(self.network, self.optimizer, key, x, batch.get("label")))

    def _error(
        self,
        variables: Variables,
        batch: Batch,
        noise: Float[Array, "b h w c"] | float = 0.0,
        precision: Precision = "float32",
    ) -> Float[Array, " b"]:
        x = self.spec.to_float(batch["x"])
        label = batch.get("label")
        decoded = apply_in(precision, self.network, variables, x + noise, label)
        return ((decoded - x) ** 2).sum((1, 2, 3))

    def loss(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None,
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        added = normal_like(key, batch["index"], self.spec.shape)
        noise = self.noise * added if self.noise else 0.0
        error = self._error(variables, batch, noise, self.precision).mean()
        return error, ({"squared_error": error}, {})

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        """The squared error between data and what is decoded, floats in [-1, 1], summed over
        sub-pixels; nothing is added to the data."""
        return {"squared_error": self._error(state.ema, batch)}

    def encode(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Float[Array, "b z"]:
        return self._encoded(state, batch)

    def embed(self, state: NetState, batch: Batch) -> Float[Array, "b z"]:
        """The code, of a conditional model averaged over all classes."""
        return without_label(lambda batch: self._encoded(state, batch), self.spec, batch)

    def _encoded(self, state: NetState, batch: Batch) -> Float[Array, "b z"]:
        x = self.spec.to_float(batch["x"])
        label = batch.get("label")
        return apply_in("float32", self.network, state.ema, x, label, method="encode")

    def decode(
        self,
        key: Key[Array, ""],
        state: NetState,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        label = labels_or_all(self.spec, label, len(z), start)
        return apply_in("float32", self.network, state.ema, z, label, method="decode")

    def facts(self) -> dict[str, str]:
        return {"latents": f"{self.latents}, without a prior"}
