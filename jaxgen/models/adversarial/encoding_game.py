"""What games with an encoder share: a discriminator of data beside latents (Donahue et al. 2017,
arXiv:1605.09782; Dumoulin et al. 2017, arXiv:1606.00704)."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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
from jaxgen.nn.layers import Dense
from jaxgen.nn.norm import NormName, weighed
from jaxgen.optim.net import Variables


def gaussian(code: Float[Array, "b 2z"]) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
    """Mean and standard deviation."""
    mean, log_std = jnp.split(code, 2, -1)
    return mean, jnp.exp(jnp.clip(log_std, -7.0, 3.0))


class JointDiscriminator(nn.Module, kw_only=True):
    """Data [b h w c] and latents [b z], a tuple, to the logit [b] of being real data with their
    codes."""

    hidden: tuple[int, ...]
    trunk: Encoder
    """What data become before they meet the latents."""
    norm: NormName
    num_classes: int = 0
    condition: Condition = "concat"
    """How labels are taken; concat: after the trunk."""
    train: bool = False

    @nn.compact
    def __call__(
        self,
        shown: tuple[Array, ...],
        label: Int[Array, " b"] | None = None,
    ) -> Any:
        x, *latents = shown
        h = jnp.concatenate([self.trunk(x), *latents], -1)
        h = entered(h, label, self.num_classes, self.condition)
        for width in self.hidden:
            hidden = weighed(Dense(width), self.norm, self.train)
            h = jax.nn.leaky_relu(hidden(h), 0.2)

        def layer(width: int, what: str) -> Callable[[Array], Array]:
            return weighed(Dense(width, use_bias=what != "embed"), self.norm, self.train)

        return judged(h, label, self.num_classes, self.condition, layer)


@dataclass(frozen=True)
class EncodingGame(LatentGame, Encodes, Embeds):
    """A game whose discriminator sees data with their codes, and latents with what they become.

    The network of both players that it is against has the methods `generate` (latents, label) ->
    data; `latents` (data, label) -> what `generate` takes, and `features`, of the codes' means. It
    is called with (latents, data, noise, label), and returns the data of the latents, the latents
    between these, and the codes of the data, the lowest first.
    """

    architecture: Literal["mlp", "conv"] = "mlp"
    """mlp: fully connected layers alone; conv: strided convolutions beside them."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the fully connected layers of all three networks."""
    filters: int = 32
    """conv: features at full resolution, doubled at every halving."""
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

    @abstractmethod
    def check_latents(self) -> None:
        """Raises UserError where the model's own fields cannot be."""

    def check(self) -> None:
        if min((self.filters, *self.hidden)) < 1:
            raise UserError("`filters` and `hidden` must be positive")
        self.check_latents()

    @property
    def convolutional(self) -> bool:
        return self.architecture == "conv"

    def encoder_of(self, hidden: tuple[int, ...], classes: int) -> Encoder:
        """The layers between data and codes."""
        filters = self.filters if self.convolutional else 0
        act: Any = "leaky_relu"
        return Encoder(hidden=hidden, filters=filters, activation=act, num_classes=classes)

    @property
    def ends(self) -> dict[str, Any]:
        """The layers between data and latents, both ways, and whether data end in a tanh."""
        classes = self.spec.num_classes
        decoder = Decoder(
            shape=self.spec.shape,
            hidden=self.hidden[::-1],
            filters=self.filters if self.convolutional else 0,
            num_classes=classes,
        )
        encoder = self.encoder_of(self.hidden, classes)
        return {"decoder": decoder, "encoder": encoder, "tanh": bool(self.spec.levels)}

    def discriminator(self, train: bool, axis_name: str | None = None) -> JointDiscriminator:
        return JointDiscriminator(
            hidden=self.hidden,
            trunk=self.encoder_of((), 0),
            norm=self.d_norm,
            num_classes=self.spec.num_classes,
            condition=self.condition_by,
            train=train,
        )

    def _parts(self, z: Float[Array, "b z"]) -> list[Float[Array, "b _"]]:
        """The levels of z, the lowest first."""
        if len(self.groups) == 1:
            return [z]
        return jnp.split(z, np.cumsum(self.groups)[:-1], -1)[::-1]

    def init(self, key: Key[Array, ""], batch: Batch) -> GameState:
        x, label = self.spec.to_float(batch["x"]), batch.get("label")
        z = jnp.zeros((len(x), sum(self.groups)))
        return self.first_state(key, batch, (z, x, z, label), (x, *self._parts(z)))

    def show(self, key: Key[Array, ""], g: Apply, batch: Batch) -> tuple[Shown, Variables]:
        x, z = self.spec.to_float(batch["x"]), self.draws(key, batch)
        other = jax.random.fold_in(jax.random.clone(key), 1)
        noise = normal_like(other, batch["index"], (sum(self.groups),))
        (made, between, codes), changed = g(z, x, noise, batch.get("label"))
        return Shown((x, *codes), (made, *between, self._parts(z)[-1])), changed

    def generated(
        self, variables: Variables, z: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c"]:
        network = self.generator(train=False)
        return network.apply(variables, z, label, method="generate")  # type: ignore[return-value]

    def encode(self, key: Key[Array, ""], state: GameState, batch: Batch) -> Float[Array, "b z"]:
        """The latents of the means of x's codes."""
        return self._coded("latents", state, batch)

    def embed(self, state: GameState, batch: Batch) -> Float[Array, "b z"]:
        """The means of the codes, of a conditional model averaged over all classes."""
        return without_label(lambda batch: self._coded("features", state, batch), self.spec, batch)

    def _coded(self, method: str, state: GameState, batch: Batch) -> Any:
        given = self.spec.to_float(batch["x"]), batch.get("label")
        return self.generator(train=False).apply(state.ema, *given, method=method)
