"""What models may be able to do beside the contract: each command and each picture of the report
names the abilities it needs."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, TypeGuard

from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.model import Batch, Request


class Samples(abc.ABC):
    """A model that draws new data."""

    @abc.abstractmethod
    def sample(
        self, key: Key[Array, ""], state: Any, num: int, request: Request = Request()
    ) -> Shaped[Array, "num h w c"]:
        """Returns x number start..start+num-1 of the endless stream that `key` names.

        Number i depends on (key, i) alone, so any chunking gives the same ones.
        """


class Completes(abc.ABC):
    """A model that fills in the masked part of given data."""

    @abc.abstractmethod
    def complete(
        self,
        key: Key[Array, ""],
        state: Any,
        x: Shaped[Array, "b h w c"],
        known: Array,
        request: Request = Request(),
    ) -> Shaped[Array, "b h w c"]:
        """Returns x with every sub-pixel kept where `known` [b h w c] is True."""


class Decodes(abc.ABC):
    """A model that maps latents to data."""

    @property
    @abc.abstractmethod
    def groups(self) -> tuple[int, ...]:
        """The sizes of the parts that a latent [z] consists of, the topmost first."""

    @abc.abstractmethod
    def decode(
        self,
        key: Key[Array, ""],
        state: Any,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        """Returns floats in [-1, 1]: what each latent stands for; differentiable in z. What is
        drawn on the way, if anything is, follows from (key, start + i)."""


class Generates(Decodes, Samples):
    """A model that samples by decoding latents from a prior, and so can interpolate."""

    @abc.abstractmethod
    def draw_latents(
        self,
        key: Key[Array, ""],
        state: Any,
        num: int,
        label: Int[Array, " num"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "num z"]:
        """Returns latents number start..start+num-1 from the prior, in noise space: standard
        normal, so that interpolation, temperature and traversal mean the same everywhere."""


class Encodes(Decodes):
    """A model that encodes data as latents; decoding them reconstructs it."""

    @abc.abstractmethod
    def encode(self, key: Key[Array, ""], state: Any, batch: Batch) -> Float[Array, "b z"]:
        """Returns the latent of each example, which `decode` takes: a posterior's mean, where
        there is a posterior."""


class Embeds(abc.ABC):
    """A model whose features of data a classifier can use."""

    @abc.abstractmethod
    def embed(self, state: Any, batch: Batch) -> Float[Array, "b f"]:
        """Returns features of each example."""


class Bounds(abc.ABC):
    """A model whose log-likelihood is bounded from below by importance weighting."""

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """What the mean of one draw of `log_weight` is called, such as the ELBO."""

    @property
    def settled(self) -> bool:
        """Whether every draw is the same number, so that one is enough."""
        return False

    @abc.abstractmethod
    def log_weight(self, key: Key[Array, ""], state: Any, batch: Batch) -> Float[Array, " b"]:
        """Returns log p(x, z) - log q(z | x) in nats, for one draw of z per example."""


def bounded(model: Any) -> TypeGuard[Bounds]:
    """Whether more draws tighten the model's bound."""
    return isinstance(model, Bounds) and not model.settled


class Unnormalized(abc.ABC):
    """A model whose density is known up to a constant, which is estimated."""

    @abc.abstractmethod
    def log_unnormalized(self, state: Any, batch: Batch) -> Float[Array, " b"]:
        """Returns log p(x) + log Z in nats, where Z is the constant."""

    @abc.abstractmethod
    def log_partition(
        self, key: Key[Array, ""], state: Any, num: int, start: int | Int[Array, ""] = 0
    ) -> Float[Array, " num"]:
        """Returns the logarithms of independent numbers start..start+num-1, whose mean is Z."""


def drawn(model: Any) -> bool:
    """Whether the model's likelihood is estimated from draws, whose number matters."""
    return bounded(model) or isinstance(model, Unnormalized)


class Translates(abc.ABC):
    """A model that turns data of one domain into data of the other."""

    ways: ClassVar[tuple[str, ...]] = ("forth",)
    """forth: source to x; back: x to source, where the model has it."""

    @property
    def pairs(self) -> Mapping[str, str]:
        """The splits in which each x must stand beside its own source, and what to do where they
        are apart."""
        return {}

    @abc.abstractmethod
    def translate(
        self,
        key: Key[Array, ""],
        state: Any,
        source: Shaped[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        way: str = "forth",
        start: int | Int[Array, ""] = 0,
    ) -> Shaped[Array, "b h w c"]:
        """Returns what each example becomes, in the other domain."""


class Watches(abc.ABC):
    """A model that judges its own training."""

    compared: ClassVar[Mapping[str, str]] = {}
    """Metrics of `eval_step` that are taken of as many training examples too, and the metric that
    says of each how much larger its mean over the validation split is: below 0 where a model knows
    its training examples."""

    @abc.abstractmethod
    def verdict(self, means: Mapping[str, float]) -> str | None:
        """Returns what the means of a log interval's metrics, and those of the last validation that
        have no such name, tell in plain words; None = nothing to tell."""


ABILITIES: tuple[type, ...] = (
    *(Samples, Completes, Decodes, Generates, Encodes, Embeds, Bounds, Unnormalized, Translates),
    Watches,
)
"""What a model may be able to do, beside the contract: each command names the ones it needs."""
