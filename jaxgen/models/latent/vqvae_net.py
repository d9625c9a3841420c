"""The networks of a VQ-VAE, and the two stages in which they are trained."""

from dataclasses import dataclass

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxgen.causal.condition import NOTHING, Condition
from jaxgen.causal.samplers import draw_from
from jaxgen.distributions.likelihoods import Bernoulli, Categorical, Likelihood
from jaxgen.models.autoregressive.chain import Chain
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNNNet
from jaxgen.models.latent.observation import ObservationNet
from jaxgen.nn.codebook import Codebook
from jaxgen.nn.grids import GridEncoder
from jaxgen.optim.net import NetState, Precision, Variables
from jaxgen.spec import DataSpec


class VQVAENet(nn.Module, kw_only=True):
    """Data [b h w c] to a grid of vectors, and such a grid to the parameters of p(x | z)."""

    encoder: GridEncoder
    decoder: ObservationNet

    def encode(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return self.encoder(x)

    def decode(
        self, z: Float[Array, "b h2 w2 d"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b h w c p"]:
        return self.decoder(z, label)

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b h w c p"]:
        return self.decode(self.encode(x), label)


@flax.struct.dataclass
class Stages:
    """The two networks, which are trained one after the other."""

    autoencoder: NetState
    """Encoder, decoder and codebook; the codebook is a collection of its own."""
    prior: NetState


@dataclass(frozen=True)
class CodePrior:
    """p(codes): a Gated PixelCNN over a grid of names."""

    grid: DataSpec
    """What the codes of one x are."""
    features: int
    blocks: int
    dropout: float
    num_classes: int
    """How many labels it is told; 0 = none."""

    @property
    def likelihood(self) -> Likelihood:
        """The distribution of a code, given those before it."""
        return Bernoulli() if self.grid.levels == 2 else Categorical(self.grid.levels)

    @property
    def network(self) -> GatedPixelCNNNet:
        return GatedPixelCNNNet(
            width=self.features, blocks=self.blocks, first_kernel=3, kernel=3,
            dropout=self.dropout, hidden=2 * self.features, channels=1,
            likelihood=self.likelihood, names=self.grid.levels,
        )  # fmt: skip

    def chain(self, variables: Variables) -> Chain:
        """The density of code after code."""
        return Chain(self.grid, self.network, variables, self.likelihood)

    def condition(self, label: Int[Array, " b"] | None) -> Condition:
        """What the network is told."""
        if label is None or not self.num_classes:
            return NOTHING
        return Condition(jax.nn.one_hot(label, self.num_classes, dtype=jnp.float32))

    def log_prob(
        self,
        variables: Variables,
        codes: UInt8[Array, "b h w 1"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
        precision: Precision = "float32",
    ) -> Float[Array, " b"]:
        """log p(codes) in nats; keys turn dropout on."""
        given = self.condition(label), keys, precision
        return self.chain(variables).log_prob(codes, *given).sum((1, 2, 3))

    def draw(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        label: Int[Array, " b"] | None,
        temperature: float | Array,
        sampler: str,
    ) -> UInt8[Array, "b h w 1"]:
        """Codes, each grid by its own key."""
        empty = jnp.zeros((len(keys), *self.grid.shape), jnp.uint8)
        draw, known = draw_from(self.likelihood, keys, temperature), jnp.zeros(empty.shape, bool)
        return self.chain(variables).fill(draw, empty, known, self.condition(label), sampler)


def codebook_of(variables: Variables) -> Codebook:
    """The codebook among an autoencoder's arrays."""
    return Codebook(**variables["codebook"])


def arrays_of(variables: Variables) -> Variables:
    """Those that the network takes: the codebook is outside it."""
    return {"params": variables["params"]}
