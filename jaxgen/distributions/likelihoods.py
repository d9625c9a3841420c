"""Distributions over integer levels: one per sub-pixel, exact masses, any bit depth.

Each takes `params` [... p], the p numbers a network gives for a sub-pixel, and is a proper
distribution over the levels 0..levels-1: its masses sum to one, so nats and bits/dim compare
between likelihoods. Continuous families are integrated over the level's bin; the outermost bins
reach to infinity (Salimans et al. 2017, arXiv:1701.05517, eq. 2).
"""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError

LOG_SCALE_RANGE = (-7.0, 7.0)
LEAST_SCALE = math.exp(LOG_SCALE_RANGE[0])


def clipped(log_scale: Float[Array, "*s"], least: float = LEAST_SCALE) -> Float[Array, "*s"]:
    """The log scale within its range, whose lower end may be another."""
    return jnp.clip(log_scale, math.log(least), LOG_SCALE_RANGE[1])


@dataclass(frozen=True)
class Likelihood(abc.ABC):
    """p(level | params) of one sub-pixel."""

    levels: int

    @property
    @abc.abstractmethod
    def num_params(self) -> int:
        """p, the numbers that a network must output per sub-pixel."""

    @abc.abstractmethod
    def log_prob(self, params: Float[Array, "*s p"], x: Int[Array, "*s"]) -> Float[Array, "*s"]:
        """Log mass of integer levels x, in nats per sub-pixel."""

    @abc.abstractmethod
    def log_masses(self, params: Float[Array, "*s p"]) -> Float[Array, "*s k"]:
        """Log mass of every level, in nats."""

    def each_level(self, params: Float[Array, "*s p"]) -> Float[Array, "*s k"]:
        """`log_masses`, level by level from `log_prob`."""

        def log_mass(level: Array) -> Array:
            return self.log_prob(params, jnp.full(params.shape[:-1], level))

        return jax.vmap(log_mass, out_axes=-1)(jnp.arange(self.levels))

    @abc.abstractmethod
    def noise(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Float[Array, "*s n"]:
        """All the randomness that draws of that shape need, n numbers each: it does not depend
        on the params, so that a sampler can make it in advance."""

    @abc.abstractmethod
    def pick(
        self,
        noise: Float[Array, "*s n"],
        params: Float[Array, "*s p"],
        temperature: float | Array = 1.0,
    ) -> Int[Array, "*s"]:
        """The draw that `noise` leads to; temperature divides logits or multiplies scales."""

    def sample(
        self, key: Key[Array, ""], params: Float[Array, "*s p"], temperature: float | Array = 1.0
    ) -> Int[Array, "*s"]:
        """Draws levels; temperature divides logits or multiplies scales."""
        return self.pick(self.noise(key, params.shape[:-1]), params, temperature)

    @abc.abstractmethod
    def mean(self, params: Float[Array, "*s p"]) -> Float[Array, "*s"]:
        """The expected level (for a location-scale family: its location), in 0..levels-1."""


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Two levels; params = the logit of level 1."""

    levels: int = 2

    def __post_init__(self) -> None:
        if self.levels != 2:
            raise UserError(
                f"a Bernoulli likelihood has two levels, the data {self.levels}: "
                "binarize the data (--binarize=dynamic) or choose another `likelihood`"
            )

    @property
    def num_params(self) -> int:
        return 1

    def log_prob(self, params: Float[Array, "*s p"], x: Int[Array, "*s"]) -> Float[Array, "*s"]:
        logits = params[..., 0]
        # Three times as fast on CPU as x * logits - softplus(logits), with its gradient.
        return jax.nn.log_sigmoid(jnp.where(x == 1, logits, -logits))

    def log_masses(self, params: Float[Array, "*s p"]) -> Float[Array, "*s k"]:
        return self.each_level(params)

    def noise(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Float[Array, "*s n"]:
        return jax.random.uniform(key, (*shape, 1))

    def pick(
        self,
        noise: Float[Array, "*s n"],
        params: Float[Array, "*s p"],
        temperature: float | Array = 1.0,
    ) -> Int[Array, "*s"]:
        return (noise < jax.nn.sigmoid(params / temperature))[..., 0].astype(jnp.int32)

    def mean(self, params: Float[Array, "*s p"]) -> Float[Array, "*s"]:
        return jax.nn.sigmoid(params[..., 0])


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Any distribution over the levels; params = one logit per level."""

    @property
    def num_params(self) -> int:
        return self.levels

    def log_prob(self, params: Float[Array, "*s p"], x: Int[Array, "*s"]) -> Float[Array, "*s"]:
        log_p = jax.nn.log_softmax(params)
        return jnp.take_along_axis(log_p, x.astype(jnp.int32)[..., None], -1)[..., 0]

    def log_masses(self, params: Float[Array, "*s p"]) -> Float[Array, "*s k"]:
        # The same by `each_level` gathers every level: half of the time on CPU.
        return jax.nn.log_softmax(params)

    def noise(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Float[Array, "*s n"]:
        return jax.random.gumbel(key, (*shape, self.levels))

    def pick(
        self,
        noise: Float[Array, "*s n"],
        params: Float[Array, "*s p"],
        temperature: float | Array = 1.0,
    ) -> Int[Array, "*s"]:
        return jnp.argmax(params / temperature + noise, -1).astype(jnp.int32)

    def mean(self, params: Float[Array, "*s p"]) -> Float[Array, "*s"]:
        return jax.nn.softmax(params) @ jnp.arange(self.levels, dtype=params.dtype)


@dataclass(frozen=True)
class LocationScale(Likelihood):
    """Levels 0..K-1 stand at -1..1; params = location, log scale (at most 7, and at least that of
    `least_scale`)."""

    least_scale: float = LEAST_SCALE
    standard: ClassVar[str]
    """The name in `jax.random` of the standard distribution."""

    @property
    def num_params(self) -> int:
        return 2

    @property
    def half_bin(self) -> float:
        return 1.0 / (self.levels - 1)

    def _location_scale(self, params: Array) -> tuple[Array, Array]:
        return params[..., 0], jnp.exp(clipped(params[..., 1], self.least_scale))

    def _edges(self, params: Array, x: Array) -> tuple[Array, Array]:
        """The bin's lower and upper edge, standardized."""
        location, scale = self._location_scale(params)
        centred = x * (2.0 * self.half_bin) - 1.0 - location
        return (centred - self.half_bin) / scale, (centred + self.half_bin) / scale

    def log_masses(self, params: Float[Array, "*s p"]) -> Float[Array, "*s k"]:
        return self.each_level(params)

    def noise(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Float[Array, "*s n"]:
        return getattr(jax.random, self.standard)(key, (*shape, 1))

    def pick(
        self,
        noise: Float[Array, "*s n"],
        params: Float[Array, "*s p"],
        temperature: float | Array = 1.0,
    ) -> Int[Array, "*s"]:
        location, scale = self._location_scale(params)
        return self._nearest(location + temperature * scale * noise[..., 0]).astype(jnp.int32)

    def mean(self, params: Float[Array, "*s p"]) -> Float[Array, "*s"]:
        return jnp.clip((params[..., 0] + 1.0) / (2.0 * self.half_bin), 0, self.levels - 1)

    def _nearest(self, value: Array) -> Array:
        return jnp.round(jnp.clip((value + 1.0) / (2.0 * self.half_bin), 0, self.levels - 1))


@dataclass(frozen=True)
class DiscretizedLogistic(LocationScale):
    """A logistic density integrated over each level's bin.

    σ(b) - σ(a) = σ(b) σ(-a) (1 - exp(a - b)) has no cancellation, so no threshold is needed.
    """

    standard: ClassVar[str] = "logistic"

    def log_prob(self, params: Float[Array, "*s p"], x: Int[Array, "*s"]) -> Float[Array, "*s"]:
        low, high = self._edges(params, x)
        _, scale = self._location_scale(params)
        below = jax.nn.log_sigmoid(high)
        above = jax.nn.log_sigmoid(-low)
        inside = below + above + log1mexp(2.0 * self.half_bin / scale)
        return jnp.where(x == 0, below, jnp.where(x == self.levels - 1, above, inside))


@dataclass(frozen=True)
class Gaussian(LocationScale):
    """A normal density integrated over each level's bin."""

    standard: ClassVar[str] = "normal"

    def log_prob(self, params: Float[Array, "*s p"], x: Int[Array, "*s"]) -> Float[Array, "*s"]:
        low, high = self._edges(params, x)
        inside = _log_normal_interval(low, high)
        return jnp.where(
            x == 0, log_ndtr(high), jnp.where(x == self.levels - 1, log_ndtr(-low), inside)
        )


def log1mexp(t: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """log(1 - exp(-t)) for t > 0, without cancellation (Mächler 2012)."""
    small = t < 0.693
    return jnp.where(
        small,
        jnp.log(-jnp.expm1(-jnp.where(small, t, 0.5))),
        jnp.log1p(-jnp.exp(-jnp.where(small, 1.0, t))),
    )


def _log_normal_interval(low: Array, high: Array) -> Array:
    """log(Φ(high) - Φ(low)): by log_ndtr in the lower tail, or by the density at the middle and
    its second-order correction where the interval is too narrow for a difference in float32."""
    middle, width = (low + high) / 2, high - low
    narrow = width * (1.0 + jnp.abs(middle)) < 0.1
    m, w = jnp.where(narrow, middle, 0.0), jnp.where(narrow, width, 0.1)
    by_density = -0.5 * (m**2 + jnp.log(2 * jnp.pi)) + jnp.log(w) + (m**2 - 1) * w**2 / 24
    # Reflect into the lower tail, where log_ndtr keeps its relative precision.
    upper = jnp.where(middle > 0, -low, high)
    lower = jnp.where(middle > 0, -high, low)
    upper, lower = jnp.where(narrow, 1.0, upper), jnp.where(narrow, -1.0, lower)
    log_upper = log_ndtr(upper)
    by_tails = log_upper + log1mexp(log_upper - log_ndtr(lower))
    return jnp.where(narrow, by_density, by_tails)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "gaussian": Gaussian,
    "logistic": DiscretizedLogistic,
}
