"""Normal distributions: log-probability, KL, noise by example, and great circles."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxgen.model import example_keys


def kl_standard_normal(
    mean: Float[Array, "*b z"], logvar: Float[Array, "*b z"]
) -> Float[Array, "*b z"]:
    """KL(N(mean, exp(logvar)) || N(0, 1)) per latent, in nats (Kingma & Welling 2014, app. B)."""
    return 0.5 * (jnp.exp(logvar) + mean**2 - 1.0 - logvar)


def kl_normal(
    mean: Float[Array, "*b z"],
    logvar: Float[Array, "*b z"],
    other_mean: Float[Array, "*b z"],
    other_logvar: Float[Array, "*b z"],
) -> Float[Array, "*b z"]:
    """KL(N(mean, exp(logvar)) || N(other_mean, exp(other_logvar))) per latent, in nats."""
    over = (mean - other_mean) * jnp.exp(-0.5 * other_logvar)
    return kl_standard_normal(over, logvar - other_logvar)


def normal_log_prob(
    z: Float[Array, "*b"], mean: Float[Array, "*b"] | float, logvar: Float[Array, "*b"] | float
) -> Float[Array, "*b"]:
    """log N(z; mean, exp(logvar)), elementwise, in nats."""
    return -0.5 * (jnp.log(2 * jnp.pi) + logvar + (z - mean) ** 2 * jnp.exp(-logvar))


def normal_like(key: Key[Array, ""], index: Int[Array, " b"], shape: tuple[int, ...]) -> Array:
    """Standard normal noise [b, *shape], example by example (see `example_keys`)."""
    return jax.vmap(lambda k: jax.random.normal(k, shape))(example_keys(key, index))


def interpolate(
    a: Float[Array, "n z"], b: Float[Array, "n z"], steps: int, groups: Sequence[int] = ()
) -> Float[Array, "n steps z"]:
    """Latents from a to b along great circles, at lengths that a normal prior makes likely; parts
    of z of the sizes `groups` each for itself.

    White 2016, arXiv:1609.04468: a straight line would pass near the origin, where the prior of a
    high-dimensional normal puts no mass. Direction and length change apart, each evenly. Where
    there is no great circle, or every one is as good, since a and b point the same way, or opposite
    ways, or one is zero, the way is the straight line.
    """
    t = jnp.linspace(0.0, 1.0, steps)[None, :, None]
    at = np.cumsum(groups, dtype=int)[:-1]
    parts = zip(jnp.split(a, at, -1), jnp.split(b, at, -1), strict=True)
    return jnp.concatenate([_great_circle(*part, t) for part in parts], -1)


FLAT = 1e-3
"""The sine of an angle, to 0 or to half a turn, below which it counts as that."""


def _great_circle(a: Array, b: Array, t: Array) -> Array:
    """The ways [n t z] of one part."""
    norm = lambda v: jnp.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    a, b = a[:, None], b[:, None]
    from_length, to_length = norm(a), norm(b)
    some = jnp.minimum(from_length, to_length) > 0
    left, right = a / jnp.where(some, from_length, 1.0), b / jnp.where(some, to_length, 1.0)
    # Not by arccos, which near 0 and half a turn loses half of the digits.
    angle = 2 * jnp.arctan2(norm(left - right), norm(left + right))
    bent = some & (jnp.sin(angle) > FLAT)
    turned = jnp.sin((1 - t) * angle) * left + jnp.sin(t * angle) * right
    direction = turned / jnp.where(bent, jnp.sin(angle), 1.0)
    length = (1 - t) * from_length + t * to_length
    return jnp.where(bent, length * direction, (1 - t) * a + t * b)
