"""All that lives between the steps of a run, and its streams of randomness."""

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxgen.model import Model


@flax.struct.dataclass
class Progress:
    """All that lives between steps: what a checkpoint holds."""

    state: Any
    """The model's."""
    step: Array
    """Steps done, applied or not."""
    skipped: Array
    """Steps that were not finite, and so not applied."""
    in_a_row: Array
    """How many of these came last, without a finite step between them."""


def start(state: Any) -> Progress:
    """The progress of a model's first state: no step done."""
    # Three arrays, not one: donation gives each buffer away once.
    return Progress(state, *(jnp.zeros((), jnp.int32) for _ in range(3)))


def shapes(model: Model) -> Progress:
    """The shapes and types of a run's progress, which a checkpoint of it must have."""
    key, batch = jax.random.key(0), model.spec.example(1)
    return jax.eval_shape(lambda: start(model.at(0).init(key, batch)))


@dataclass(frozen=True)
class Keys:
    """A run's independent streams of randomness."""

    init: jax.Array
    train: jax.Array
    evaluate: jax.Array
    sample: jax.Array


def keys_of(seed: int) -> Keys:
    """All keys of a run follow from its seed."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))
