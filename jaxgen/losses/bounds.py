"""Bounds of the log-likelihood, per example, in nats."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree


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


def log_mean_exp(log_weight: Float[Array, "k b"]) -> Float[Array, " b"]:
    """log (1/k) sum_i w_i of k log weights; each counts in its gradient by its share."""
    return jax.nn.logsumexp(log_weight, axis=0) - jnp.log(len(log_weight))


def doubly_reparameterized_bound(
    log_weight: Callable[[PyTree, Float[Array, "k b z"]], tuple[Float[Array, "k b"], Any]],
    variables: PyTree,
    z: Float[Array, "k b z"],
) -> tuple[Float[Array, " b"], Any]:
    """L_k of k draws of z per example, with the gradient of Tucker et al. 2019 (arXiv:1810.04152,
    equation 7), which does not drown in noise as k grows; and the second part of what `log_weight`
    returns, beside the log weights.

    By the variables, a draw's gradient counts by its share of the weights; by z, by the share's
    square. That is right for the parameters of q where they act through z alone: `log_weight` is to
    stop their gradient in log q(z | x). With one draw it is that of Roeder et al. 2017
    (arXiv:1703.09194): exactly zero where q is the posterior.
    """
    weigh, closed = jax.closure_convert(log_weight, variables, z)

    @jax.custom_vjp
    def bound(variables: PyTree, z: Array, closed: list[Array]) -> tuple[Array, Any]:
        log_w, aux = weigh(variables, z, *closed)
        return log_mean_exp(log_w), aux

    def forward(variables: PyTree, z: Array, closed: list[Array]) -> tuple[Any, Any]:
        log_w, pull, aux = jax.vjp(weigh, variables, z, *closed, has_aux=True)
        return (log_mean_exp(log_w), aux), (pull, jax.nn.softmax(log_w, axis=0))

    def backward(kept: Any, cotangents: tuple[Array, Any]) -> tuple[PyTree, Array, list[Array]]:
        pull, share = kept
        by_variables, by_z, *others = pull(share * cotangents[0][None])
        return by_variables, by_z * share[..., None], others

    bound.defvjp(forward, backward)
    return bound(variables, z, closed)
