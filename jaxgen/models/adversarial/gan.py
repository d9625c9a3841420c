"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661) with MLP, DCGAN
(Radford, Metz & Chintala 2016, arXiv:1511.06434) and residual networks (Miyato et al. 2018,
arXiv:1802.05957)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.abilities import Embeds
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Batch, without_label
from jaxgen.models.adversarial.augmented import AugmentedGame
from jaxgen.models.adversarial.shown import Shown
from jaxgen.models.adversarial.state import Apply, GameState
from jaxgen.nn.discriminators import DCGANDiscriminator, MLPDiscriminator
from jaxgen.nn.encoders import DCGANGenerator, MLPGenerator
from jaxgen.nn.layers import halvings
from jaxgen.nn.norm import NormName
from jaxgen.nn.resnet import ResNetDiscriminator, ResNetGenerator, residual_sizes
from jaxgen.optim.net import Variables


@dataclass(frozen=True)
class GAN(AugmentedGame, Embeds):
    """Implicit density: a generator against a discriminator, two optimizers in one step."""

    architecture: Literal["auto", "dcgan", "resnet", "mlp"] = "auto"
    """dcgan: strided and transposed convolutions; resnet: residual blocks, for images that halve to
    a smaller side of 4; mlp: fully connected layers; auto: dcgan where the sides of x are 3 pixels
    or more."""
    latents: int = 64
    """Dimensions of z, standard normal."""
    filters: int = 32
    """dcgan, resnet: the discriminator's features after its first layer, or block, doubled at every
    halving."""
    hidden: tuple[int, ...] = (256, 256)
    """mlp: widths of the hidden layers of both players."""
    output: Literal["auto", "tanh", "linear"] = "auto"
    """The generator's last activation; auto: tanh for levels, which lie in [-1, 1], and linear for
    real numbers."""
    g_norm: Literal["batch", "none"] = "batch"
    """BatchNorm in the generator, which samples by the moving average of its statistics, so that no
    sample depends on those beside it; or no normalization."""
    d_norm: NormName = "batch"
    """In the discriminator: BatchNorm after its first layer, spectral normalization of all its
    weights, or no normalization."""
    deviation_group: int = 0
    """Examples, one after another, whose variation D's last layer sees as one more feature (Karras
    et al. 2018, arXiv:1710.10196, section 3), in evaluation as well; 0 = none."""

    only: ClassVar = {
        "filters": Only("without `architecture`=dcgan or resnet", lambda gan: gan.convolutional),
        "hidden": Only("without `architecture`=mlp", lambda gan: not gan.convolutional),
    }

    def check(self) -> None:
        self.check_augmentation()
        for penalty in ("r1", "slope_penalty"):
            if getattr(self, penalty) > 0 and self.d_norm == "batch":
                raise UserError(
                    f"`{penalty}` takes the gradient example by example, which BatchNorm in the "
                    f"discriminator mixes: set `d_norm`=none, or `{penalty}`=0"
                )
        if min((self.filters, *self.hidden)) < 1:
            raise UserError("`filters` and `hidden` must be positive")
        if self.deviation_group < 0 or self.deviation_group == 1:
            raise UserError(
                "`deviation_group` must be 0, or at least 2: one example alone does not vary; got "
                f"{self.deviation_group}"
            )
        if self.latents < 1:
            raise UserError(f"`latents` must be at least 1; got {self.latents}")
        if self.architecture == "dcgan" and not self._can_halve:
            raise UserError(
                f"`architecture`=dcgan halves images whose sides are at least 3 pixels, and x is "
                f"{self.spec.height}x{self.spec.width}: set `architecture`=mlp"
            )
        if self.architecture == "resnet":
            residual_sizes(self.spec.height, self.spec.width)  # refuses what cannot be

    @property
    def _can_halve(self) -> bool:
        return len(halvings(self.spec.height, self.spec.width)) > 1

    @property
    def convolutional(self) -> bool:
        return self.architecture != "mlp" and self._can_halve

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.latents,)

    def generator(self, train: bool, axis_name: str | None = None) -> nn.Module:
        output = self.output
        if output == "auto":
            output = "tanh" if self.spec.levels else "linear"
        same: dict[str, Any] = {
            "shape": self.spec.shape, "output": output, "norm": self.g_norm,
            "num_classes": self.spec.num_classes, "train": train, "axis_name": axis_name,
        }  # fmt: skip
        if self.architecture == "resnet":
            return ResNetGenerator(filters=self.filters, **same)
        if self.convolutional:
            return DCGANGenerator(filters=self.filters, **same)
        return MLPGenerator(hidden=self.hidden, **same)

    def discriminator(self, train: bool, axis_name: str | None = None) -> nn.Module:
        same: dict[str, Any] = {
            "norm": self.d_norm, "num_classes": self.spec.num_classes,
            "condition": self.condition_by, "group": self.deviation_group, "train": train,
            "axis_name": axis_name,
        }  # fmt: skip
        if self.architecture == "resnet":
            return ResNetDiscriminator(filters=self.filters, **same)
        if self.convolutional:
            return DCGANDiscriminator(filters=self.filters, **same)
        return MLPDiscriminator(hidden=self.hidden, **same)

    def init(self, key: Key[Array, ""], batch: Batch) -> GameState:
        x, label = self.spec.to_float(batch["x"]), batch.get("label")
        state = self.first_state(key, batch, (jnp.zeros((len(x), self.latents)), label), x)
        return self.with_strength(state)

    def show(self, key: Key[Array, ""], g: Apply, batch: Batch) -> tuple[Shown, Variables]:
        fake, changed = g(self.draws(key, batch), batch.get("label"))
        return Shown(self.spec.to_float(batch["x"]), fake), changed

    def generated(
        self, variables: Variables, z: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c"]:
        return self.generator(train=False).apply(variables, z, label)  # type: ignore[return-value]

    def embed(self, state: GameState, batch: Batch) -> Float[Array, "b f"]:
        """What the discriminator's last layer sees (Radford et al. 2016, section 5.1). That of a
        conditional one is averaged over all classes, so that it does not tell the label that a
        classifier is to find."""

        def features(batch: Batch) -> Any:
            x, network = self.spec.to_float(batch["x"]), self.discriminator(train=False)
            return network.apply(state.d.variables, x, batch.get("label"), features=True)

        return without_label(features, self.spec, batch)
