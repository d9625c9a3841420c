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

Variables = dict[str, Any]
"""All collections of a Linen module: params, and batch_stats, spectral, … where it has them."""

Precision = Literal["float32", "bfloat16"]
"""What a network computes in; its parameters are float32."""


@flax.struct.dataclass
class Net:
    """One network's arrays."""

    variables: Variables
    """What `module.apply` takes."""
    opt_state: Any

    @property
    def params(self) -> Params:
        """What the optimizer moves."""
        return self.variables["params"]

    def having(self, params: Params) -> Variables:
        """The variables with other parameters."""
        return {**self.variables, "params": params}


def apply_in(
    precision: Precision, module: nn.Module, values: Variables, *inputs: Any, **kwargs: Any
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
    return Net(dict(values), optimizer.make().init(values["params"]))


def descend(
    optimizer: Optimizer, net: Net, grads: Params, others: Variables, step: int | Array
) -> Net:
    """The Net after one optimizer update at that step of the run, with the collections that
    `others` names replaced: BatchNorm's statistics, …"""
    updates, opt_state = optimizer.make().update(grads, net.opt_state, net.params)
    rate = optimizer.rate(step)
    updates = jax.tree.map(lambda u: -rate * u, updates)
    return Net({**net.having(optax.apply_updates(net.params, updates)), **others}, opt_state)


def average(ema: PyTree, new: PyTree, decay: float, step: int | Array) -> PyTree:
    """Exponential moving average, warmed up: the decay at step t is min(decay, (1+t)/(10+t)).

    What is not a float is that of `new`.
    """
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def toward(n: Array, e: Array) -> Array:
        floating = jnp.issubdtype(n.dtype, jnp.floating)
        return optax.incremental_update(n, e, rate) if floating else n

    return jax.tree.map(toward, new, ema)


@flax.struct.dataclass
class NetState:
    """State of a model with one network: what is trained, and its average, which is used."""

    net: Net
    ema: Variables
    """Moving average of every collection of the network."""


def create_state(net: Net) -> NetState:
    return NetState(net, jax.tree.map(jnp.copy, net.variables))
