"""Penalties on discriminators and generators, per example, and when they are computed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


def squared_slope(
    discriminator: Callable[[PyTree], Float[Array, " b *p"]], x: PyTree[Float[Array, " b *s"]]
) -> Float[Array, " b"]:
    """|grad_x D(x)|^2 per example.

    x is an array [b …], or a tuple of arrays whose squares are summed. The gradient of the summed
    logits is per example only if the discriminator treats examples apart: no BatchNorm.
    """
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(x)
    squares = [jnp.sum(g**2, axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(gradient)]
    return jnp.asarray(sum(squares[1:], squares[0]))


def gradient_penalty_r1(
    discriminator: Callable[[PyTree], Float[Array, " b *p"]], real: PyTree[Float[Array, " b *s"]]
) -> Float[Array, " b"]:
    """`squared_slope` at real examples (Mescheder et al. 2018, arXiv:1801.04406, eq. 9)."""
    return squared_slope(discriminator, real)


def gradient_penalty(
    discriminator: Callable[[PyTree], Float[Array, " b *p"]],
    real: PyTree[Float[Array, " b *s"]],
    fake: PyTree[Float[Array, " b *s"]],
    share: Float[Array, " b"],
) -> Float[Array, " b"]:
    """(|grad_x D(x)| - 1)^2 between each real example and a generated one, at the given share of
    the way to the real one (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3)."""

    def between(r: Array, f: Array) -> Array:
        t = share.reshape(-1, *(1,) * (r.ndim - 1))
        return t * r + (1.0 - t) * f

    square = squared_slope(discriminator, jax.tree.map(between, real, fake))
    # The root has no slope at 0: a critic that is flat there is pushed by nothing, not by NaN.
    return (jnp.sqrt(jnp.maximum(square, 1e-12)) - 1.0) ** 2


def path_lengths(
    generator: Callable[[Float[Array, "b w"]], Float[Array, " b *s"]],
    w: Float[Array, "b w"],
    direction: Float[Array, " b *s"],
) -> Float[Array, " b"]:
    """|J_w^T y| per example: how far G(w) moves along y, of the shape of data, with w (Karras et
    al. 2020, arXiv:1912.04958, equation 4). The generator treats examples apart."""
    moved = jax.grad(lambda w: jnp.sum(generator(w) * direction))(w)
    # The root has no slope at 0: what does not depend on w is pushed by nothing, not by NaN.
    return jnp.sqrt(jnp.maximum(jnp.sum(moved**2, -1), 1e-12))


def lazily(
    step: int | Int[Array, ""], every: int, compute: Callable[[], PyTree], otherwise: PyTree
) -> PyTree:
    """What is computed in the steps that `every` divides, and in the others, which do not compute
    it, what stands for it: several seeds at once neither, since they share the clock."""
    if every == 1:
        return compute()
    return jax.lax.cond(jnp.asarray(step) % every == 0, compute, lambda: otherwise)
