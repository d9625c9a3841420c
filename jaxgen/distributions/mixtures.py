"""The discretized logistic mixture of PixelCNN++, and how it couples a pixel's channels.

Salimans, Karpathy, Chen & Kingma 2017, arXiv:1701.05517, sections 2.1 and 2.2.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from jaxgen.distributions.likelihoods import DiscretizedLogistic, Likelihood
from jaxgen.errors import UserError


@dataclass(frozen=True)
class LogisticMixture(Likelihood):
    """A mixture of k logistic densities, each integrated over the level's bin (eq. 2).

    params = k logits, k locations, k log scales (clipped to ±7); levels 0..K-1 stand at -1..1.
    A temperature divides the logits and multiplies the scales.
    """

    components: int = 10

    def __post_init__(self) -> None:
        if self.components < 1:
            raise UserError(f"a mixture has at least 1 component; got {self.components}")

    @property
    def num_params(self) -> int:
        return 3 * self.components

    @property
    def component(self) -> DiscretizedLogistic:
        """The likelihood of one component alone."""
        return DiscretizedLogistic(self.levels)

    def component_log_probs(
        self, params: Float[Array, "*s p"], x: Int[Array, "*s"]
    ) -> Float[Array, "*s k"]:
        """Log mass of x under each component, in nats."""
        return self.component.log_prob(self._components(params), x[..., None])

    def log_prob(self, params: Float[Array, "*s p"], x: Int[Array, "*s"]) -> Float[Array, "*s"]:
        weights = jax.nn.log_softmax(params[..., : self.components])
        return logsumexp(weights + self.component_log_probs(params, x), -1)

    def log_masses(self, params: Float[Array, "*s p"]) -> Float[Array, "*s k"]:
        return self.each_level(params)

    def noise(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Float[Array, "*s n"]:
        """k Gumbel numbers for the component, and the component's own noise for the value."""
        key_component, key_value = jax.random.split(key)
        which = jax.random.gumbel(key_component, (*shape, self.components))
        return jnp.concatenate([which, self.component.noise(key_value, shape)], -1)

    def pick(
        self,
        noise: Float[Array, "*s n"],
        params: Float[Array, "*s p"],
        temperature: float | Array = 1.0,
    ) -> Int[Array, "*s"]:
        k = self.components
        which = jnp.argmax(params[..., :k] / temperature + noise[..., :k], -1)[..., None, None]
        chosen = jnp.take_along_axis(self._components(params), which, -2)[..., 0, :]
        return self.component.pick(noise[..., k:], chosen, temperature)

    def mean(self, params: Float[Array, "*s p"]) -> Float[Array, "*s"]:
        weights = jax.nn.softmax(params[..., : self.components])
        return (weights * self.component.mean(self._components(params))).sum(-1)

    def _components(self, params: Array) -> Array:
        """[... 3k] -> [... k 2]: location and log scale."""
        k = self.components
        return jnp.stack([params[..., k : 2 * k], params[..., 2 * k :]], -1)


def num_coupled_params(components: int, channels: int) -> int:
    """P, the numbers per pixel that `couple` needs: k (1 + 2c + c(c-1)/2); 10k for RGB."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def couple(
    mixture: LogisticMixture, params: Float[Array, "*s p"], x: Int[Array, "*s c"]
) -> Float[Array, "*s c q"]:
    """The parameters of `mixture` for each channel of a pixel given the channels before it.

    `params` are k logits that all channels share, k locations and k log scales for each channel,
    and k coefficients (before tanh) for each pair of channels: (1, 0), (2, 0), (2, 1), ….
    Earlier channels' values in [-1, 1], times the coefficients, shift a component's location
    (eq. 3). The components' weights are those given the earlier channels, pi_k p_k(x_0) … up to
    a factor: summed over channels, the log masses are that of the pixel under one mixture whose
    component all channels share, and any channel can be drawn given those before it. The
    parameters of channel d depend on none of x[d:], which may be unset.
    """
    k, channels = mixture.components, x.shape[-1]
    weights, locations, log_scales, coefficients = jnp.split(
        params, [k, k + k * channels, k + 2 * k * channels], -1
    )
    by_channel = (*params.shape[:-1], -1, k)
    locations, log_scales = locations.reshape(by_channel), log_scales.reshape(by_channel)
    coefficients = jnp.tanh(coefficients).reshape(by_channel)
    values = (x * (2.0 * mixture.component.half_bin) - 1.0)[..., None]
    out: list[Array] = []
    for d in range(channels):
        if d:
            weights = weights + mixture.component_log_probs(out[-1], x[..., d - 1])
        pairs = slice(d * (d - 1) // 2, d * (d + 1) // 2)
        shift = (coefficients[..., pairs, :] * values[..., :d, :]).sum(-2)
        out.append(
            jnp.concatenate([weights, locations[..., d, :] + shift, log_scales[..., d, :]], -1)
        )
    return jnp.stack(out, -2)
