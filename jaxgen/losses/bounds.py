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
    """

    def add(total: Array, i: Array) -> tuple[Array, None]:
        return jnp.logaddexp(total, log_weight(jax.random.fold_in(key, i))), None

    like = jax.eval_shape(log_weight, key)
    start = jnp.full(like.shape, -jnp.inf, like.dtype)
    total, _ = jax.lax.scan(jax.checkpoint(add), start, jnp.arange(k))
    return total - jnp.log(k)
