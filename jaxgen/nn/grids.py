"""Networks between data and grids of vectors: strided convolutions and residual blocks."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int, Key

from jaxgen.nn.labels import with_label
from jaxgen.nn.layers import Conv, upsample


def grid_sizes(height: int, width: int, halvings: int) -> list[tuple[int, int]]:
    """Sizes from the data's own down, each half (rounded up) of the one before."""
    sizes = [(height, width)]
    for _ in range(halvings):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
        h = Conv(x.shape[-1], 3)(jax.nn.relu(x))
        return x + Conv(x.shape[-1], 1)(jax.nn.relu(h))


class GridEncoder(nn.Module, kw_only=True):
    """Data [b h w c] to a grid of vectors [b h2 w2 d]."""

    size: int
    """d: numbers of each vector."""
    filters: int
    """Features of every layer."""
    halvings: int
    """How often height and width are halved, rounded up."""
    blocks: int
    """Residual blocks at the grid's size."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        h = Conv(self.filters, 3)(x)
        for _ in range(self.halvings):
            h = Conv(self.filters, 4, stride=2)(jax.nn.relu(h))
        for _ in range(self.blocks):
            h = Residual()(h)
        return Conv(self.size, 1)(jax.nn.relu(h))


class GridDecoder(nn.Module, kw_only=True):
    """A grid of vectors [b h2 w2 d] to maps [b h w f], the sizes of `GridEncoder` backwards."""

    shape: tuple[int, int, int]
    """Height, width and features of what is returned."""
    filters: int
    """Features of every layer."""
    halvings: int
    """How often height and width are doubled."""
    blocks: int
    """Residual blocks at the grid's size."""
    num_classes: int = 0

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "b h2 w2 d"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
        first: int = 0,
    ) -> Float[Array, "b h w f"]:
        """`keys` and `first` are those of other decoders; there is no dropout here."""
        *larger, _ = grid_sizes(*self.shape[:2], self.halvings)
        h = Conv(self.filters, 3)(with_label(z, label, self.num_classes))
        for _ in range(self.blocks):
            h = Residual()(h)
        for size in reversed(larger):
            h = Conv(self.filters, 3)(upsample(jax.nn.relu(h), size))
        return Conv(self.shape[2], 3)(jax.nn.relu(h))
