"""Attention over every earlier pixel, of whole images and of one pixel at a time.

Our own, because `jax.nn.dot_product_attention` on a CPU keeps the scores of all pairs of places,
and because Linen's cached attention keeps features innermost, which is five times as slow.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgen.causal.streamed import recall, remember

QUERIES = 128
"""The most queries whose scores are in memory at once."""


class At(NamedTuple):
    """Where the pixel is that is to be drawn."""

    column: Int[Array, ""]
    place: Int[Array, ""]
    """Its number in raster order."""


def attend(
    q: Float[Array, "b n heads d"], k: Float[Array, "b n heads d"], v: Float[Array, "b n heads e"]
) -> Float[Array, "b n heads e"]:
    """Scaled dot-product attention of every place to itself and all before it (Vaswani et al.
    2017, arXiv:1706.03762, equation 1); softmax in float32.

    Many places are taken in chunks, whose scores are computed again in the backward pass: memory
    grows as n, not as its square.
    """
    n = q.shape[1]
    chunks = -(-n // QUERIES)
    size = -(-n // chunks)

    def chunk(now: tuple[Array, Array]) -> Array:
        first, q = now
        scores = _wide(jnp.einsum("bqhd,bkhd->bhqk", q, k))
        seen = jnp.arange(n)[None] <= first + jnp.arange(size)[:, None]
        scores = jnp.where(seen[None, None], scores / q.shape[-1] ** 0.5, -jnp.inf)
        return jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores).astype(v.dtype), v)

    if chunks == 1:
        return chunk((jnp.int32(0), q))
    # The last chunk is filled up with places that nobody asks about.
    q = jnp.pad(q, ((0, 0), (0, chunks * size - n), (0, 0), (0, 0)))
    split = q.reshape(q.shape[0], chunks, size, *q.shape[2:]).swapaxes(0, 1)
    numbered = jnp.arange(chunks) * size, split
    out = lax.map(jax.checkpoint(chunk, prevent_cse=False), numbered).swapaxes(0, 1)
    return out.reshape(out.shape[0], chunks * size, *out.shape[3:])[:, :n]


def _wide(scores: Array) -> Array:
    """The scores in float32 at least."""
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


class Attention(nn.Module):
    """Causal attention of several heads in images of so many places."""

    heads: int
    places: int

    def __call__(
        self,
        q: Float[Array, "b *hw a"],
        k: Float[Array, "b *hw a"],
        v: Float[Array, "b *hw a"],
        at: At | None = None,
    ) -> Float[Array, "b *hw a"]:
        """The layer on whole images, a = heads * d; or on one pixel, whose key and value join
        those that are remembered."""
        shape, heads = q.shape, (self.heads, q.shape[-1] // self.heads)
        if at is None:
            q, k, v = (x.reshape(shape[0], self.places, *heads) for x in (q, k, v))
            return attend(q, k, v).reshape(shape)
        q, k, v = (x.reshape(shape[0], *heads) for x in (q, k, v))
        k, v = self._joined("keys", k, at), self._joined("values", v, at)
        scores = _wide(jnp.einsum("bhd,bhdn->bhn", q, k)) / heads[1] ** 0.5
        weights = jax.nn.softmax(jnp.where(jnp.arange(self.places) <= at.place, scores, -jnp.inf))
        return jnp.einsum("bhn,bhen->bhe", weights.astype(v.dtype), v).reshape(shape)

    def _joined(
        self, name: str, x: Float[Array, "b heads d"], at: At
    ) -> Float[Array, "b heads d n"]:
        """Those of all places, this one's with them, zeros after it.

        Places are innermost: on a CPU both products then read what is remembered in order, and
        are five times as fast as with features there.
        """
        every = recall(self, name, (*x.shape, self.places), x.dtype).at[..., at.place].set(x)
        remember(self, name, every)
        return every
