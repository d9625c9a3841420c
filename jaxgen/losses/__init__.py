"""Bounds, adversarial losses and penalties; per example."""

from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES, AdversarialLoss
from jaxgen.losses.bounds import (
    doubly_reparameterized_bound,
    importance_weighted_bound,
    log_mean_exp,
)
from jaxgen.losses.penalties import gradient_penalty_r1

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AdversarialLoss",
    "doubly_reparameterized_bound",
    "gradient_penalty_r1",
    "importance_weighted_bound",
    "log_mean_exp",
]
