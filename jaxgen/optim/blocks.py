"""Nets whose blocks join the training one after another, each with an optimizer of its own: one
that joined Adam late would take a first step of 10 to 15 learning rates, by a count not its own."""

from collections.abc import Collection

import optax
from jaxtyping import Array

from jaxgen.optim.net import Net, Params, Variables, average, descend
from jaxgen.optim.optimizer import Optimizer


def apart(optimizer: Optimizer, net: Net) -> Net:
    """The Net with an optimizer's state for each block: each entry of its parameters."""
    make = optimizer.make()
    return Net(net.variables, {name: make.init(block) for name, block in net.params.items()})


def descend_blocks(
    optimizer: Optimizer,
    net: Net,
    grads: Params,
    others: Variables,
    step: int | Array,
    blocks: Collection[str],
) -> Net:
    """The Net, whose blocks are `apart`, after one update of those named; the others pass through
    untouched, their optimizers too."""
    moved = {
        name: descend(optimizer, _block(net, name), grads[name], {}, step)
        for name in sorted(blocks)
    }
    params = {**net.params, **{name: block.params for name, block in moved.items()}}
    states = {**net.opt_state, **{name: block.opt_state for name, block in moved.items()}}
    return Net({**net.having(params), **others}, states)


def average_blocks(
    ema: Variables, new: Variables, decay: float, step: int | Array, blocks: Collection[str]
) -> Variables:
    """The moving average with the blocks named moved towards the new ones; the others pass through
    untouched, and collections beside the parameters are the new ones."""
    params = {
        name: average(block, new["params"][name], decay, step) if name in blocks else block
        for name, block in ema["params"].items()
    }
    return {**new, "params": params}


def _block(net: Net, name: str) -> Net:
    state: optax.OptState = net.opt_state[name]
    return Net({"params": net.params[name]}, state)
