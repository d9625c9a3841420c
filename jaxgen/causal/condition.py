"""What a causal network is given beside x, and the layer by which it enters."""

from typing import NamedTuple, Self

import flax.linen as nn
import jax
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


class Condition(NamedTuple):
    """What a causal network is given beside x: every place may depend on all of it."""

    vector: Float[Array, "b k"] | None = None
    """Numbers for x as a whole: a one-hot label, a latent."""
    maps: Float[Array, "b h w f"] | None = None
    """Numbers for every place of x: a source, a latent that was brought to x's size. A network that
    runs on one row is given that row's, [b 1 w f]; on one pixel, that pixel's, [b f]."""

    def having(self, maps: Array | None) -> Self:
        """The same vector with other maps."""
        return self._replace(maps=maps)

    def astype(self, dtype: DTypeLike) -> Self:
        """The same numbers as floats of that type."""
        return jax.tree.map(lambda x: x.astype(dtype), self)

    def row(self, row: int | Int[Array, ""]) -> Self:
        """For that row of whole images."""
        if self.maps is None:
            return self
        return self.having(lax.dynamic_slice_in_dim(self.maps, row, 1, 1))

    def halved(self) -> Self:
        """For every second row and column, from the first."""
        return self if self.maps is None else self.having(self.maps[:, ::2, ::2])

    def flat(self) -> Self:
        """For a network whose units have no places: the maps as one vector, [b h*w*f]."""
        return self if self.maps is None else self.having(self.maps.reshape(len(self.maps), -1))


NOTHING = Condition()


class Shift(nn.Module):
    """Adds what the condition gives: of the vector the same to every place, of the maps to each
    place its own; zero before training."""

    @nn.compact
    def __call__(self, x: Float[Array, "b *hw f"], condition: Condition) -> Float[Array, "b *hw f"]:
        """The maps are of the places of x."""
        if condition.vector is not None:
            shift = self._product("vector", condition.vector, x.shape[-1])
            x = x + shift.reshape(x.shape[0], *(1,) * (x.ndim - 2), -1)
        if condition.maps is not None:
            x = x + self._product("maps", condition.maps, x.shape[-1])
        return x

    def kernels(self) -> tuple[Float[Array, "k f"] | None, Float[Array, "m f"] | None]:
        """What the vector and the maps are multiplied with; None where there was none."""
        return self.get_variable("params", "vector"), self.get_variable("params", "maps")

    def _product(self, name: str, given: Array, features: int) -> Array:
        return given @ self.param(name, nn.initializers.zeros, (given.shape[-1], features))
