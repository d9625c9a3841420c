"""Bounds of the log-likelihood, per example, in nats."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def importance_weighted_bound(
    log_weight: Callable[[Key[Array, ""]], Float[Array, " b"]], key: Key[Array, ""], k: int
) -> Float[Array, " b"]:
    """L_k = E log (1/k) sum_i w_i in nats (Burda et al. 2016, arXiv:1509.00519, eq. 8).

    `log_weight` returns log p(x, z) - log q(z | x) for one draw of z. The weights are summed in a
    scan with rematerialization, so memory is flat in k, for the value and for its gradient.

    What runs along is the largest log weight and the sum of the weights over it: a running
    log-sum-exp of log weights near -10,000, which float32 holds to a thousandth, would stand still.
    """

    def add(sums: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        largest, total = sums
        log_w = log_weight(jax.random.fold_in(key, i))
        # Of no effect on the sum, and so none on its gradient.
        new = jax.lax.stop_gradient(jnp.maximum(largest, log_w))
        over = jnp.where(jnp.isfinite(new), new, 0.0)
        return (new, total * jnp.exp(largest - over) + jnp.exp(log_w - over)), None

    like = jax.eval_shape(log_weight, key)
    start = jnp.full(like.shape, -jnp.inf, like.dtype), jnp.zeros(like.shape, like.dtype)
    (largest, total), _ = jax.lax.scan(jax.checkpoint(add), start, jnp.arange(k))
    return jnp.where(jnp.isfinite(largest), largest, 0.0) + jnp.log(total) - jnp.log(k)
