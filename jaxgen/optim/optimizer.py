"""The optimizer of one network, as a configuration."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax

from jaxgen.errors import UserError


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
    """Cosine decay of the learning rate to zero over this many steps; 0 = constant."""

    def __post_init__(self) -> None:
        if not self.learning_rate >= 0:
            raise UserError(
                f"--…optimizer.learning_rate must not be negative; got {self.learning_rate}"
            )
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1):
            raise UserError(f"--…optimizer.b1 and b2 must lie in [0, 1); got {self.b1}, {self.b2}")
        if self.weight_decay < 0 or self.decay_steps < 0:
            raise UserError("--…optimizer.weight_decay and decay_steps must not be negative")

    def make(self) -> optax.GradientTransformation:
        rate: Any = self.learning_rate
        if self.decay_steps:
            rate = optax.cosine_decay_schedule(self.learning_rate, self.decay_steps)
        if self.name == "sgd":
            return optax.chain(self._decay(), optax.sgd(rate, momentum=self.b1 or None))
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2), self._decay(), optax.scale_by_learning_rate(rate)
        )

    def _decay(self) -> optax.GradientTransformation:
        is_matrix = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
        return optax.add_decayed_weights(self.weight_decay, mask=is_matrix)
