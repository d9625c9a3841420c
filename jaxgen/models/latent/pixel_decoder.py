"""p(x | z) by a Gated PixelCNN that sees z as maps (Gulrajani et al. 2017, arXiv:1611.05013)."""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxgen.causal.condition import Condition
from jaxgen.causal.samplers import draw_from
from jaxgen.distributions.likelihoods import Bernoulli, Categorical, Likelihood
from jaxgen.errors import UserError
from jaxgen.fields import Repeats
from jaxgen.model import Batch
from jaxgen.models.autoregressive.chain import Chain
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNNNet
from jaxgen.models.latent.draws import Training
from jaxgen.models.latent.with_decoder import WithDecoder
from jaxgen.nn.layers import fold_keys
from jaxgen.optim.net import Variables

PIXELS = 3000
"""The noise of the PixelCNN's dropout, by number: apart from that of the other networks."""


@dataclass(frozen=True)
class PixelDecoded(WithDecoder):
    """Pixels that see the ones before them, and z: a model's network makes maps of z (`decode`)."""

    maps: int = 32
    """Features that the decoder gives to every pixel."""
    features: int = 32
    """Features of each of the PixelCNN's two stacks."""
    blocks: Repeats = 3
    """The PixelCNN's layers after the first."""
    first_kernel: int = 5
    """Side of its first kernel; odd."""
    kernel: int = 3
    """Side of its other kernels; odd."""
    head: int = 64
    """Features of the hidden layer before its output."""
    pixel_dropout: float = 0.3
    """Dropout rate inside the PixelCNN."""
    sampler: Literal["cached", "naive"] = "cached"
    """cached: the cost of one forward pass; naive: the whole PixelCNN per sub-pixel. The images are
    the same."""

    def check_pixels(self) -> None:
        """Raises UserError where the fields of p(x | z) cannot be."""
        if not self.spec.levels:
            raise UserError(
                "the decoder gives a probability to every level, and the data are real numbers: "
                "quantize them with --levels=N"
            )
        if min(self.maps, self.features, self.head) < 1 or self.blocks < 0:
            raise UserError("`maps`, `features` and `head` must be positive, `blocks` not negative")
        for name in ("first_kernel", "kernel"):
            if getattr(self, name) % 2 == 0 or getattr(self, name) < 3:
                raise UserError(f"`{name}` must be odd and at least 3")
        if not 0 <= self.pixel_dropout < 1:
            raise UserError(f"`pixel_dropout` must lie in [0, 1); got {self.pixel_dropout}")

    @property
    def likelihood(self) -> Likelihood:
        """The distribution of a sub-pixel, given those before it and z."""
        return Bernoulli() if self.spec.levels == 2 else Categorical(self.spec.levels)

    @property
    def pixels(self) -> GatedPixelCNNNet:
        """The PixelCNN, the part of the network that is named so."""
        return GatedPixelCNNNet(
            width=self.features,
            blocks=self.blocks,
            first_kernel=self.first_kernel,
            kernel=self.kernel,
            dropout=self.pixel_dropout,
            hidden=self.head,
            channels=self.spec.channels,
            likelihood=self.likelihood,
        )

    def chain(self, variables: Variables) -> Chain:
        """p(x | maps), the density of pixel after pixel."""
        own = {"params": variables["params"]["pixels"]}
        return Chain(self.spec, self.pixels, own, self.likelihood)

    def given(
        self,
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        training: Training | None = None,
    ) -> Condition:
        """The maps that the lowest layer becomes."""
        return Condition(maps=self.run("decode", variables, training, z, label))

    def log_px(
        self,
        variables: Variables,
        z: Float[Array, "b z"],
        batch: Batch,
        training: Training | None,
    ) -> Float[Array, " b"]:
        condition = self.given(variables, z, batch.get("label"), training)
        how: dict[str, Any] = {}
        if training is not None:
            how = {"keys": fold_keys(training.keys, PIXELS), "precision": self.precision}
        return self.chain(variables).log_prob(batch["x"], condition, **how).sum((1, 2, 3))

    def mean_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
    ) -> Float[Array, "b h w c"]:
        """One draw of p(x | z): its mean is no image, since pixels follow each other."""
        return self.spec.to_float(self.draw_x(keys, variables, z, label, 1.0))

    def draw_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        temperature: float | Array,
    ) -> UInt8[Array, "b h w c"]:
        x = jnp.zeros((len(z), *self.spec.shape), jnp.uint8)
        draw = draw_from(self.likelihood, keys, temperature)
        condition, known = self.given(variables, z, label), jnp.zeros(x.shape, bool)
        return self.chain(variables).fill(draw, x, known, condition, self.sampler)

    @property
    def reach(self) -> str:
        """What a pixel sees, for people."""
        reach = self.first_kernel // 2 + self.blocks * (self.kernel // 2)
        return f"beside z, {reach + 1} rows above and {reach} columns to each side"
