"""Divergences, bounds, adversarial losses and penalties; per example, in nats."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def bits_per_dim(nats: Float[Array, "*b"] | float, dims: int) -> Float[Array, "*b"] | float:
    """Nats per image as bits per sub-pixel: nats / (dims ln 2)."""
    return nats / (dims * 0.6931471805599453)


def kl_standard_normal(
    mean: Float[Array, "*b z"], logvar: Float[Array, "*b z"]
) -> Float[Array, "*b z"]:
    """KL(N(mean, exp(logvar)) || N(0, 1)) per latent, in nats (Kingma & Welling 2014, app. B)."""
    return 0.5 * (jnp.exp(logvar) + mean**2 - 1.0 - logvar)


def normal_log_prob(
    z: Float[Array, "*b"], mean: Float[Array, "*b"] | float, logvar: Float[Array, "*b"] | float
) -> Float[Array, "*b"]:
    """log N(z; mean, exp(logvar)), elementwise, in nats."""
    return -0.5 * (jnp.log(2 * jnp.pi) + logvar + (z - mean) ** 2 * jnp.exp(-logvar))


def importance_weighted_bound(
    log_weight: Callable[[Key[Array, ""]], Float[Array, " b"]], key: Key[Array, ""], k: int
) -> Float[Array, " b"]:
    """L_k = E log (1/k) sum_i w_i in nats (Burda et al. 2016, arXiv:1509.00519, eq. 8).

    `log_weight` returns log p(x, z) - log q(z | x) for one draw of z. The weights are summed in a
    scan with rematerialization, so memory is flat in k, for the value and for its gradient.
    """

    def add(total: Array, i: Array) -> tuple[Array, None]:
        return jnp.logaddexp(total, log_weight(jax.random.fold_in(key, i))), None

    like = jax.eval_shape(log_weight, key)
    start = jnp.full(like.shape, -jnp.inf, like.dtype)
    total, _ = jax.lax.scan(jax.checkpoint(add), start, jnp.arange(k))
    return total - jnp.log(k)


class AdversarialLoss(NamedTuple):
    """A two-player game in logits; both players minimize, per example."""

    real: Callable[[Float[Array, " b"]], Float[Array, " b"]]
    """The discriminator's loss on real examples."""
    fake: Callable[[Float[Array, " b"]], Float[Array, " b"]]
    """The discriminator's loss on generated examples."""
    generator: Callable[[Float[Array, " b"]], Float[Array, " b"]]
    """The generator's loss."""


def _neg(x: Array) -> Array:
    return -x


# log D = -softplus(-logit) and log(1 - D) = -softplus(logit): finite at any logit.
ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {
    # Goodfellow et al. 2014, arXiv:1406.2661, eq. 1: min_G max_D E log D(x) + E log(1 - D(G(z)))
    "minimax": AdversarialLoss(
        real=lambda logit: jax.nn.softplus(-logit),
        fake=jax.nn.softplus,
        generator=lambda logit: -jax.nn.softplus(logit),
    ),
    # The same, section 3: the generator maximizes log D(G(z)) instead.
    "nonsaturating": AdversarialLoss(
        real=lambda logit: jax.nn.softplus(-logit),
        fake=jax.nn.softplus,
        generator=lambda logit: jax.nn.softplus(-logit),
    ),
    # Mao et al. 2017, arXiv:1611.04076, eq. 9 (a = 0, b = c = 1).
    "lsgan": AdversarialLoss(
        real=lambda logit: 0.5 * (logit - 1.0) ** 2,
        fake=lambda logit: 0.5 * logit**2,
        generator=lambda logit: 0.5 * (logit - 1.0) ** 2,
    ),
    # Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16-17.
    "hinge": AdversarialLoss(
        real=lambda logit: jax.nn.relu(1.0 - logit),
        fake=lambda logit: jax.nn.relu(1.0 + logit),
        generator=_neg,
    ),
}


def gradient_penalty_r1(
    discriminator: Callable[[Float[Array, "b *s"]], Float[Array, " b"]], real: Float[Array, "b *s"]
) -> Float[Array, " b"]:
    """|grad_x D(x)|^2 per real example (Mescheder et al. 2018, arXiv:1801.04406, eq. 9).

    The gradient of the summed logits is per example only if the discriminator treats examples
    apart: no BatchNorm.
    """
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(real)
    return jnp.sum(gradient**2, axis=tuple(range(1, real.ndim)))
