"""The contract that every model keeps, and the types that pass through it."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxgen.errors import UserError
from jaxgen.spec import ImageSpec

State = TypeVar("State")

Batch = Mapping[str, Array]
"""image uint8 [b h w c] (levels), index int32 [b] (names each example's noise), and
label int32 [b] when the model is conditional. Leading axis = examples."""

Metrics = dict[str, Array]
"""Scalars, already averaged over the batch and over the devices."""


class Inspection(NamedTuple):
    """What a model shows of itself in the report."""

    numbers: dict[str, Array]
    """Scalars, named with their unit."""
    grids: dict[str, Array]
    """Pictures: uint8 levels [rows cols h w c]."""
    heatmaps: dict[str, Array]
    """Maps: floats [rows cols h w]."""


@dataclass(frozen=True)
class Model(abc.ABC, Generic[State]):
    """Hyperparameters with pure functions: what `--model` names.

    A model is frozen and hashable, so it is a static argument of `jax.jit`. State is a pytree
    of arrays only. Keys come first and are never stored.
    """

    spec: ImageSpec

    monitor: ClassVar[str]
    """The evaluation metric, lower is better, that selects the best checkpoint."""

    @property
    def minibatches(self) -> int:
        """How many batches of examples one train step consumes."""
        return 1

    @property
    def parts(self) -> int:
        """How many equal parts each device takes its batch in, one after another."""
        return 1

    @property
    def likelihood_kind(self) -> str:
        """What `nll` of `eval_step` is, where there is one: exact, or the name of a bound."""
        return "exact"

    @property
    def convolutional(self) -> bool:
        """Whether a train step is mostly convolutions, which decides how it is compiled."""
        return False

    def thorough(self) -> Self:
        """The model as the final report evaluates it (a tighter bound, where there is one)."""
        return self

    @abc.abstractmethod
    def init(self, key: Key[Array, ""]) -> State:
        """Returns the state before the first step."""

    @abc.abstractmethod
    def train_step(
        self, key: Key[Array, ""], state: State, batch: Batch, axis_name: str | None = None
    ) -> tuple[State, Metrics]:
        """Returns the state after one optimization step, and the step's metrics.

        The metrics show whether the step is sound: the norm of the gradients is one of them, and
        the trainer does not apply a step of which one is not finite.

        `key` is the same on every device; noise for an example is a function of `key` and of
        the example's `batch["index"]`. `axis_name` names the mapped axis over which gradients,
        statistics and metrics are averaged, if there is one.
        """

    @abc.abstractmethod
    def eval_step(
        self, key: Key[Array, ""], state: State, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        """Returns metrics per example, likelihoods as `nll` in nats."""

    @abc.abstractmethod
    def sample(
        self,
        key: Key[Array, ""],
        state: State,
        num: int,
        label: Int[Array, " num"] | None = None,
        temperature: float | Float[Array, ""] = 1.0,
        start: int | Int[Array, ""] = 0,
    ) -> UInt8[Array, "num h w c"]:
        """Returns images number start..start+num-1 of the endless stream that `key` names.

        Image i depends on (key, i) alone, so any chunking gives the same pictures.
        """

    def facts(self) -> dict[str, str]:
        """What the family is asked for before training: receptive field, latents, …"""
        return {}

    def inspect(self, key: Key[Array, ""], state: State, batch: Batch) -> Inspection:
        """Returns what the family is looked at for, computed on one batch."""
        return Inspection({}, {}, {})


class Completes(abc.ABC):
    """A model that can fill in the masked part of given images."""

    @abc.abstractmethod
    def complete(
        self,
        key: Key[Array, ""],
        state: Any,
        image: UInt8[Array, "b h w c"],
        known: Array,
        label: Int[Array, " b"] | None = None,
        temperature: float | Float[Array, ""] = 1.0,
        start: int | Int[Array, ""] = 0,
    ) -> UInt8[Array, "b h w c"]:
        """Returns the images with every sub-pixel kept where `known` [b h w c] is True."""


class Generates(abc.ABC):
    """A model that maps latents to images, and so can interpolate."""

    @abc.abstractmethod
    def draw_latents(
        self, key: Key[Array, ""], num: int, start: int | Int[Array, ""] = 0
    ) -> Float[Array, "num z"]:
        """Returns latents number start..start+num-1 from the prior."""

    @abc.abstractmethod
    def generate(
        self, state: Any, z: Float[Array, "b z"], label: Int[Array, " b"] | None = None
    ) -> UInt8[Array, "b h w c"]:
        """Returns the image of each latent, without further noise."""


class Reconstructs(abc.ABC):
    """A model that can encode an image and decode it again."""

    @abc.abstractmethod
    def reconstruct(self, key: Key[Array, ""], state: Any, batch: Batch) -> UInt8[Array, "b h w c"]:
        """Returns the decoder's image at the posterior mean."""


def example_keys(key: Key[Array, ""], index: Int[Array, " b"]) -> Key[Array, " b"]:
    """One key per example, a function of (key, index) alone: the number of devices and the
    way a batch is chunked do not change the noise."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def labels_or_all(
    spec: ImageSpec, label: Int[Array, " num"] | None, num: int, start: int | Array = 0
) -> Int[Array, " num"] | None:
    """The labels of samples start..start+num-1: those asked for, else every class in turn."""
    if spec.num_classes == 0:
        if label is not None:
            raise UserError("this model is unconditional: train one with --conditional for labels")
        return None
    return (start + jnp.arange(num)) % spec.num_classes if label is None else label
