"""Attention over every earlier pixel, of whole images and of one pixel at a time."""

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

    Many places are taken in parts, whose scores are computed again in the backward pass: memory
    grows as n, not as its square.
    """
    n = q.shape[1]
    parts = -(-n // QUERIES)
    size = -(-n // parts)

    def part(now: tuple[Array, Array]) -> Array:
        first, q = now
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32)
        seen = jnp.arange(n)[None] <= first + jnp.arange(size)[:, None]
        scores = jnp.where(seen[None, None], scores / q.shape[-1] ** 0.5, -jnp.inf)
        return jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores).astype(v.dtype), v)

    if parts == 1:
        return part((jnp.int32(0), q))
    # The last part is filled up with places that nobody asks about.
    q = jnp.pad(q, ((0, 0), (0, parts * size - n), (0, 0), (0, 0)))
    split = q.reshape(q.shape[0], parts, size, *q.shape[2:]).swapaxes(0, 1)
    numbered = jnp.arange(parts) * size, split
    out = lax.map(jax.checkpoint(part, prevent_cse=False), numbered).swapaxes(0, 1)
    return out.reshape(out.shape[0], parts * size, *out.shape[3:])[:, :n]


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
        """Of whole images, a = heads * d; or of one pixel, whose key and value join those that
        are remembered."""
        shape, heads = q.shape, (self.heads, q.shape[-1] // self.heads)
        if at is None:
            q, k, v = (x.reshape(shape[0], self.places, *heads) for x in (q, k, v))
            return attend(q, k, v).reshape(shape)
        q, k, v = (x.reshape(shape[0], *heads) for x in (q, k, v))
        k, v = self._kept("keys", k, at), self._kept("values", v, at)
        scores = jnp.einsum("bhd,bhdn->bhn", q, k) / heads[1] ** 0.5
        weights = jax.nn.softmax(jnp.where(jnp.arange(self.places) <= at.place, scores, -jnp.inf))
        return jnp.einsum("bhn,bhen->bhe", weights, v).reshape(shape)

    def _kept(self, name: str, x: Float[Array, "b heads d"], at: At) -> Float[Array, "b heads d n"]:
        """Those of all places, this one's with them, zeros after it.

        Places are innermost: on a CPU both products then read what is remembered in order, and
        are five times as fast as with features there.
        """
        kept = recall(self, name, (*x.shape, self.places)).at[..., at.place].set(x)
        remember(self, name, kept)
        return kept
