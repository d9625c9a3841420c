"""A pool of what a generator made before (Shrivastava et al. 2017, arXiv:1612.07828, sec. 2.3)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.model import example_keys
from jaxgen.optim.update import gather_over


@flax.struct.dataclass
class Pool:
    """Images that were generated, of which a discriminator is shown some again."""

    images: Float[Array, "p h w c"]
    held: Int[Array, ""]
    """How many of the places are taken; the first ones are."""


def empty(size: int, shape: tuple[int, int, int]) -> Pool:
    """A pool of that many places, with nothing in it."""
    return Pool(jnp.zeros((size, *shape)), jnp.int32(0))


def exchanged(
    key: Key[Array, ""],
    pool: Pool,
    made: Float[Array, "b h w c"],
    index: Int[Array, " b"],
    axis_name: str | None,
) -> tuple[Pool, Float[Array, "b h w c"]]:
    """The pool after these images, one after another, and what is shown in place of each.

    While there are free places, an image takes the next one and is shown itself. Then, with
    probability 1/2, it takes a random place, and what was there is shown; else it is shown and not
    kept. All devices' images pass in the order of the batch, by draws from (key, index): the pool
    is the same everywhere, and on any number of devices.
    """
    num, size = len(made), len(pool.images)
    made, index = gather_over(axis_name, (made, index))
    draws = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(example_keys(key, index))
    everything = jnp.concatenate([pool.images, made])

    # What moves is the numbers of images in `everything`; the images are taken once at the end.
    def one(carry: tuple[Array, Array], image: tuple[Array, Array]) -> Any:
        (places, held), (own, draw) = carry, image
        free, lucky = held < size, draw[0] < 0.5
        place = jnp.where(free, held, (draw[1] * size).astype(jnp.int32))
        shown = jnp.where(lucky & ~free, places[place], own)
        kept = jnp.where(lucky | free, places.at[place].set(own), places)
        return (kept, jnp.minimum(held + 1, size)), shown

    own = size + jnp.arange(len(made))
    shown: Array
    (places, held), shown = jax.lax.scan(one, (jnp.arange(size), pool.held), (own, draws))
    if axis_name is not None:
        shown = jax.lax.dynamic_slice_in_dim(shown, jax.lax.axis_index(axis_name) * num, num)
    return Pool(everything[places], held), everything[shown]
