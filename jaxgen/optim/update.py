"""One step down a loss, averaged over examples, parts and devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from jaxgen.model import Batch, Metrics
from jaxgen.optim.net import NetState, Params, average, descend
from jaxgen.optim.optimizer import Optimizer


def mean_over(axis_name: str | None, tree: PyTree) -> PyTree:
    """The average over the mapped axis, or the tree itself where there is none."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


Loss = Callable[[Params, Batch], tuple[Array, Metrics]]
"""(params, batch) -> (scalar, metrics), means over the batch."""


def train_net(
    optimizer: Optimizer,
    ema_decay: float,
    state: NetState,
    loss: Loss,
    batch: Batch,
    axis_name: str | None,
    parts: int = 1,
) -> tuple[NetState, Metrics]:
    """One step down a loss; it is averaged over the examples, those of all parts of the batch and
    of the axis, and so are its metrics. The norm of the gradients is one more metric.

    Likelihood losses are in nats per image, not per dimension: per dimension, the gradients of
    a 28x28 VAE's weaker latents fall to Adam's epsilon, and most of them never become active.
    """
    metrics, grads = mean_over(axis_name, _gradients(loss, state.net.params, batch, parts))
    metrics = {**metrics, "grad_norm": optax.tree.norm(grads)}
    net = descend(optimizer, state.net, grads, state.net.stats)
    ema = average(state.ema, net.params, ema_decay, state.step)
    return NetState(net, ema, state.step + 1), metrics


def _gradients(loss: Loss, params: Params, batch: Batch, parts: int) -> tuple[Metrics, Params]:
    """The metrics and gradients of the batch, taken in equal parts one after another.

    Part i has the examples i, i + parts, ...: the same ones on any number of devices.
    """

    def one(part: Batch) -> tuple[Metrics, Params]:
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, part)
        return metrics, grads

    if parts == 1:
        return one(batch)

    def add(total: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, one(part)), None

    split = {name: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1) for name, x in batch.items()}
    shapes = jax.eval_shape(one, {name: x[0] for name, x in split.items()})
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, split)
    return jax.tree.map(lambda x: x / parts, total)
