"""What a generator lets a discriminator see, and in what form that sees it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from jaxgen.model import Batch, example_keys
from jaxgen.optim.update import mean_over


class Shown(NamedTuple):
    """What the generator lets the discriminator see of a batch."""

    real: PyTree
    """What is to be taken for real: one array [b …], or a tuple of them, such as x and its code."""
    fake: PyTree
    """What is to be taken for fake, of the same structure."""
    costs: dict[str, Array] = {}
    """Further losses of the generator, by the names of their metrics: scalars."""
    each: dict[str, Array] = {}
    """What evaluation measures beside D's judgements, by the names of their metrics: [b]."""


def packed(shown: PyTree[Float[Array, "b *s c"]], pack: int) -> PyTree[Float[Array, "n *s k"]]:
    """Each `pack` examples that follow each other as one, side by side in its channels."""

    def pack_up(x: Array) -> Array:
        together = jnp.moveaxis(x.reshape(-1, pack, *x.shape[1:]), 1, -2)
        return together.reshape(*together.shape[:-2], -1)

    return shown if pack == 1 else jax.tree.map(pack_up, shown)


def noised(
    key: Key[Array, ""], shown: PyTree, batch: Batch, noise: float | Float[Array, ""] | None
) -> PyTree:
    """What is shown with instance noise (Sønderby et al. 2017, arXiv:1610.04490), example by
    example."""
    if noise is None:
        return shown

    def one(key: Key[Array, ""], x: PyTree) -> PyTree:
        flat, back = ravel_pytree(x)
        return back(flat + noise * jax.random.normal(key, flat.shape))

    return jax.vmap(one)(example_keys(key, batch["index"]), shown)


def variety(shown: Shown, axis_name: str | None) -> Float[Array, ""]:
    """How much generated data vary, over how much real ones do: the ratio of their standard
    deviations over the whole batch, all sub-pixels together. Of a pair, the data alone."""

    def variance(x: Array) -> Array:
        mean, square = mean_over(axis_name, (x.mean(0), (x**2).mean(0)))
        return jnp.maximum(square - mean**2, 0.0).mean()

    fake, real = (variance(jax.tree.leaves(side)[0]) for side in (shown.fake, shown.real))
    return jnp.sqrt(fake / jnp.maximum(real, 1e-12))
