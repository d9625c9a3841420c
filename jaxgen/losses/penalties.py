"""Penalties on discriminators, per example."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def gradient_penalty_r1(
    discriminator: Callable[[PyTree], Float[Array, " b *p"]], real: PyTree[Float[Array, " b *s"]]
) -> Float[Array, " b"]:
    """|grad_x D(x)|^2 per real example (Mescheder et al. 2018, arXiv:1801.04406, eq. 9).

    x is an array [b …], or a tuple of arrays whose squares are summed. The gradient of the summed
    logits is per example only if the discriminator treats examples apart: no BatchNorm.
    """
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(real)
    squares = [jnp.sum(g**2, axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(gradient)]
    return jnp.asarray(sum(squares[1:], squares[0]))
