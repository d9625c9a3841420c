"""Bounds, adversarial losses and penalties; per example."""

from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES, AdversarialLoss
from jaxgen.losses.bounds import importance_weighted_bound
from jaxgen.losses.penalties import gradient_penalty_r1

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AdversarialLoss",
    "gradient_penalty_r1",
    "importance_weighted_bound",
]
