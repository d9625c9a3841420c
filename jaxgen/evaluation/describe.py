"""What a model is made of, before it is trained."""

from typing import Any

import jax
import numpy as np

from jaxgen.evaluation.flops import flops
from jaxgen.media.kinds import ONE
from jaxgen.optim.net import Net
from jaxgen.runs.config import Run


def describe(run: Run, protocol: str) -> str:
    """Parameters, FLOPs (see `flops`), and what the family is asked for, in plain text."""
    model = run.model.at(0)
    key, size, one = jax.random.key(0), run.train.batch_size, ONE[model.spec.kind]
    state = jax.eval_shape(model.init, key, model.spec.shapes(size))
    step = jax.ShapeDtypeStruct((), np.int32)
    many = model.spec.shapes(model.minibatches * size)
    train = flops(model.train_step, key, state, many, step) / size
    evaluate = flops(model.eval_step, key, state, model.spec.shapes(size)) / size
    lines = [
        f"{run.name}: {(type(model).__doc__ or '').strip().splitlines()[0]}",
        f"data          {protocol}",
        *(f"parameters    {_count(net.params):,}{where}" for where, net in _nets(state)),
        f"train step    {_flop(train)} per {one} of a batch of {size}",
        f"evaluation    {_flop(evaluate)} per {one}",
        *(f"{name:13s} {value}" for name, value in model.facts().items()),
    ]
    return "\n".join(lines)


def _flop(number: float) -> str:
    return f"{number / 1e6:,.1f} MFLOP" if number >= 1e5 else f"{number / 1e3:,.1f} kFLOP"


def parameters(state: Any) -> int:
    """The number of trained parameters in a model's state."""
    return sum(_count(net.params) for _, net in _nets(state))


def _nets(state: Any) -> list[tuple[str, Net]]:
    """The nets in a state, each with the name of where it is."""
    is_net = lambda x: isinstance(x, Net)  # noqa: E731
    leaves = jax.tree_util.tree_leaves_with_path(state, is_leaf=is_net)
    return [(f" ({jax.tree_util.keystr(p).strip('.')})", x) for p, x in leaves if is_net(x)]


def _count(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
