"""p(x | z) whose sub-pixels are independent given z: over levels, or a density of real numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.distributions.likelihoods import (
    LEAST_SCALE,
    LIKELIHOODS,
    Likelihood,
    LocationScale,
    clipped,
)
from jaxgen.distributions.normal import normal_log_prob
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Model, State
from jaxgen.nn.encoders import Decoder
from jaxgen.spec import DataSpec

LikelihoodName = Literal["auto", "bernoulli", "categorical", "gaussian", "logistic", "normal"]
Scale = Literal["pixel", "shared"]


@dataclass(frozen=True)
class NormalDensity:
    """The density N(location, scale²) of a real number; params = location, log scale (at most 7,
    and at least that of `least_scale`, so that a density of repeated values stays finite)."""

    least_scale: float = LEAST_SCALE
    bounded: bool = False
    """Whether the location is the first number's tanh, as that of x in [-1, 1] may be."""

    num_params: ClassVar[int] = 2

    def log_prob(self, params: Float[Array, "*s 2"], x: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The log density at x, in nats."""
        return normal_log_prob(x, self.mean(params), 2.0 * self._log_scale(params))

    def mean(self, params: Float[Array, "*s 2"]) -> Float[Array, "*s"]:
        return jnp.tanh(params[..., 0]) if self.bounded else params[..., 0]

    def sample(
        self, key: Key[Array, ""], params: Float[Array, "*s 2"], temperature: float | Array = 1.0
    ) -> Float[Array, "*s"]:
        """Draws real numbers; temperature multiplies the scale."""
        noise = jax.random.normal(key, params.shape[:-1])
        return self.mean(params) + temperature * jnp.exp(self._log_scale(params)) * noise

    def _log_scale(self, params: Array) -> Array:
        return clipped(params[..., 1], self.least_scale)


@dataclass(frozen=True)
class Observation:
    """p(x | z), sub-pixel by sub-pixel, from the parameters [b h w c p] that a decoder returns.

    Raises UserError, naming the field of a model that is to be set, where `likelihood`, `scale` and
    x do not fit.
    """

    spec: DataSpec
    likelihood: LikelihoodName = "auto"
    scale: Scale = "pixel"
    least_scale: float = LEAST_SCALE

    def __post_init__(self) -> None:
        levels, name = self.spec.levels, self.likelihood
        if levels == 0 and name not in ("auto", "normal"):
            raise UserError(
                f"`likelihood`={name} is of levels, and the data is real numbers: set "
                "`likelihood`=normal, or quantize the data"
            )
        if levels and name == "normal":
            raise UserError(
                f"`likelihood`=normal is of real numbers, and the data has {levels} levels: set "
                "`likelihood`=gaussian, which integrates the normal density over each level"
            )
        scaled = self.scaled  # refuses levels that p cannot represent
        if self.scale == "shared" and not scaled:
            raise UserError(
                f"`scale`=shared needs `likelihood`=gaussian, logistic or normal; it is {name}"
            )
        if not 0.0 < self.least_scale <= 1.0:
            raise UserError(
                f"`least_scale` must lie in (0, 1], as x lies in [-1, 1]; got {self.least_scale}"
            )

    @property
    def p(self) -> Likelihood | NormalDensity:
        """The distribution of one sub-pixel."""
        name = self.likelihood
        if self.spec.levels == 0:
            # A vector is no image, whether or not it says in which ranges it lies.
            vector = self.spec.shape[:2] == (1, 1) or self.spec.kind != "image"
            return NormalDensity(self.least_scale, bounded=not vector)
        if name == "auto":
            name = "bernoulli" if self.spec.levels == 2 else "logistic"
        kind = LIKELIHOODS[name]
        if issubclass(kind, LocationScale):
            return kind(self.spec.levels, self.least_scale)
        return kind(self.spec.levels)

    @property
    def scaled(self) -> bool:
        """Whether p has a location and a scale."""
        return isinstance(self.p, LocationScale | NormalDensity)

    @property
    def outputs(self) -> int:
        """How many numbers the decoder gives for a sub-pixel: a shared scale is not among them."""
        return 1 if self.scale == "shared" else self.p.num_params

    def network(self, make: Callable[..., nn.Module] = Decoder, **sizes: Any) -> "ObservationNet":
        """The decoder of these sizes (see `Decoder`), and what makes its numbers parameters."""
        height, width, channels = self.spec.shape
        decoder = make(shape=(height, width, channels * self.outputs), **sizes)
        shared = self.scale == "shared"
        return ObservationNet(features=decoder, outputs=self.outputs, shared_scale=shared)

    def log_prob(
        self, params: Float[Array, "b h w c p"], x: Shaped[Array, "b h w c"]
    ) -> Float[Array, " b"]:
        """log p(x | z) in nats per example: a mass of levels, a density of real numbers."""
        return self.p.log_prob(params, x).sum((1, 2, 3))

    def mean(self, params: Float[Array, "b h w c p"]) -> Float[Array, "b h w c"]:
        """The expected x (for a location-scale family: its location), as floats; those of levels
        lie in [-1, 1] and need not be a level's."""
        mean = self.p.mean(params)
        return 2.0 * mean / (self.spec.levels - 1) - 1.0 if self.spec.levels else mean

    def sample(
        self,
        keys: Key[Array, " b"],
        params: Float[Array, "b h w c p"],
        temperature: float | Array = 1.0,
    ) -> Shaped[Array, "b h w c"]:
        """Draws each x by its own key; temperature divides logits or multiplies scales."""
        one = lambda key, p: self.p.sample(key, p, temperature)  # noqa: E731
        return jax.vmap(one)(keys, params).astype(self.spec.dtype)


@dataclass(frozen=True)
class Observes(Model[State]):
    """A model whose x is made of sub-pixels that are independent given z."""

    likelihood: LikelihoodName = "auto"
    """p(x | z) per sub-pixel; auto: bernoulli for two levels, logistic for more, normal (a density,
    of images with its mean in [-1, 1]) for real numbers."""
    scale: Scale = "pixel"
    """gaussian, logistic, normal: a scale per sub-pixel from the decoder, or one for all, learned.
    """
    least_scale: float = LEAST_SCALE
    """gaussian, logistic, normal: the smallest scale there can be, where x is in [-1, 1]. A density
    of values that repeat, as black pixels do, grows without bound as their scale falls."""

    only: ClassVar = {
        "least_scale": Only(
            "without `likelihood`=gaussian, logistic or normal", lambda m: m.observation.scaled
        )
    }

    @property
    def observation(self) -> Observation:
        """p(x | z)."""
        return Observation(self.spec, self.likelihood, self.scale, self.least_scale)


class ObservationNet(nn.Module, kw_only=True):
    """Latents [b ...] to the parameters of p(x | z)."""

    features: nn.Module
    """A `Decoder`, or one with its inputs: latents to channels x outputs numbers at each place."""
    outputs: int
    """How many numbers the decoder gives for a sub-pixel."""
    shared_scale: bool = False
    """Whether one learned log scale, for all sub-pixels, is appended to these numbers."""

    def setup(self) -> None:
        nn.share_scope(self, self.features)
        if self.shared_scale:
            self.log_scale = self.param("log_scale", nn.initializers.zeros, ())

    def __call__(
        self,
        z: Array,
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
        first: int = 0,
    ) -> Float[Array, "b h w c p"]:
        """See `Decoder`."""
        h = self.features(z, label, keys, first)
        params = h.reshape(*h.shape[:3], -1, self.outputs)
        if self.shared_scale:
            log_scale = jnp.broadcast_to(self.log_scale, (*params.shape[:-1], 1))
            params = jnp.concatenate([params, log_scale], axis=-1)
        return params
