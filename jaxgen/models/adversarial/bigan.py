"""Games with an encoder: BiGAN (Donahue et al. 2017, arXiv:1605.09782) and adversarially learned
inference (ALI, Dumoulin et al. 2017, arXiv:1606.00704)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.abilities import Embeds, Encodes
from jaxgen.distributions.normal import normal_like
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Batch, without_label
from jaxgen.models.adversarial.latent_game import LatentGame
from jaxgen.models.adversarial.shown import Shown
from jaxgen.models.adversarial.state import Apply, GameState
from jaxgen.nn.encoders import Decoder, Encoder
from jaxgen.nn.labels import Condition, entered, judged
from jaxgen.nn.norm import NormName, weighed
from jaxgen.optim.net import Variables


class Players(nn.Module, kw_only=True):
    """The generator, latents [b z] to data [b h w c], and the encoder, data to latents."""

    decoder: Decoder
    encoder: Encoder
    latents: int
    noisy: bool
    """Whether the encoder gives a normal density instead of a code."""
    tanh: bool

    def setup(self) -> None:
        self.code = nn.Dense(2 * self.latents if self.noisy else self.latents)

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
        mean, log_std = jnp.split(code, 2, -1)
        return mean, jnp.exp(jnp.clip(log_std, -7.0, 3.0))

    def __call__(
        self,
        z: Float[Array, "b z"],
        x: Float[Array, "b h w c"],
        noise: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b z"]]:
        """Data of z, and the latents of x."""
        mean, std = self.encode(x, label)
        return self.generate(z, label), mean + std * noise


class JointDiscriminator(nn.Module, kw_only=True):
    """Data and a latent to the logit [b] of being real data with their code."""

    hidden: tuple[int, ...]
    trunk: Encoder
    """What data become before they meet the latent."""
    norm: NormName
    num_classes: int = 0
    condition: Condition = "concat"
    """How labels are taken; concat: after the trunk."""
    train: bool = False

    @nn.compact
    def __call__(
        self,
        pair: tuple[Float[Array, "b h w c"], Float[Array, "b z"]],
        label: Int[Array, " b"] | None = None,
    ) -> Any:
        x, z = pair
        h = jnp.concatenate([self.trunk(x), z], -1)
        h = entered(h, label, self.num_classes, self.condition)
        for width in self.hidden:
            hidden = weighed(nn.Dense(width), self.norm, self.train)
            h = jax.nn.leaky_relu(hidden(h), 0.2)

        def layer(width: int, what: str) -> Callable[[Array], Array]:
            return weighed(nn.Dense(width, use_bias=what != "embed"), self.norm, self.train)

        return judged(h, label, self.num_classes, self.condition, layer)


@dataclass(frozen=True)
class BiGAN(LatentGame, Encodes, Embeds):
    """Implicit density with an encoder, against a discriminator of pairs of data and latents.

    It sees data with their codes, and latents with what they become. Where it cannot tell the two
    apart, the encoder inverts the generator.
    """

    encoder: Literal["deterministic", "stochastic"] = "deterministic"
    """deterministic: one code for x (BiGAN); stochastic: a normal density of codes (ALI)."""
    architecture: Literal["mlp", "conv"] = "mlp"
    """mlp: fully connected layers alone; conv: strided convolutions beside them."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the fully connected layers of all three networks."""
    filters: int = 32
    """conv: features at full resolution, doubled at every halving."""
    latents: int = 32
    """Dimensions of z, standard normal."""
    d_norm: Literal["none", "spectral"] = "none"
    """Spectral normalization of the discriminator's fully connected layers, or none."""

    encodes: ClassVar = True
    cannot: ClassVar = {
        "auxiliary": "asks the discriminator for a label that the encoder, which is given it, can "
        "write into the code"
    }
    only: ClassVar = {
        "filters": Only("without `architecture`=conv", lambda model: model.convolutional)
    }

    def check(self) -> None:
        if min((self.filters, self.latents, *self.hidden)) < 1:
            raise UserError("`filters`, `hidden` and `latents` must be positive")

    @property
    def convolutional(self) -> bool:
        return self.architecture == "conv"

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.latents,)

    def _encoder(self, hidden: tuple[int, ...], classes: int) -> Encoder:
        filters = self.filters if self.convolutional else 0
        act: Any = "leaky_relu"
        return Encoder(hidden=hidden, filters=filters, activation=act, num_classes=classes)

    def generator(self, train: bool, axis_name: str | None = None) -> Players:
        classes = self.spec.num_classes
        decoder = Decoder(
            shape=self.spec.shape,
            hidden=self.hidden[::-1],
            filters=self.filters if self.convolutional else 0,
            num_classes=classes,
        )
        return Players(
            decoder=decoder,
            encoder=self._encoder(self.hidden, classes),
            latents=self.latents,
            noisy=self.encoder == "stochastic",
            tanh=bool(self.spec.levels),
        )

    def discriminator(self, train: bool, axis_name: str | None = None) -> JointDiscriminator:
        return JointDiscriminator(
            hidden=self.hidden,
            trunk=self._encoder((), 0),
            norm=self.d_norm,
            num_classes=self.spec.num_classes,
            condition=self.condition_by,
            train=train,
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> GameState:
        x, label = self.spec.to_float(batch["x"]), batch.get("label")
        z = jnp.zeros((len(x), self.latents))
        return self.first_state(key, batch, (z, x, z, label), (x, z))

    def show(self, key: Key[Array, ""], g: Apply, batch: Batch) -> tuple[Shown, Variables]:
        x, z = self.spec.to_float(batch["x"]), self.draws(key, batch)
        other = jax.random.fold_in(jax.random.clone(key), 1)
        noise = normal_like(other, batch["index"], (self.latents,))
        (made, code), changed = g(z, x, noise, batch.get("label"))
        return Shown((x, code), (made, z)), changed

    def generated(
        self, variables: Variables, z: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c"]:
        network = self.generator(train=False)
        return network.apply(variables, z, label, method="generate")  # type: ignore[return-value]

    def encode(self, key: Key[Array, ""], state: GameState, batch: Batch) -> Float[Array, "b z"]:
        """The mean of the codes of x."""
        return self._coded(state, batch)

    def embed(self, state: GameState, batch: Batch) -> Float[Array, "b z"]:
        """The code, of a conditional model averaged over all classes."""
        return without_label(lambda batch: self._coded(state, batch), self.spec, batch)

    def _coded(self, state: GameState, batch: Batch) -> Float[Array, "b z"]:
        given = self.spec.to_float(batch["x"]), batch.get("label")
        found: Any = self.generator(train=False).apply(state.ema, *given, method="encode")
        return found[0]
