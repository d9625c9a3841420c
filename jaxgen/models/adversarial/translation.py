"""What models that turn images into images share: the generator's fields, and translating."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.abilities import Translates
from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats
from jaxgen.model import Batch, Metric, Model, State, example_keys
from jaxgen.models.adversarial.alignment import Aligned
from jaxgen.nn.encoders import Output
from jaxgen.nn.translation import InstanceName, ResNet, UNet
from jaxgen.optim.net import Variables
from jaxgen.spec import DataSpec

L1 = Metric("absolute error of translations", "per sub-pixel in [-1, 1]", "lower")


@dataclass(frozen=True)
class Translation(Model[State], Translates):
    """A generator from the source to x, and perhaps one back."""

    architecture: Literal["unet", "resnet"] = "unet"
    """unet: every size sees what was seen at it on the way down; resnet: residual blocks at the
    smallest size."""
    filters: int = 64
    """The generator's features at full resolution, doubled at every halving, up to eight times."""
    halvings: Repeats = 2
    """How often the generator halves height and width, before it doubles them again."""
    blocks: Repeats = 6
    """resnet: residual blocks at the smallest size."""
    norm: InstanceName = "instance"
    """InstanceNorm in the generator, which treats examples apart, or no normalization."""
    output: Output = "linear"
    """The generator's last activation. linear: what lies beyond the levels becomes the nearest of
    them; tanh, the papers', stays within [-1, 1], and hardly learns any more once it says -1
    everywhere, which the absolute error leads to where most of every image is black."""
    dropout: float = 0.0
    """Rate of the generator's dropout, in training and in use: the noise of a translation that has
    several answers."""

    only: ClassVar = {
        "blocks": Only("without `architecture`=resnet", lambda m: m.architecture == "resnet")
    }

    @abstractmethod
    def used(self, state: State, way: str) -> Variables:
        """The averaged variables of the generator of that way."""

    @property
    def rank(self) -> int:
        """Rank of the linear map that the generators begin with; 0 = none."""
        return 0

    @property
    def source(self) -> DataSpec:
        """What x is made from."""
        assert self.spec.source is not None, "refused before"
        return self.spec.source

    @property
    def convolutional(self) -> bool:
        return True

    def ends(self, way: str) -> tuple[DataSpec, DataSpec]:
        """What is given and what is made; raises UserError for a way that there is not."""
        if way not in self.ways:
            raise UserError(f"way={way}: this model has {' and '.join(self.ways)}")
        return (self.spec, self.source) if way == "back" else (self.source, self.spec)

    def network(self, way: str = "forth") -> nn.Module:
        """The generator of that way."""
        made = self.ends(way)[1]
        same: dict[str, Any] = {
            "shape": made.shape, "filters": self.filters, "halvings": self.halvings,
            "norm": self.norm, "output": self.output, "dropout": self.dropout,
            "num_classes": self.spec.num_classes,
        }  # fmt: skip
        unet = self.architecture == "unet"
        net: nn.Module = UNet(**same) if unet else ResNet(blocks=self.blocks, **same)
        return Aligned(shape=made.shape, rank=self.rank, net=net) if self.rank else net

    def keys(self, key: Key[Array, ""], index: Int[Array, " b"]) -> Key[Array, " b"] | None:
        """What dropout draws by; None where there is none."""
        return example_keys(key, index) if self.dropout else None

    def pair(self, batch: Batch) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
        """x and its source, as floats."""
        return self.spec.to_float(batch["x"]), self.source.to_float(batch["source"])

    def check_translation(self) -> None:
        """Raises UserError where there is no source, or where these fields cannot be."""
        if self.spec.source is None:
            raise UserError(
                "this model makes images from others, and these data have no source: give a "
                "--pairing, which makes one of each image, two --dataset=folders, or "
                "--dataset=arrays with a source"
            )
        if min(self.filters, self.blocks) < 1 or self.halvings < 0:
            raise UserError(
                "`filters` and `blocks` must be at least 1, and `halvings` must not be negative"
            )
        if self.architecture == "unet" and not self.halvings:
            raise UserError(
                "`halvings`=0 leaves nothing of `architecture`=unet: set it to 1 or more, or "
                "`architecture`=resnet"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"`dropout` must lie in [0, 1); got {self.dropout}")
        self.check_halvings("halvings", self.halvings)

    def check_halvings(self, name: str, halvings: int) -> None:
        """Raises UserError where images are too small to be halved so often."""
        sides = self.spec.shape[:2]
        if halvings > 16 or 2**halvings > min(sides):
            most = min(sides).bit_length() - 1
            raise UserError(
                f"`{name}`={halvings} halves images of {sides[0]}x{sides[1]} to less than a pixel: "
                f"set it to {most} or less"
            )

    def translate(
        self,
        key: Key[Array, ""],
        state: State,
        source: Shaped[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        way: str = "forth",
        start: int | Int[Array, ""] = 0,
    ) -> Shaped[Array, "b h w c"]:
        """What the averaged generator makes of each; dropout follows from (key, start + i)."""
        given, made = self.ends(way)
        keys = self.keys(key, start + jnp.arange(len(source)))
        variables = self.used(state, way)
        x: Any = self.network(way).apply(variables, given.to_float(source), label, keys)
        return made.from_float(x)


def absolute(x: Float[Array, "b h w c"], made: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """The mean absolute difference of each example."""
    return jnp.abs(x - made).mean((1, 2, 3))


def copied(variables: Variables) -> Variables:
    """Arrays of their own, for an average to begin with."""
    return jax.tree.map(jnp.copy, variables)
