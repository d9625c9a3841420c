"""The contract that every model keeps; what some can do beside it is in `jaxgen.abilities`."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError
from jaxgen.spec import DataSpec

State = TypeVar("State")

Batch = Mapping[str, Array]
"""x [b h w c] (levels uint8, or floats, as its `DataSpec` says), index int32 [b] (names each
example's noise), label int32 [b] when the model is conditional, and source [b h w c] when the
spec has a source. Leading axis = examples."""

Metrics = dict[str, Array]
"""Scalars, already averaged over the batch and over the devices."""


class Metric(NamedTuple):
    """What a metric is, for tables and charts."""

    label: str
    """Its name for people."""
    unit: str = ""
    """nats per image, probability, …; empty = none."""
    better: Literal["lower", "higher", ""] = ""
    """Which way is better; empty = neither."""
    chart: str = ""
    """The title of the chart that it shares with other metrics; empty = one of its own."""
    curve: str = ""
    """Its name in a shared chart."""
    likelihood: bool = False
    """Whether it is the model's negative log-likelihood in nats, exact or a bound, which stands
    beside the baselines'."""
    of_x: bool = True
    """Whether an example's value depends on x, so that examples can be ranked by it."""

    def __str__(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


class Inspection(NamedTuple):
    """What a model shows of itself in the report, that no ability shows."""

    numbers: dict[str, Array]
    """Scalars, named with their unit."""
    grids: dict[str, Array]
    """Pictures [rows cols h w c]: levels, or floats in [-1, 1]."""
    heatmaps: dict[str, Array]
    """Maps: floats [rows cols h w]."""
    told: Array | None = None
    """How much each latent tells of data, nats [z], where that is known."""


@dataclass(frozen=True)
class Model(abc.ABC, Generic[State]):
    """Hyperparameters with pure functions: what `--model` names.

    A model is frozen and hashable, so it is a static argument of `jax.jit`. State is a pytree
    of arrays only. Keys come first and are never stored.
    """

    spec: DataSpec

    metrics: ClassVar[Mapping[str, Metric]]
    """What `train_step` and `eval_step` measure, but for norms of gradients."""

    @property
    @abc.abstractmethod
    def monitor(self) -> str:
        """What selects the best checkpoint: a metric of `eval_step`, or a score of samples."""

    @property
    def slack(self) -> float:
        """The share of the lowest monitor by which a later one may be above it and is held to be as
        good; what is estimated from few samples differs so by chance."""
        return 0.0

    @property
    def minibatches(self) -> int:
        """How many batches of examples one train step consumes."""
        return 1

    @property
    def multiple(self) -> int:
        """What each device's share of a batch is a multiple of."""
        return 1

    @property
    def first(self) -> int:
        """How many examples `init` is to see; 0 = as many as a train step has."""
        return 0

    @property
    def convolutional(self) -> bool:
        """Whether a train step is mostly convolutions, which decides how it is compiled."""
        return False

    @property
    def changes(self) -> tuple[int, ...]:
        """The steps, ascending, from which on `at` returns another model than before."""
        return ()

    def at(self, step: int) -> Self:
        """Returns the model that makes step number `step` (from 0): of the same state, with other
        static fields. A checkpoint of step s is continued by `at(s)` and judged by `at(s - 1)`."""
        return self

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Returns the state before the first step; `batch` holds examples of the train split, as
        many as `first` says, which may decide initial values. Their number must not matter to the
        state's shapes: those alone are found from examples of zeros."""

    @abc.abstractmethod
    def train_step(
        self,
        key: Key[Array, ""],
        state: State,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None = None,
    ) -> tuple[State, Metrics]:
        """Returns the state after one optimization step, and the step's metrics.

        `step` is the clock of the run: how many steps came before, whether they were applied or
        not; schedules follow from it. The metrics show whether the step is sound: the norm of
        the gradients is one of them, and the trainer does not apply a step of which one is not
        finite.

        `key` is the same on every device; noise for an example is a function of `key` and of
        the example's `batch["index"]`. `axis_name` names the mapped axis over which gradients,
        statistics and metrics are averaged, if there is one.
        """

    @abc.abstractmethod
    def eval_step(
        self, key: Key[Array, ""], state: State, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        """Returns metrics per example; likelihoods in nats."""

    def facts(self) -> dict[str, str]:
        """What the family is asked for before training: receptive field, latents, …"""
        return {}

    def inspect(self, key: Key[Array, ""], state: State, batch: Batch) -> Inspection:
        """Returns what the family is looked at for, computed on one batch, where no ability shows
        it."""
        return Inspection({}, {}, {})


class Request(NamedTuple):
    """What samples are asked for, beside their number."""

    label: Int[Array, " num"] | None = None
    """The class of each; None = every class in turn, for a conditional model."""
    temperature: float | Float[Array, ""] = 1.0
    """Below 1: likelier, less varied."""
    start: int | Int[Array, ""] = 0
    """The number of the first one, in the endless stream that a key names."""


def example_keys(key: Key[Array, ""], index: Int[Array, " b"]) -> Key[Array, " b"]:
    """One key per example, a function of (key, index) alone: the number of devices and the
    way a batch is chunked do not change the noise."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def labels_or_all(
    spec: DataSpec, label: Int[Array, " num"] | None, num: int, start: int | Array = 0
) -> Int[Array, " num"] | None:
    """The labels of samples start..start+num-1: those asked for, else every class in turn."""
    if spec.num_classes == 0:
        if label is not None:
            raise UserError("this model is unconditional: train one with --conditional for labels")
        return None
    return (start + jnp.arange(num)) % spec.num_classes if label is None else label


def without_label(
    embed: Callable[[Batch], Float[Array, "b f"]], spec: DataSpec, batch: Batch
) -> Float[Array, "b f"]:
    """The features of each example; a conditional model's are averaged over all classes, so that
    they do not tell the label that a classifier is to find."""
    if not spec.num_classes:
        return embed(batch)
    labelled = lambda label: {**batch, "label": jnp.full(len(batch["x"]), label)}  # noqa: E731
    return jax.vmap(lambda label: embed(labelled(label)))(jnp.arange(spec.num_classes)).mean(0)
