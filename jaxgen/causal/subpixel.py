"""Networks that are run from sub-pixel to sub-pixel with one carry."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.causal.samplers import Draw, Pixels, Stepper, keep_known, stacked
from jaxgen.distributions.likelihoods import Likelihood
from jaxgen.spec import ImageSpec

PIXELWISE = ("inputs", "outputs", "biases")
"""The parameters whose leading axis is that of pixels."""


class SubpixelNet(nn.Module):
    """A network that is run, to sample, from sub-pixel to sub-pixel with one carry [b …].

    A subclass offers the three methods that raise here. Parameters of pixels are named in
    `PIXELWISE`: what each sub-pixel gives to f hidden units, and what it takes of g of them.
    """

    spec: ImageSpec
    dropout: float
    likelihood: Likelihood

    def pixelwise(self, into: int, out: int) -> tuple[Array, Array, Array]:
        """Makes the parameters of `PIXELWISE`, for so many hidden units."""
        spec, normal = self.spec, nn.initializers.normal
        pixels, p = (spec.height * spec.width, spec.channels), self.likelihood.num_params
        return (
            self.param("inputs", normal(spec.dims**-0.5), (*pixels, into)),
            self.param("outputs", normal(out**-0.5), (*pixels, out, p)),
            self.param("biases", nn.initializers.zeros, (*pixels, p)),
        )

    def begin(self, batch: int, label: Int[Array, " b"] | None) -> Any:
        """The carry before the first sub-pixel."""
        raise NotImplementedError

    def weights(self) -> Any:
        """What `emit` and `absorb` need of each sub-pixel, leading axes [h*w c]."""
        raise NotImplementedError

    def emit(self, carry: Any, weights: Any) -> tuple[Any, Float[Array, "b p"]]:
        """The parameters of the sub-pixel whose weights these are, and the carry."""
        raise NotImplementedError

    def absorb(self, carry: Any, weights: Any, v: Float[Array, " b"]) -> Any:
        """The carry after that sub-pixel, `v` its level in [-1, 1]."""
        raise NotImplementedError

    def stepper(self, spec: ImageSpec, draw: Draw, label: Int[Array, " b"] | None) -> Stepper:
        """What the cached sampler runs; the module must be bound."""
        return _Steps(self, spec, draw, label)


class _Steps:
    """See `sampling.Stepper`: the carry goes on from row to row; a column gets its weights."""

    def __init__(self, net: SubpixelNet, spec: ImageSpec, draw: Draw, label: Array | None) -> None:
        self._net, self._spec, self._draw, self._label = net, spec, draw, label
        by_row = lambda w: w.reshape(spec.height, spec.width, *w.shape[1:])  # noqa: E731
        self._weights = jax.tree.map(by_row, net.weights())

    def start(self, batch: int) -> Any:
        """The carry, and the number of the row."""
        return self._net.begin(batch, self._label), jnp.int32(0)

    def begin(self, rows: Any) -> tuple[Any, Any]:
        """See `Stepper`."""
        return rows, jax.tree.map(lambda w: w[rows[1]], self._weights)

    def pixel(
        self, left: Any, above: Any, pixels: Pixels, state: Any
    ) -> tuple[Any, Any, Array, Any, Any]:
        """See `Stepper`; the row keeps nothing."""
        carry, row = left
        levels = jnp.where(pixels.keep, pixels.given, 0).astype(jnp.uint8)
        records = []
        for channel in range(self._spec.channels):
            weights = jax.tree.map(lambda w: w[channel], above)  # noqa: B023
            carry, params = self._net.emit(carry, weights)
            state, level, record = self._draw.pick(state, pixels.noise[channel], params)
            records.append(record)
            levels = keep_known(levels, level, pixels, channel)
            v = self._spec.to_float(levels[:, channel])
            carry = self._net.absorb(carry, weights, v)
        return (carry, row), (), levels, state, stacked(records)

    def end(self, rows: Any, left: Any, kept: Any) -> Any:
        """See `Stepper`."""
        carry, row = left
        return carry, row + 1
