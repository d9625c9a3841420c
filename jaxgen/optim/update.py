"""One step down a loss, averaged over examples, parts and devices."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, PyTree
from optax.microbatching import AccumulationType, microbatch

from jaxgen.model import Batch, Metrics
from jaxgen.optim.net import NetState, Variables, average, descend
from jaxgen.optim.optimizer import Optimizer


def mean_over(axis_name: str | None, tree: PyTree) -> PyTree:
    """The average over the mapped axis, or the tree itself where there is none."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def gather_over(axis_name: str | None, tree: PyTree) -> PyTree:
    """All devices' examples [b …] of the mapped axis, one after another as the batch has them:
    the same on every device, and in the order of their index."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), tree)


Loss = Callable[[Variables, Batch], tuple[Array, tuple[Metrics, Variables]]]
"""(variables, batch) -> (scalar, (metrics, collections that changed)), means over the batch."""


def train_net(
    optimizer: Optimizer,
    ema_decay: float,
    state: NetState,
    loss: Loss,
    batch: Batch,
    step: int | Array,
    axis_name: str | None,
    parts: int = 1,
) -> tuple[NetState, Metrics]:
    """One step down a loss; it is averaged over the examples, those of all parts of the batch and
    of the axis, and so are its metrics and the collections that it changes (BatchNorm's
    statistics). The norm of the gradients is one more metric.

    Likelihood losses are in nats per image, not per dimension: per dimension, the gradients of
    a 28x28 VAE's weaker latents fall to Adam's epsilon, and most of them never become active.
    """
    means = mean_over(axis_name, _gradients(loss, state.net.variables, batch, parts))
    metrics, others, grads = means
    metrics = {**metrics, "grad_norm": optax.tree.norm(grads)}
    net = descend(optimizer, state.net, grads, others, step)
    return NetState(net, average(state.ema, net.variables, ema_decay, step)), metrics


def _gradients(loss: Loss, variables: Variables, batch: Batch, parts: int) -> Any:
    """(metrics, changed collections, gradients) of the batch, taken in equal parts one after
    another.

    Part i has the examples i, i + parts, ...: the same ones on any number of devices.
    """

    def one(part: Batch) -> Any:
        def of(params: Any) -> Any:
            return loss({**variables, "params": params}, part)

        grads, (metrics, others) = jax.grad(of, has_aux=True)(variables["params"])
        return metrics, others, grads

    if parts == 1:
        return one(batch)
    size = len(next(iter(batch.values()))) // parts
    return microbatch(one, 0, size, AccumulationType.MEAN)(batch)
