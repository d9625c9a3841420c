"""One density by the chain rule: a network with its variables, on data in one order."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt8

from jaxgen.causal import orders
from jaxgen.causal.condition import NOTHING, Condition
from jaxgen.causal.samplers import Draw, sample_pixels_cached, sample_pixels_naive
from jaxgen.causal.wavefront import sample_pixels_wavefront
from jaxgen.distributions.likelihoods import Likelihood
from jaxgen.optim.net import Precision, Variables, apply_in
from jaxgen.spec import DataSpec

SAMPLERS = {
    "cached": sample_pixels_cached,
    "wavefront": sample_pixels_wavefront,
    "naive": sample_pixels_naive,
}


class Chain(NamedTuple):
    """p(x | condition), the product over sub-pixels, R before G before B, of each one's probability
    given those before it.

    What it takes and returns lies as in the data; it is laid in the order for the network alone.
    """

    spec: DataSpec
    network: nn.Module
    """See `Autoregressive.network`."""
    variables: Variables
    likelihood: Likelihood
    order: orders.Order = "raster"
    pixels: Int[Array, " h*w"] | None = None
    """An order of the pixels in place of `order`, for a network whose units have no places."""

    @property
    def bound(self) -> Any:
        """The network with its variables, as the samplers take it."""
        return self.network.bind(self.variables)

    @property
    def laid(self) -> DataSpec:
        """What x is as the network takes it."""
        return orders.arranged(self.order, self.spec)

    def lay(self, x: Shaped[Array, "b h w *c"]) -> Shaped[Array, "b h2 w2 *c"]:
        """x as the network takes it."""
        x = orders.arrange(self.order, x)
        return x if self.pixels is None else orders.permute(x, self.pixels)

    def restore(self, laid: Shaped[Array, "b h2 w2 *c"]) -> Shaped[Array, "b h w *c"]:
        """What `lay` has laid, as it was."""
        if self.pixels is not None:
            laid = orders.permute(laid, jnp.argsort(self.pixels))
        return orders.arrange(self.order, laid)

    def log_prob(
        self,
        x: UInt8[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
        precision: Precision = "float32",
    ) -> Float[Array, "b h w c"]:
        """log p of every sub-pixel given those before it, in nats; keys turn dropout on."""
        laid = self.lay(x)
        inputs = self.spec.to_float(laid), orders.arrange_condition(self.order, condition), keys
        params = apply_in(precision, self.network, self.variables, *inputs)
        return self.restore(self.likelihood.log_prob(params, laid))

    def features(
        self, x: UInt8[Array, "b h w c"], condition: Condition = NOTHING
    ) -> Float[Array, "b f"]:
        """The network's last features of x, their mean over its places."""
        inputs = self.spec.to_float(self.lay(x)), orders.arrange_condition(self.order, condition)
        features: Any = self.network.apply(self.variables, *inputs, method="features")
        return features.reshape(len(x), -1, features.shape[-1]).mean(1)

    def fill(
        self,
        draw: Draw,
        x: UInt8[Array, "b h w c"],
        known: Bool[Array, "b h w c"],
        condition: Condition = NOTHING,
        sampler: str = "cached",
    ) -> UInt8[Array, "b h w c"]:
        """x with the sub-pixels drawn that are not known, each given those before it; known ones
        further on cannot influence the ones before them."""
        given = self.lay(x), self.lay(known), orders.arrange_condition(self.order, condition)
        return self.restore(SAMPLERS[sampler](self.bound, self.laid, draw, *given))
