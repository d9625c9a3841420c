"""Normal distributions: log-probability, KL, noise by example, and great circles."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.model import example_keys


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


def normal_like(key: Key[Array, ""], index: Int[Array, " b"], shape: tuple[int, ...]) -> Array:
    """Standard normal noise [b, *shape], example by example (see `example_keys`)."""
    return jax.vmap(lambda k: jax.random.normal(k, shape))(example_keys(key, index))


def interpolate(
    a: Float[Array, "n z"], b: Float[Array, "n z"], steps: int
) -> Float[Array, "n steps z"]:
    """Latents from a to b along great circles, at lengths that a normal prior makes likely.

    White 2016, arXiv:1609.04468: a straight line would pass near the origin, where the prior of a
    high-dimensional normal puts no mass.
    """
    norm = lambda v: jnp.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    cosine = jnp.sum(a * b, -1, keepdims=True) / (norm(a) * norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))[:, None]
    t = jnp.linspace(0.0, 1.0, steps)[None, :, None]
    left, right = jnp.sin((1 - t) * angle), jnp.sin(t * angle)
    return (left * a[:, None] + right * b[:, None]) / jnp.sin(angle)
