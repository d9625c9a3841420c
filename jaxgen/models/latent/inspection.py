"""What latents are looked at for: which are in use, and what they tell of data alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.model import Batch
from jaxgen.spec import DataSpec

ACTIVE = 1e-2
"""The variance of the posterior mean above which a latent is active."""


def active_units(mean: Float[Array, "b z"]) -> Int[Array, ""]:
    """The number of latents whose posterior mean varies over the data: Var_x(E[z | x]) > 0.01
    (Burda et al. 2016, arXiv:1509.00519, section 5.2)."""
    return (mean.var(0) > ACTIVE).sum()


def without_label(
    encode: Callable[[Batch], Float[Array, "b z"]], spec: DataSpec, batch: Batch
) -> Float[Array, "b z"]:
    """The latents of each example; a conditional model's are averaged over all classes, so that
    they do not tell the label that a classifier is to find."""
    if not spec.num_classes:
        return encode(batch)
    labelled = lambda label: {**batch, "label": jnp.full(len(batch["x"]), label)}  # noqa: E731
    return jax.vmap(lambda label: encode(labelled(label)))(jnp.arange(spec.num_classes)).mean(0)
