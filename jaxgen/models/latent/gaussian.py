"""Diagonal Gaussians of latents."""

from typing import NamedTuple, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

LOGVAR_RANGE = (-15.0, 15.0)
"""Where a network's log variances are kept, so that densities stay finite."""


class Gaussian(NamedTuple):
    """A diagonal normal distribution of latents."""

    mean: Float[Array, "*s"]
    logvar: Float[Array, "*s"]

    @classmethod
    def of(cls, mean: Float[Array, "*s"], logvar: Float[Array, "*s"]) -> Self:
        """That of a network's outputs, the log variance clipped."""
        return cls(mean, jnp.clip(logvar, *LOGVAR_RANGE))

    def at(self, noise: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """What standard normal noise becomes."""
        return self.mean + jnp.exp(0.5 * self.logvar) * noise

    def noise(self, z: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """What noise becomes z."""
        return (z - self.mean) * jnp.exp(-0.5 * self.logvar)


def combined(a: Gaussian, b: Gaussian) -> Gaussian:
    """The normalized product of two densities: means weighted by precisions (equations 17 and 18
    of Sønderby et al. 2016)."""
    precisions = jnp.exp(-a.logvar), jnp.exp(-b.logvar)
    logvar = -jnp.logaddexp(-a.logvar, -b.logvar)
    return Gaussian((precisions[0] * a.mean + precisions[1] * b.mean) * jnp.exp(logvar), logvar)
