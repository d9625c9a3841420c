"""The optimizer of one network, as a configuration."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxgen.errors import UserError
from jaxgen.fields import Only, refuse_idle


@dataclass(frozen=True)
class Optimizer:
    """The optimizer of one network."""

    name: Literal["adam", "sgd"] = "adam"
    """adam: steps scaled by the gradient's moments; sgd: the gradient, with momentum."""
    learning_rate: float = 1e-3
    """Step size, before any decay."""
    b1: float = 0.9
    """Adam's first-moment decay, or SGD's momentum."""
    b2: float = 0.999
    """Adam's second-moment decay."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW), on arrays of two or more dimensions."""
    decay_steps: int = 0
    """Decay of the learning rate to zero over this many steps; 0 = constant."""
    decay: Literal["cosine", "linear"] = "cosine"
    """The form of the decay."""
    constant_steps: int = 0
    """Steps at the full learning rate before the decay."""

    only: ClassVar = {
        "b2": Only("without `name`=adam", lambda optimizer: optimizer.name == "adam"),
        "decay": Only("without `decay_steps`", lambda optimizer: optimizer.decay_steps > 0),
        "constant_steps": Only(
            "without `decay_steps`", lambda optimizer: optimizer.decay_steps > 0
        ),
    }

    def __post_init__(self) -> None:
        if not self.learning_rate >= 0:
            raise UserError(f"`learning_rate` must not be negative; got {self.learning_rate}")
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1):
            raise UserError(f"`b1` and `b2` must lie in [0, 1); got {self.b1}, {self.b2}")
        if min(self.weight_decay, self.decay_steps, self.constant_steps) < 0:
            raise UserError(
                "`weight_decay`, `decay_steps` and `constant_steps` must not be negative"
            )
        refuse_idle(self)

    def make(self) -> optax.GradientTransformation:
        """The direction of a step, as a transformation of gradients: without the step size, which
        follows from the clock (see `rate`) and not from a count of its own."""
        if self.name == "sgd":
            momentum = optax.trace(self.b1) if self.b1 else optax.identity()
            return optax.chain(momentum, self._decay())
        return optax.chain(optax.scale_by_adam(self.b1, self.b2), self._decay())

    def rate(self, step: int | Array) -> float | Array:
        """The learning rate of step number `step` of the run."""
        if not self.decay_steps:
            return self.learning_rate
        if self.decay == "linear":
            schedule = optax.linear_schedule(self.learning_rate, 0.0, self.decay_steps)
        else:
            schedule = optax.cosine_decay_schedule(self.learning_rate, self.decay_steps)
        return schedule(jnp.maximum(step - self.constant_steps, 0) if self.constant_steps else step)

    def _decay(self) -> optax.GradientTransformation:
        is_matrix = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
        return optax.add_decayed_weights(self.weight_decay, mask=is_matrix)
