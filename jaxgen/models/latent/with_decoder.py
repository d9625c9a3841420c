"""What latent-variable models share whose x comes of a decoder: p(x | z), which each gives by three
hooks, or by an `Observation`."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.model import Batch, example_keys, labels_or_all
from jaxgen.models.latent.base import LatentVariable
from jaxgen.models.latent.draws import Training
from jaxgen.models.latent.observation import Observes
from jaxgen.optim.net import NetState, Variables, apply_in


@dataclass(frozen=True)
class WithDecoder(LatentVariable):
    """Latents that an encoder knows of x, and x that a decoder makes of them.

    A model gives `lowest`, what noise becomes on its way to the decoder, and p(x | z) of that z:
    its log-probability, its mean and its draws.
    """

    @abstractmethod
    def lowest(self, variables: Variables, noise: Float[Array, "b z"]) -> Float[Array, "b y"]:
        """What latents in noise space become, as the decoder takes them."""

    @abstractmethod
    def log_px(
        self,
        variables: Variables,
        z: Float[Array, "b y"],
        batch: Batch,
        training: Training | None,
    ) -> Float[Array, " b"]:
        """log p(x | z)."""

    @abstractmethod
    def mean_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b y"],
        label: Int[Array, " b"] | None,
    ) -> Float[Array, "b h w c"]:
        """What z stands for, as floats in [-1, 1]."""

    @abstractmethod
    def draw_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b y"],
        label: Int[Array, " b"] | None,
        temperature: float | Array,
    ) -> Shaped[Array, "b h w c"]:
        """Draws x from p(x | z), each by its own key."""

    def run(
        self,
        method: str,
        variables: Variables,
        training: Training | None,
        *inputs: Any,
        **settings: Any,
    ) -> Any:
        """What that method of the network returns, which takes the keys of its dropout."""
        precision = "float32" if training is None else self.precision
        settings |= {"keys": None if training is None else training.keys, "method": method}
        return apply_in(precision, self.network, variables, *inputs, **settings)

    def encoded(self, variables: Variables, batch: Batch, training: Training | None = None) -> Any:
        """What the network's `encode` returns of x in [0, 1]."""
        x = (1.0 + self.spec.to_float(batch["x"])) / 2
        return self.run("encode", variables, training, x, batch.get("label"))

    def decode(
        self,
        key: Key[Array, ""],
        state: NetState,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        """See `Decodes`: the mean of p(x | z), where that is an image."""
        label = labels_or_all(self.spec, label, len(z), start)
        keys = example_keys(key, start + jnp.arange(len(z)))
        return self.mean_x(keys, state.ema, self.lowest(state.ema, z), label)

    def sample_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        temperature: float | Array,
    ) -> Shaped[Array, "b h w c"]:
        return self.draw_x(keys, variables, self.lowest(variables, z), label, temperature)


@dataclass(frozen=True)
class Observed(Observes[NetState], WithDecoder):
    """p(x | z) by an `Observation`, whose parameters the decoder gives."""

    def parameters(
        self,
        variables: Variables,
        z: Float[Array, "b y"],
        label: Int[Array, " b"] | None = None,
        training: Training | None = None,
    ) -> Float[Array, "b h w c p"]:
        """Parameters of p(x | z)."""
        return self.run("decode", variables, training, z, label)

    def log_px(
        self,
        variables: Variables,
        z: Float[Array, "b y"],
        batch: Batch,
        training: Training | None,
    ) -> Float[Array, " b"]:
        params = self.parameters(variables, z, batch.get("label"), training)
        return self.observation.log_prob(params, batch["x"])

    def mean_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b y"],
        label: Int[Array, " b"] | None,
    ) -> Float[Array, "b h w c"]:
        """The mean of p(x | z)."""
        return self.observation.mean(self.parameters(variables, z, label))

    def draw_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b y"],
        label: Int[Array, " b"] | None,
        temperature: float | Array,
    ) -> Shaped[Array, "b h w c"]:
        return self.observation.sample(keys, self.parameters(variables, z, label), temperature)
