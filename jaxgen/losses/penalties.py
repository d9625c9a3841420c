"""Penalties on discriminators, per example."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gradient_penalty_r1(
    discriminator: Callable[[Float[Array, "b *s"]], Float[Array, " b"]], real: Float[Array, "b *s"]
) -> Float[Array, " b"]:
    """|grad_x D(x)|^2 per real example (Mescheder et al. 2018, arXiv:1801.04406, eq. 9).

    The gradient of the summed logits is per example only if the discriminator treats examples
    apart: no BatchNorm.
    """
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(real)
    return jnp.sum(gradient**2, axis=tuple(range(1, real.ndim)))
