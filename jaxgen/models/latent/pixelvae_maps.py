"""PixelVAE with two levels of latents (Gulrajani et al. 2017, arXiv:1611.05013, section 3.3)."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal import samplers
from jaxgen.causal.condition import Condition
from jaxgen.errors import UserError
from jaxgen.fields import Repeats
from jaxgen.model import Batch
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNNNet
from jaxgen.models.latent.draws import Draw, Training
from jaxgen.models.latent.gaussian import Gaussian
from jaxgen.models.latent.hierarchy import Hierarchy
from jaxgen.models.latent.observation import NormalDensity
from jaxgen.models.latent.pixel_decoder import PixelDecoded
from jaxgen.nn.encoders import Decoder, Encoder
from jaxgen.nn.grids import GridDecoder, GridEncoder, grid_sizes
from jaxgen.optim.net import Variables
from jaxgen.spec import DataSpec


class MapsNet(nn.Module, kw_only=True):
    """Data to two Gaussians, of a vector and of maps; the vector to the prior of the maps, and the
    maps to x."""

    encoder: GridEncoder
    top: Encoder
    context: Decoder
    """The vector as maps, which `within` is given."""
    within: GatedPixelCNNNet
    """Each number of the maps given those before it: mean and log variance."""
    decoder: GridDecoder
    pixels: GatedPixelCNNNet
    latents: int
    grid: tuple[int, int, int]
    """Height, width and features of the maps."""

    def setup(self) -> None:
        self.to_maps, self.to_top = nn.Dense(2 * self.grid[2]), nn.Dense(2 * self.latents)

    def encode(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Gaussian, Gaussian]:
        """q of the maps [b h2 w2 c] and of the vector [b z], each given x in [0, 1] alone."""
        h = jax.nn.relu(self.encoder(x))
        maps = jnp.split(self.to_maps(h), 2, axis=-1)
        top = jnp.split(self.to_top(self.top(h, label, keys)), 2, axis=-1)
        return Gaussian.of(*maps), Gaussian.of(*top)

    def given(
        self, top: Float[Array, "b z"], keys: Key[Array, " b"] | None = None
    ) -> Float[Array, "b h2 w2 f"]:
        """What the prior of the maps is told of the vector."""
        return self.context(top, None, keys, first=len(self.top.hidden) + 1)

    def prior(
        self,
        maps: Float[Array, "b h2 w2 c"],
        top: Float[Array, "b z"],
        keys: Key[Array, " b"] | None = None,
    ) -> Gaussian:
        """p of each number of the maps, given those before it and the vector."""
        params = self.within(maps, Condition(maps=self.given(top, keys)))
        return Gaussian.of(params[..., 0], params[..., 1])

    def decode(
        self,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w f"]:
        """What the PixelCNN of x is given of the maps, which are all in one row here."""
        return self.decoder(z.reshape(-1, *self.grid), label)

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b h w c p"]:
        maps, top = self.encode(x, label)
        z = self.prior(maps.mean, top.mean).noise(maps.mean)
        return self.pixels(x, Condition(maps=self.decode(z, label)))


@dataclass(frozen=True)
class MapPixelVAE(PixelDecoded, Hierarchy):
    """A vector of latents, maps of latents below it, and a Gated PixelCNN that sees the maps.

    The prior of the maps is a PixelCNN too: each number is Gaussian given those before it, and
    the vector. What is drawn of both costs one pass of each network.
    """

    latents: int = 8
    """Dimensions of the vector, the topmost level."""
    halvings: Repeats = 1
    """How often height and width are halved, down to the maps."""
    size: int = 2
    """Latents at each place of the maps."""
    filters: int = 32
    """Features of the convolutions between x and the maps."""
    residual_blocks: Repeats = 1
    """Residual blocks at the maps' size, on either way."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the fully connected layers between the vector and the maps, from the maps up."""
    dropout: float = 0.05
    """Dropout rate after these, and on what enters the first."""
    prior_features: int = 32
    """Features of each of the two stacks of the maps' PixelCNN."""
    prior_blocks: Repeats = 1
    """Its layers after the first, whose kernels have a side of 3."""

    def check(self) -> None:
        least = (self.latents, self.size, self.filters, self.prior_features, *self.hidden)
        if min(least) < 1:
            raise UserError(
                "`latents`, `size`, `filters`, `hidden` and `prior_features` must be positive"
            )
        counts = self.halvings, self.residual_blocks, self.prior_blocks
        if min(counts) < 0 or max(counts) > 64:
            raise UserError("`halvings`, `residual_blocks` and `prior_blocks` must lie in 0..64")
        if not 0 <= self.dropout < 1:
            raise UserError(f"`dropout` must lie in [0, 1); got {self.dropout}")
        self.check_pixels()

    @property
    def convolutional(self) -> bool:
        return True

    @property
    def grid(self) -> DataSpec:
        """What the maps of one x are: real numbers."""
        height, width = grid_sizes(self.spec.height, self.spec.width, self.halvings)[-1]
        return DataSpec(height, width, self.size, 0)

    @property
    def groups(self) -> tuple[int, ...]:
        return self.latents, self.grid.dims

    @property
    def closed(self) -> int:
        return sum(self.groups)

    @property
    def within(self) -> GatedPixelCNNNet:
        """The PixelCNN of the maps; x's own is `pixels`."""
        return GatedPixelCNNNet(
            width=self.prior_features, blocks=self.prior_blocks, first_kernel=3, kernel=3,
            dropout=0.0, hidden=self.prior_features, channels=self.size,
            likelihood=NormalDensity(),
        )  # fmt: skip

    @property
    def network(self) -> MapsNet:
        grids: dict[str, Any] = {
            "filters": self.filters, "halvings": self.halvings, "blocks": self.residual_blocks
        }  # fmt: skip
        height, width, _ = self.grid.shape
        shape = self.spec.height, self.spec.width, self.maps
        return MapsNet(
            encoder=GridEncoder(size=self.filters, **grids),
            top=Encoder(
                hidden=self.hidden, dropout=self.dropout, num_classes=self.spec.num_classes
            ),
            context=Decoder(
                shape=(height, width, self.prior_features), hidden=self.hidden[::-1],
                dropout=self.dropout,
            ),
            within=self.within,
            decoder=GridDecoder(shape=shape, num_classes=self.spec.num_classes, **grids),
            pixels=self.pixels, latents=self.latents, grid=self.grid.shape,
        )  # fmt: skip

    def posterior_of(
        self,
        noise: Float[Array, "b z"],
        variables: Variables,
        batch: Batch,
        training: Training | None,
    ) -> Draw:
        said = [_flat(q) for q in self.encoded(variables, batch, training)]
        z = [q.at(part) for q, part in zip(said, self.parts(noise), strict=True)]
        return Draw(self.joined(z), self.joined(said))

    def prior_of(
        self, z: Float[Array, "b z"], variables: Variables, training: Training | None = None
    ) -> Gaussian:
        maps, top = self.parts(z)
        maps = maps.reshape(-1, *self.grid.shape)
        within = self.run("prior", variables, training, maps, top)
        return self.joined([_flat(within), Gaussian(jnp.zeros_like(top), jnp.zeros_like(top))])

    def lowest(self, variables: Variables, noise: Float[Array, "b z"]) -> Float[Array, "b y"]:
        """The maps, drawn by the cached sampler: what each number's noise becomes, given those
        before it."""
        maps, top = self.parts(noise)
        given = Condition(maps=self.run("given", variables, None, top))

        def pick(state: Any, noise: Array, params: Array) -> tuple[Any, Array, Any]:
            return state, Gaussian.of(params[..., 0], params[..., 1]).at(noise), ()

        draw = samplers.Draw(lambda positions: maps.T[positions], pick)
        empty = jnp.zeros((len(noise), *self.grid.shape))
        bound = self.within.bind({"params": variables["params"]["within"]})
        known = jnp.zeros(empty.shape, bool)
        z = samplers.sample_pixels_cached(bound, self.grid, draw, empty, known, given)
        return z.reshape(len(noise), -1)

    def facts(self) -> dict[str, str]:
        height, width, size = self.grid.shape
        maps = f"maps of {height}x{width}x{size}, each number given those before it"
        return {"latents": f"{maps} < {self.latents} standard normal", "sees": self.reach}


def _flat(q: Gaussian) -> Gaussian:
    """The Gaussian of all numbers of an example, in one row."""
    return jax.tree.map(lambda x: x.reshape(len(x), -1), q)
