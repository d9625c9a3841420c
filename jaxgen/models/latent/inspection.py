"""What latents are looked at for: which are in use, and what they tell of data alone."""

from jaxtyping import Array, Float, Int

ACTIVE = 1e-2
"""The variance of the posterior mean above which a latent is active."""


def active_units(mean: Float[Array, "b z"]) -> Int[Array, ""]:
    """The number of latents whose posterior mean varies over the data: Var_x(E[z | x]) > 0.01
    (Burda et al. 2016, arXiv:1509.00519, section 5.2)."""
    return (mean.var(0) > ACTIVE).sum()
