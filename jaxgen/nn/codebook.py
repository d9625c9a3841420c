"""A codebook that follows what it codes, by moving averages (van den Oord et al. 2017,
arXiv:1711.00937, appendix A.1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Codebook(NamedTuple):
    """K vectors, each the mean of what it lately stood for."""

    counts: Float[Array, " k"]
    """How many vectors of an example each code lately stood for, on average."""
    sums: Float[Array, "k d"]
    """The sum of these vectors."""

    @classmethod
    def of(cls, vectors: Float[Array, "k d"], places: int) -> "Codebook":
        """The codebook of these codes, as if each stood for as many of an example's `places`."""
        counts = jnp.full(len(vectors), places / len(vectors))
        return cls(counts, vectors * counts[:, None])

    @property
    def vectors(self) -> Float[Array, "k d"]:
        """The codes."""
        # A code that stands for nothing keeps its place, until its count is too small to divide by.
        return self.sums / jnp.maximum(self.counts, 1e-30)[:, None]

    def nearest(self, x: Float[Array, "*s d"]) -> Int[Array, "*s"]:
        """The number of the code nearest to each vector; of equals, the first."""
        codes = self.vectors
        # |x|² is the same for all codes.
        distance = (codes**2).sum(-1)[None] - 2 * x.reshape(-1, x.shape[-1]) @ codes.T
        return distance.argmin(-1).reshape(x.shape[:-1])

    def moved(
        self, x: Float[Array, "n d"], nearest: Int[Array, " n"], examples: int, decay: float
    ) -> "Codebook":
        """The codebook after a batch of that many examples, whose vectors and codes these are."""
        chosen = jax.nn.one_hot(nearest, len(self.counts), dtype=x.dtype)
        counts, sums = chosen.sum(0) / examples, chosen.T @ x / examples
        toward = lambda old, new: decay * old + (1 - decay) * new  # noqa: E731
        return Codebook(toward(self.counts, counts), toward(self.sums, sums))

    @property
    def perplexity(self) -> Float[Array, ""]:
        """The exponential of the entropy of its use: K if all codes are used alike, 1 if one is."""
        p = self.counts / self.counts.sum()
        return jnp.exp(jax.scipy.special.entr(p).sum())


def straight_through(
    x: Float[Array, "*s d"], quantized: Float[Array, "*s d"]
) -> Float[Array, "*s d"]:
    """`quantized`, whose gradient goes to x as it is (section 3.2)."""
    return x + jax.lax.stop_gradient(quantized - x)
