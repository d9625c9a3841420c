"""Networks that are run from sub-pixel to sub-pixel with one carry."""

import abc
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.causal.condition import Condition
from jaxgen.causal.samplers import Draw, Pixels, Stepper, dtype_of, keep_known, stacked
from jaxgen.distributions.likelihoods import Likelihood
from jaxgen.spec import DataSpec

PIXELWISE = ("inputs", "outputs", "biases")
"""The parameters whose leading axis is that of pixels."""


class SubpixelNet(nn.Module, abc.ABC):
    """A network that is run, to sample, from sub-pixel to sub-pixel with one carry [b …].

    Parameters of pixels are named in `PIXELWISE`: what each sub-pixel gives to f hidden units, and
    what it takes of g of them.
    """

    shape: tuple[int, int, int]
    """Height, width and channels of x."""
    dropout: float
    likelihood: Likelihood

    @property
    def dims(self) -> int:
        """The number of sub-pixels."""
        return math.prod(self.shape)

    def pixelwise(self, into: int, out: int) -> tuple[Array, Array, Array]:
        """Makes the parameters of `PIXELWISE`, for so many hidden units."""
        (height, width, channels), normal = self.shape, nn.initializers.normal
        pixels, p = (height * width, channels), self.likelihood.num_params
        return (
            self.param("inputs", normal(self.dims**-0.5), (*pixels, into)),
            self.param("outputs", normal(out**-0.5), (*pixels, out, p)),
            self.param("biases", nn.initializers.zeros, (*pixels, p)),
        )

    @abc.abstractmethod
    def begin(self, batch: int, condition: Condition) -> Any:
        """The carry before the first sub-pixel."""

    @abc.abstractmethod
    def weights(self) -> Any:
        """What `emit` and `absorb` need of each sub-pixel, leading axes [h*w c]."""

    @abc.abstractmethod
    def emit(self, carry: Any, weights: Any) -> tuple[Any, Float[Array, "b p"]]:
        """The parameters of the sub-pixel whose weights these are, and the carry."""

    @abc.abstractmethod
    def absorb(self, carry: Any, weights: Any, v: Float[Array, " b"]) -> Any:
        """The carry after that sub-pixel, `v` its level in [-1, 1]."""

    def stepper(self, spec: DataSpec, draw: Draw, condition: Condition) -> Stepper:
        """What the cached sampler runs; the module must be bound."""
        return _Steps(self, spec, draw, condition)


class _Steps:
    """See `samplers.Stepper`: the carry goes on from row to row; a column gets its weights."""

    def __init__(self, net: SubpixelNet, spec: DataSpec, draw: Draw, condition: Condition) -> None:
        self._net, self._spec, self._draw, self._condition = net, spec, draw, condition
        self._dtype = dtype_of(net)
        by_row = lambda w: w.reshape(spec.height, spec.width, *w.shape[1:])  # noqa: E731
        self._weights = jax.tree.map(by_row, net.weights())

    def start(self, batch: int) -> Any:
        """The carry."""
        return self._net.begin(batch, self._condition)

    def begin(self, rows: Any, row: Int[Array, ""]) -> tuple[Any, Any]:
        """See `Stepper`."""
        return rows, jax.tree.map(lambda w: w[row], self._weights)

    def pixel(
        self, left: Any, above: Any, pixels: Pixels, state: Any
    ) -> tuple[Any, Any, Array, Any, Any]:
        """See `Stepper`; the row keeps nothing."""
        carry = left
        levels = jnp.where(pixels.keep, pixels.given, 0).astype(jnp.uint8)
        records = []
        for channel in range(self._spec.channels):
            weights = jax.tree.map(lambda w: w[channel], above)  # noqa: B023
            carry, params = self._net.emit(carry, weights)
            state, level, record = self._draw.pick(state, pixels.noise[channel], params)
            records.append(record)
            levels = keep_known(levels, level, pixels, channel)
            v = self._spec.to_float(levels[:, channel]).astype(self._dtype)
            carry = self._net.absorb(carry, weights, v)
        return carry, (), levels, state, stacked(records)

    def end(self, rows: Any, left: Any, memos: Any) -> Any:
        """See `Stepper`."""
        return left
