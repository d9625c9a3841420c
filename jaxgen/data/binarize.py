"""Binarization: at one half, or by draws."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from jaxgen.data.chunks import by_chunks
from jaxgen.data.splits import SPLITS, Split

APART = len(SPLITS)
"""Names the noise of train examples that are sources apart, as a place in SPLITS would."""


@dataclass(frozen=True)
class Draw:
    """Binary images drawn from grey ones: 1 with probability level / (levels - 1).

    A draw is a function of (seed, split, epoch, example) alone.
    """

    levels: int
    seed: int

    def __call__(
        self,
        split: int | Int[Array, ""],
        images: UInt8[Array, "b h w c"],
        index: Int[Array, " b"],
        epoch: Int[Array, " b"],
    ) -> UInt8[Array, "b h w c"]:
        """Returns 0 or 1; `split` is a place in SPLITS, or APART, and `index` are places in it."""
        # The generator is named, so that no JAX option changes the data.
        key = jax.random.key(self.seed, impl="threefry2x32")
        key = jax.random.fold_in(key, split)

        def one(image: Array, index: Array, epoch: Array) -> Array:
            example = jax.random.fold_in(jax.random.fold_in(key, epoch), index)
            p = image.astype(jnp.float32) / (self.levels - 1)
            return jax.random.bernoulli(example, p).astype(jnp.uint8)

        return jax.vmap(one)(images, index, epoch)


def draw_once(draw: Draw, name: str, split: Split) -> Split:
    """Returns the split binarized with the draw of epoch 0, in memory."""
    return Split({**split.columns, "x": drawn(draw, SPLITS.index(name), split.x)}, split.apart)


def drawn(draw: Draw, place: int, x: np.ndarray) -> np.ndarray:
    """Returns x [n h w c] with the draw of epoch 0; `place` is one in SPLITS, or APART."""
    return by_chunks(lambda x, ids: _drawn(draw, place, x, ids, np.zeros_like(ids)), x)


@functools.partial(jax.jit, static_argnums=0)
def _drawn(draw: Draw, split: Array, images: Array, index: Array, epoch: Array) -> Array:
    return draw(split, images, index, epoch)


def threshold(split: Split, levels: int) -> Split:
    """Returns the split with pixels 1 where 2 level >= levels - 1, in memory."""
    table = (2 * np.arange(256) >= levels - 1).astype(np.uint8)
    return Split({**split.columns, "x": table[split.x]}, split.apart)
