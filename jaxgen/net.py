"""Net: the arrays that one optimizer updates, and the pure functions that update them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from jaxgen.errors import UserError
from jaxgen.model import Batch, Metrics

Params = Any
"""A pytree of arrays, as Linen makes it."""

Precision = Literal["float32", "bfloat16"]
"""What a network computes in; its parameters are float32."""


@dataclass(frozen=True)
class Optimizer:
    """The optimizer of one network."""

    name: Literal["adam", "sgd"] = "adam"
    """adam: steps scaled by the gradient's moments; sgd: the gradient, with momentum."""
    learning_rate: float = 1e-3
    """Step size, before any decay."""
    b1: float = 0.9
    """Adam's first-moment decay, or SGD's momentum."""
    b2: float = 0.999
    """Adam's second-moment decay."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW), on arrays of two or more dimensions."""
    decay_steps: int = 0
    """Cosine decay of the learning rate to zero over this many steps; 0 = constant."""

    def __post_init__(self) -> None:
        if not self.learning_rate >= 0:
            raise UserError(
                f"--…optimizer.learning_rate must not be negative; got {self.learning_rate}"
            )
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1):
            raise UserError(f"--…optimizer.b1 and b2 must lie in [0, 1); got {self.b1}, {self.b2}")
        if self.weight_decay < 0 or self.decay_steps < 0:
            raise UserError("--…optimizer.weight_decay and decay_steps must not be negative")

    def make(self) -> optax.GradientTransformation:
        rate: Any = self.learning_rate
        if self.decay_steps:
            rate = optax.cosine_decay_schedule(self.learning_rate, self.decay_steps)
        if self.name == "sgd":
            return optax.chain(self._decay(), optax.sgd(rate, momentum=self.b1 or None))
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2), self._decay(), optax.scale_by_learning_rate(rate)
        )

    def _decay(self) -> optax.GradientTransformation:
        is_matrix = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
        return optax.add_decayed_weights(self.weight_decay, mask=is_matrix)


@flax.struct.dataclass
class Net:
    """One network's arrays."""

    params: Params
    stats: Params
    """BatchNorm's running statistics, or {}."""
    opt_state: Any

    @property
    def variables(self) -> dict[str, Params]:
        """What `module.apply` takes."""
        return variables(self.params, self.stats)


def variables(params: Params, stats: Params) -> dict[str, Params]:
    return {"params": params, "batch_stats": stats}


def apply_in(
    precision: Precision, module: nn.Module, values: dict[str, Params], *inputs: Any, **kwargs: Any
) -> Any:
    """`module.apply`, computed in that precision; what it returns is float32.

    Parameters and inputs are rounded to it, BatchNorm's statistics are not. The gradient passes
    through the rounding, so that of float32 parameters is float32.
    """
    rounded = {**values, "params": _cast(values["params"], precision)}
    outputs = module.apply(rounded, *_cast(inputs, precision), **kwargs)
    return _cast(outputs, "float32")


def _cast(tree: PyTree, precision: Precision) -> PyTree:
    """The tree with its floats in that precision."""

    def cast(leaf: Array) -> Array:
        return leaf.astype(precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def create(module: nn.Module, optimizer: Optimizer, key: Key[Array, ""], *inputs: Any) -> Net:
    """A Net for a Linen module, initialized on example inputs."""
    values = module.init(key, *inputs)
    params = values["params"]
    return Net(params, values.get("batch_stats", {}), optimizer.make().init(params))


def descend(optimizer: Optimizer, net: Net, grads: Params, stats: Params) -> Net:
    """The Net after one optimizer update, with new statistics."""
    updates, opt_state = optimizer.make().update(grads, net.opt_state, net.params)
    return Net(optax.apply_updates(net.params, updates), stats, opt_state)


def average(ema: PyTree, new: PyTree, decay: float, step: Array) -> PyTree:
    """Exponential moving average, warmed up: the decay at step t is min(decay, (1+t)/(10+t))."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, n: e + (1.0 - rate) * (n - e), ema, new)


def mean_over(axis_name: str | None, tree: PyTree) -> PyTree:
    """The average over the mapped axis, or the tree itself where there is none."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


@flax.struct.dataclass
class NetState:
    """State of a model with one network: what is trained, and its average, which is used."""

    net: Net
    ema: Params
    step: Array


def create_state(net: Net) -> NetState:
    return NetState(net, jax.tree.map(jnp.copy, net.params), jnp.zeros((), jnp.int32))


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
