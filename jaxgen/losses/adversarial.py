"""Adversarial losses, per example, in logits."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float


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
