"""A model that is the mean of several densities: how it is evaluated, and how it is sampled."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, Shaped


def log_mean(
    log_p: Callable[[int | Array], Float[Array, " b"]], components: int
) -> Float[Array, " b"]:
    """The log of the mean of the densities of components 0..components-1, in nats.

    They are computed one after another, for memory.
    """
    if components == 1:
        return log_p(0)
    each = lax.map(log_p, jnp.arange(components))
    return jax.nn.logsumexp(each, 0) - jnp.log(components)


def each_of_one(
    keys: Key[Array, " b"],
    drawn: Callable[[int | Array], Shaped[Array, "b h w c"]],
    components: int,
) -> Shaped[Array, "b h w c"]:
    """A draw from the mean of the densities: each example is one of a component, that its key
    draws.

    All components draw all examples, one after another, and each example stays with its own.
    """
    if components == 1:
        return drawn(0)
    mine = jax.vmap(lambda key: jax.random.randint(key, (), 0, components))(keys)

    def step(x: Array, component: Array) -> tuple[Array, None]:
        own = (mine == component)[:, None, None, None]
        return jnp.where(own, drawn(component), x), None

    like = jax.eval_shape(drawn, 0)
    return lax.scan(step, jnp.zeros(like.shape, like.dtype), jnp.arange(components))[0]
