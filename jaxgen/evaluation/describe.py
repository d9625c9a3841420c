"""What a model is made of, before it is trained."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.model import Model
from jaxgen.optim.net import Net
from jaxgen.runs.config import Run


def describe(run: Run, protocol: str) -> str:
    """Parameters, FLOPs per image (XLA's own count), and what the family is asked for."""
    model = run.model
    key = jax.random.key(0)
    state = jax.eval_shape(model.init, key)
    lines = [
        f"{run.name}: {(type(model).__doc__ or '').strip().splitlines()[0]}",
        f"data          {protocol}",
        *(f"parameters    {_count(net.params):,}{where}" for where, net in _nets(state)),
    ]
    size = run.train.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, *model.spec.shape), jnp.uint8),
        "index": jax.ShapeDtypeStruct((size,), jnp.int32),
    }
    if model.spec.num_classes:
        batch["label"] = jax.ShapeDtypeStruct((size,), jnp.int32)
    many = {
        name: jax.ShapeDtypeStruct((model.minibatches * size, *x.shape[1:]), x.dtype)
        for name, x in batch.items()
    }
    train = _flops(in_one_piece(model).train_step, key, state, many) / size
    evaluate = _flops(model.eval_step, key, state, batch) / size
    lines += [
        f"train step    {train / 1e6:,.1f} MFLOP per image of a batch of {size}",
        f"evaluation    {evaluate / 1e6:,.1f} MFLOP per image",
        *(f"{name:13s} {value}" for name, value in model.facts().items()),
    ]
    return "\n".join(lines)


def in_one_piece(model: Model) -> Model:
    """The model whose step has no loop over parts or blocks: XLA counts a loop's body once."""
    whole: dict[str, Any] = {"accumulate": 1, "remat": False}
    return dataclasses.replace(model, **{n: v for n, v in whole.items() if hasattr(model, n)})


def parameters(state: Any) -> int:
    """The number of trained parameters in a model's state."""
    return sum(_count(net.params) for _, net in _nets(state))


def _nets(state: Any) -> list[tuple[str, Net]]:
    is_net = lambda x: isinstance(x, Net)  # noqa: E731
    found = jax.tree_util.tree_leaves_with_path(state, is_leaf=is_net)
    return [(f" ({jax.tree_util.keystr(p).strip('.')})", x) for p, x in found if is_net(x)]


def _count(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def _flops(function: Any, *args: Any) -> float:
    cost = jax.jit(function).lower(*args).cost_analysis()
    return float((cost or {}).get("flops", float("nan")))
