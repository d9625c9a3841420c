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
    encoder: Callable[[Float[Array, " b"]], Float[Array, " b"]]
    """The loss, on real examples, of a player that makes a part of them, such as their codes: the
    generator's, with real and fake exchanged."""


def _neg(x: Array) -> Array:
    return -x


def _same(x: Array) -> Array:
    return x


# log D = -softplus(-logit) and log(1 - D) = -softplus(logit): finite at any logit.
ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {
    # Goodfellow et al. 2014, arXiv:1406.2661, eq. 1: min_G max_D E log D(x) + E log(1 - D(G(z)))
    "minimax": AdversarialLoss(
        real=lambda logit: jax.nn.softplus(-logit),
        fake=jax.nn.softplus,
        generator=lambda logit: -jax.nn.softplus(logit),
        encoder=lambda logit: -jax.nn.softplus(-logit),
    ),
    # The same, section 3: the generator maximizes log D(G(z)) instead.
    "nonsaturating": AdversarialLoss(
        real=lambda logit: jax.nn.softplus(-logit),
        fake=jax.nn.softplus,
        generator=lambda logit: jax.nn.softplus(-logit),
        encoder=jax.nn.softplus,
    ),
    # Mao et al. 2017, arXiv:1611.04076, eq. 9 (a = 0, b = c = 1).
    "least_squares": AdversarialLoss(
        real=lambda logit: 0.5 * (logit - 1.0) ** 2,
        fake=lambda logit: 0.5 * logit**2,
        generator=lambda logit: 0.5 * (logit - 1.0) ** 2,
        encoder=lambda logit: 0.5 * logit**2,
    ),
    # Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16-17.
    "hinge": AdversarialLoss(
        real=lambda logit: jax.nn.relu(1.0 - logit),
        fake=lambda logit: jax.nn.relu(1.0 + logit),
        generator=_neg,
        encoder=_same,
    ),
    # Arjovsky et al. 2017, arXiv:1701.07875, eq. 2 and 3: logits are a critic's values.
    "wasserstein": AdversarialLoss(real=_neg, fake=_same, generator=_neg, encoder=_same),
}
SMOOTHED = ("minimax", "nonsaturating", "least_squares")
"""Those with a target for real examples, which can be less than 1."""


def smoothed(name: str, by: float) -> AdversarialLoss:
    """The loss of that name, one of `SMOOTHED` unless `by` is 0, whose target for real examples is
    1 - by: one-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498, section 3.4)."""
    loss = ADVERSARIAL_LOSSES[name]
    if not by:
        return loss
    if name == "least_squares":
        return loss._replace(real=lambda logit: 0.5 * (logit - (1.0 - by)) ** 2)
    # The cross-entropy to a target between the two.
    return loss._replace(real=lambda logit: (1.0 - by) * loss.real(logit) + by * loss.fake(logit))
