"""Net: the arrays that one optimizer updates, and the pure functions that update them."""

from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from jaxgen.optim.optimizer import Optimizer

Params = Any
"""A pytree of arrays, as Linen makes it."""

Precision = Literal["float32", "bfloat16"]
"""What a network computes in; its parameters are float32."""


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


@flax.struct.dataclass
class NetState:
    """State of a model with one network: what is trained, and its average, which is used."""

    net: Net
    ema: Params
    step: Array


def create_state(net: Net) -> NetState:
    return NetState(net, jax.tree.map(jnp.copy, net.params), jnp.zeros((), jnp.int32))
