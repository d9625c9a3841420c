"""The latents that decode to given data, found by gradient descent."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from jaxgen.abilities import Decodes


class Projection(NamedTuple):
    """What was found for each datum."""

    z: Float[Array, "n z"]
    x: Float[Array, "n h w c"]
    """What z decodes to, floats in about [-1, 1]."""
    error: Float[Array, " n"]
    """The mean square of its difference from what was given, over sub-pixels."""


@functools.partial(jax.jit, static_argnames=("model", "steps"))
def project(
    model: Decodes,
    key: Key[Array, ""],
    state: Any,
    x: Float[Array, "n h w c"],
    starts: Float[Array, "s n z"],
    label: Int[Array, " n"] | None = None,
    first: int | Int[Array, ""] = 0,
    *,
    steps: int,
    rate: float | Float[Array, ""],
    prior: float | Float[Array, ""] = 0.0,
) -> Projection:
    """The latents that decode to data x nearest, by Adam from several starts for each.

    What falls is |decode(z) - x|^2 + prior |z|^2, where a `prior` of v stands for a standard normal
    one beside normal noise of variance v. The rate falls to 0 along a cosine over the steps; of all
    latents on all ways, each datum keeps the best. Data are apart: neither the starts nor the data
    beside it change what is found for one. What `decode` draws for datum i follows from
    (key, first + i), the same at every step.
    """
    optimizer = optax.scale_by_adam(0.9, 0.99)

    def decoded(z: Float[Array, "s n z"]) -> Float[Array, "s n h w c"]:
        one = lambda z: model.decode(jax.random.clone(key), state, z, label, first)  # noqa: E731
        return jax.vmap(one)(z)

    def losses(z: Float[Array, "s n z"]) -> Float[Array, "s n"]:
        return ((decoded(z) - x[None]) ** 2).sum((2, 3, 4)) + prior * (z**2).sum(-1)

    def total(z: Array) -> tuple[Array, Array]:
        loss = losses(z)
        return loss.sum(), loss

    def better(z: Array, loss: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        lower = loss < best[1]
        return jnp.where(lower[..., None], z, best[0]), jnp.where(lower, loss, best[1])

    def step(carry: Any, t: Array) -> tuple[Any, None]:
        z, moments, best = carry
        slope, loss = jax.grad(total, has_aux=True)(z)
        best = better(z, loss, best)
        direction, moments = optimizer.update(slope, moments)
        now = rate * 0.5 * (1.0 + jnp.cos(jnp.pi * t / steps))
        return (z - now * direction, moments, best), None

    nothing = starts, jnp.full(starts.shape[:2], jnp.inf)
    carry = starts, optimizer.init(starts), nothing
    (z, _, best), _ = jax.lax.scan(step, carry, jnp.arange(steps))
    found, loss = better(z, losses(z), best)
    z = jnp.take_along_axis(found, loss.argmin(0)[None, :, None], 0)[0]
    shown = model.decode(jax.random.clone(key), state, z, label, first)
    return Projection(z, shown, ((shown - x) ** 2).mean((1, 2, 3)))
