"""The fields of encoders and decoders of fully connected layers, or of convolutions around them."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.models.latent.with_decoder import WithDecoder
from jaxgen.nn.layers import Activation

_CONV = Only("without `architecture`=conv", lambda model: model.architecture == "conv")


@dataclass(frozen=True)
class EncoderDecoder(WithDecoder):
    """Latents that are vectors, between an `Encoder` and a `Decoder`."""

    architecture: Literal["mlp", "conv"] = "mlp"
    """mlp: fully connected layers alone; conv: strided convolutions between x and the lowest
    ones."""
    filters: int = 32
    """conv: features at full resolution, doubled at every halving."""
    upsample: Literal["resize", "transpose"] = "resize"
    """conv: double the pixels and convolve, or transposed convolutions."""
    activation: Activation = "relu"
    """What follows every layer but those that give parameters of a distribution."""
    dropout: float = 0.05
    """Dropout rate after every hidden layer, and on what enters the first."""

    only: ClassVar = {"filters": _CONV, "upsample": _CONV}

    @abstractmethod
    def check_networks(self) -> None:
        """Raises UserError where the model's own fields cannot be."""

    def check(self) -> None:
        if self.filters < 1:
            raise UserError(f"`filters` must be positive; got {self.filters}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"`dropout` must lie in [0, 1); got {self.dropout}")
        self.check_networks()

    @property
    def ends(self) -> dict[str, Any]:
        """The sizes that encoder and decoder share."""
        return {
            "filters": self.filters if self.architecture == "conv" else 0,
            "activation": self.activation, "dropout": self.dropout,
            "num_classes": self.spec.num_classes,
        }  # fmt: skip
