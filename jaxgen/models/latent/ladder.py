"""Several layers of latents: Ladder VAE (Sønderby et al. 2016, arXiv:1602.02282), and the plain
bottom-up inference of Burda et al. 2016 (arXiv:1509.00519)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.distributions.normal import kl_normal, normal_like, normal_log_prob
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Batch, labels_or_all
from jaxgen.models.latent.base import LatentVariable
from jaxgen.models.latent.draws import Draw, Terms, Training
from jaxgen.models.latent.ladder_net import Gaussian, LadderNet, combined
from jaxgen.models.latent.observation import (
    LikelihoodName,
    Observation,
    Scale,
)
from jaxgen.nn.encoders import Encoder
from jaxgen.nn.layers import Activation
from jaxgen.optim.net import NetState, Variables, apply_in


@dataclass(frozen=True)
class Ladder(LatentVariable):
    """Latents in layers, each layer's prior given by the one above it; the topmost is N(0, I)."""

    latents: tuple[int, ...] = (16, 8)
    """Latents of each layer, from the one next to x up."""
    hidden: tuple[int, ...] = (256, 128)
    """Width of the fully connected layers next to each layer of latents."""
    depth: int = 1
    """How many fully connected layers lie between two layers of latents."""
    inference: Literal["ladder", "bottom_up"] = "ladder"
    """q(z | x). ladder: from the top down, what x says of a layer times what the layer above says;
    bottom_up: each layer from a sample of the one below, as in the plain models before it."""
    architecture: Literal["mlp", "conv"] = "mlp"
    """mlp: fully connected layers alone; conv: strided convolutions between x and the lowest
    ones."""
    filters: int = 32
    """conv: features at full resolution, doubled at every halving."""
    upsample: Literal["resize", "transpose"] = "resize"
    """conv: double the pixels and convolve, or transposed convolutions."""
    activation: Activation = "relu"
    """What follows every layer but those that give parameters of a distribution."""
    likelihood: LikelihoodName = "auto"
    """p(x | z) per sub-pixel; auto: bernoulli for two levels, logistic for more, normal (a density)
    for real numbers."""
    scale: Scale = "pixel"
    """gaussian, logistic, normal: a scale per sub-pixel from the decoder, or one for all, learned.
    """
    dropout: float = 0.05
    """Dropout rate after every hidden layer, and on what enters the first."""

    only: ClassVar = {
        "filters": Only("without `architecture`=conv", lambda model: model.convolutional),
        "upsample": Only("without `architecture`=conv", lambda model: model.convolutional),
        "inference": Only("with one layer of latents", lambda model: len(model.latents) > 1),
    }

    def check(self) -> None:
        if not self.latents or len(self.latents) != len(self.hidden):
            raise UserError(
                "`latents` and `hidden` have a number for each layer of latents; got "
                f"{len(self.latents)} and {len(self.hidden)}"
            )
        if min(*self.latents, *self.hidden, self.depth, self.filters) < 1:
            raise UserError("`latents`, `hidden`, `depth` and `filters` must be positive")
        if not 0 <= self.dropout < 1:
            raise UserError(f"`dropout` must lie in [0, 1); got {self.dropout}")
        _ = self.observation  # refuses what does not fit x

    @property
    def observation(self) -> Observation:
        """p(x | z)."""
        return Observation(self.spec, self.likelihood, self.scale)

    @property
    def groups(self) -> tuple[int, ...]:
        return self.latents[::-1]

    @property
    def convolutional(self) -> bool:
        return self.architecture == "conv"

    @property
    def network(self) -> LadderNet:
        same: dict[str, Any] = {"activation": self.activation, "dropout": self.dropout}
        ends = {
            **same, "filters": self.filters if self.architecture == "conv" else 0,
            "num_classes": self.spec.num_classes, "hidden": (self.hidden[0],) * self.depth,
        }  # fmt: skip
        return LadderNet(
            encoder=Encoder(**ends),
            decoder=self.observation.network(upsample=self.upsample, **ends),
            latents=self.latents, hidden=self.hidden, depth=self.depth,
            sampled=self.inference == "bottom_up", **same,
        )  # fmt: skip

    def _apply(
        self,
        method: str,
        variables: Variables,
        training: Training | None,
        *inputs: Any,
        **settings: Any,
    ) -> Any:
        precision = "float32" if training is None else self.precision
        settings |= {"keys": None if training is None else training.keys, "method": method}
        return apply_in(precision, self.network, variables, *inputs, **settings)

    def _parts(self, z: Float[Array, "b z"]) -> list[Float[Array, "b z"]]:
        """The layers of z, the lowest first."""
        return jnp.split(z, np.cumsum(self.groups)[:-1], -1)[::-1]

    def _joined(self, layers: Sequence[Any]) -> Any:
        """All layers as one, the topmost first."""
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, -1), *layers[::-1])

    def _posterior(
        self,
        noise: Float[Array, "b z"],
        variables: Variables,
        batch: Batch,
        training: Training | None,
    ) -> Draw:
        """What noise becomes under q(z | x), and the Gaussians that it was given to."""
        x, parts = (1.0 + self.spec.to_float(batch["x"])) / 2, self._parts(noise)
        h = self._apply("encode", variables, training, x, batch.get("label"))
        said: list[Gaussian] = []
        z: list[Array] = []
        for number, part in enumerate(parts):
            h, q = self._apply("upward", variables, training, h, number=number)
            said, z = [*said, q], [*z, q.at(part)]
            h = z[-1] if self.inference == "bottom_up" else h
        if self.inference == "ladder":
            for number in reversed(range(len(parts) - 1)):
                p = self._apply("prior", variables, training, z[number + 1], number=number)
                said[number] = combined(said[number], p)
                z[number] = said[number].at(parts[number])
        return Draw(self._joined(z), self._joined(said))

    def _prior(
        self, z: Float[Array, "b z"], variables: Variables, training: Training | None = None
    ) -> Gaussian:
        """p of every layer, given the one above as z has it."""
        _, *above = self._parts(z)
        given = [
            self._apply("prior", variables, training, part, number=number)
            for number, part in enumerate(above)
        ]
        zero = jnp.zeros((len(z), self.latents[-1]))
        standard = Gaussian(zero, zero)
        return self._joined([*given, standard])

    def infer(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        training: Training | None = None,
    ) -> Draw:
        noise = normal_like(key, batch["index"], (sum(self.latents),))
        return self._posterior(noise, variables, batch, training)

    def score(
        self, variables: Variables, draw: Draw, batch: Batch, training: Training | None = None
    ) -> Terms:
        """The KL of a layer is in closed form where q knows the layer above, as p does; bottom-up,
        it is so of the topmost, and is estimated by z for the others."""
        lowest, label = self._parts(draw.z)[0], batch.get("label")
        params = self._apply("decode", variables, training, lowest, label)
        p, q = self._prior(draw.z, variables, training), draw.q
        log_ratio = normal_log_prob(draw.z, *p) - normal_log_prob(draw.z, *q)
        kl = kl_normal(q.mean, q.logvar, p.mean, p.logvar)
        if self.inference == "bottom_up":
            kl = jnp.where(jnp.arange(sum(self.latents)) < self.latents[-1], kl, -log_ratio)
        return Terms(self.observation.log_prob(params, batch["x"]), kl, log_ratio.sum(-1))

    def posterior_mean(self, variables: Variables, batch: Batch) -> Float[Array, "b z"]:
        """The noise of every layer's mean, given the means of the layers that it is drawn after."""
        zero = jnp.zeros((len(batch["x"]), sum(self.latents)))
        z = self._posterior(zero, variables, batch, None).z
        return self._prior(z, variables).noise(z)

    def _lowest(self, variables: Variables, noise: Float[Array, "b z"]) -> Float[Array, "b z"]:
        """The layer next to x that noise becomes, from the top down."""
        *below, z = self._parts(noise)
        for number in reversed(range(len(below))):
            z = self._apply("prior", variables, None, z, number=number).at(below[number])
        return z

    def parameters(
        self, variables: Variables, noise: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c p"]:
        """Parameters of p(x | z)."""
        return self._apply("decode", variables, None, self._lowest(variables, noise), label)

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
        layers, p = " < ".join(map(str, self.latents)), type(self.observation.p).__name__
        return {"latents": f"{layers} in layers, the topmost standard normal; p(x | z) {p}"}
