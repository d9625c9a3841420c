"""Exact means over a split, and whatever a model is able to do, in bounded memory."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jaxgen.data.splits import Split
from jaxgen.model import Batch, Model, Request
from jaxgen.parallel.compiling import compiler_options
from jaxgen.parallel.mesh import AXIS, SPLIT, WHOLE, data_parallel, put
from jaxgen.spec import DataSpec

CHUNK = 100
"""Examples that a device works on at a time."""

Score = Callable[[np.ndarray], dict[str, float]]
"""Metrics of samples [n h w c]: for models that have no likelihood to validate by."""

Ability = Literal[
    "sample",
    "complete",
    "draw_latents",
    "decode",
    "encode",
    "embed",
    "log_weight",
    "log_unnormalized",
    "log_partition",
    "translate",
]
"""What `mapped` can run."""


def examples(split: Split, spec: DataSpec, ids: np.ndarray | slice) -> dict[str, np.ndarray]:
    """What a model of that spec is shown of these examples of a split, without their index."""
    names = ["x"] + ["label"] * (spec.num_classes > 0) + ["source"] * (spec.source is not None)
    columns = {**split.columns, **split.apart}
    missing = [name for name in names if name not in columns]
    assert not missing, f"the data has no {', '.join(missing)}"
    # Columns that are apart have a length of their own, and are gone through from the start again.
    return {
        name: np.ascontiguousarray(
            columns[name][ids if name in split.columns else np.arange(len(split))[ids] % len(a)]
        )
        for name, a in ((name, columns[name]) for name in names)
    }


def first_batch(split: Split, spec: DataSpec, num: int) -> Batch:
    """The first `num` examples of a split as one batch."""
    columns = {name: jnp.asarray(x) for name, x in examples(split, spec, slice(num)).items()}
    return {**columns, "index": jnp.arange(len(columns["x"]))}


@functools.lru_cache(maxsize=16)
def _eval_step(model: Model, mesh: Mesh) -> Callable[..., dict[str, Array]]:
    options = compiler_options(model.convolutional)
    return data_parallel(model.eval_step, mesh, (WHOLE, WHOLE, SPLIT), SPLIT, options=options)


def per_example(
    model: Model, mesh: Mesh, key: Key[Array, ""], state: Any, split: Split, batch_size: int
) -> dict[str, np.ndarray]:
    """The model's evaluation metrics for every example of a split, float64 [n] on the host.

    The last batch is filled up by repeating examples, which are then dropped: it counts exactly.
    Noise is a function of (key, place in the split), and examples that are judged together stay
    together, so the batch size and the number of devices change nothing.
    """
    num, step, parts = len(split), _eval_step(model, mesh), []
    shares = mesh.size * model.multiple
    size = -(-min(batch_size, num) // shares) * shares
    for start in range(0, num, size):
        ids = np.arange(start, start + size, dtype=np.int32) % num
        batch = {**examples(split, model.spec, ids), "index": ids}
        parts.append(step(key, state, put(mesh, SPLIT, batch)))
    joined = {name: [np.asarray(part[name], np.float64) for part in parts] for name in parts[0]}
    return {name: np.concatenate(values)[:num] for name, values in joined.items()}


def mean_and_error(values: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of each metric, and under `<name>_se` the standard error of that mean; one example
    has none, which is NaN."""
    result = {}
    for name, value in values.items():
        result[name], num = float(value.mean()), len(value)
        result[f"{name}_se"] = float(value.std(ddof=1) / np.sqrt(num)) if num > 1 else math.nan
    return result


def _call(
    model: Any, what: Ability, way: str, key: Any, state: Any, given: Any, scalars: Any, num: int
) -> Array:
    """One device's share of `mapped`: `num` examples from number scalars["start"] on."""
    start, label = scalars["start"], given.get("label")
    request = Request(label, scalars["temperature"], start)
    match what:
        case "sample":
            return model.sample(key, state, num, request)
        case "complete":
            return model.complete(key, state, given["x"], given["known"], request)
        case "draw_latents":
            return model.draw_latents(key, state, num, label, start)
        case "decode":
            return model.decode(key, state, given["z"], label, start)
        case "translate":
            return model.translate(key, state, given["source"], label, way, start)
        case "log_partition":
            return model.log_partition(key, state, num, start)
        case "embed" | "log_unnormalized":
            return getattr(model, what)(state, given)
    batch = {**given, "index": start + jnp.arange(num)}
    return getattr(model, what)(key, state, batch)


@functools.lru_cache(maxsize=16)
def _mapped_step(model: Any, mesh: Mesh, what: Ability, way: str, num: int) -> Callable[..., Array]:
    def step(key: Any, state: Any, given: Any, scalars: Any) -> Array:
        first = scalars["start"] + jax.lax.axis_index(AXIS) * num
        return _call(model, what, way, key, state, given, {**scalars, "start": first}, num)

    return data_parallel(step, mesh, (WHOLE, WHOLE, SPLIT, WHOLE), SPLIT)


def mapped(
    model: Any,
    what: Ability,
    mesh: Mesh,
    key: Key[Array, ""],
    state: Any,
    num: int,
    given: Mapping[str, np.ndarray | None] | None = None,
    temperature: float = 1.0,
    way: str = "forth",
) -> Iterator[np.ndarray]:
    """Yields what the model's ability makes of examples 0..num-1, in chunks; their size changes no
    value.

    `given` has the arrays that it takes, leading axis `num`: label, and x, known, z or source
    (for encode, embed and log_weight, the columns of a batch). None = not given.
    """
    arrays = {name: x for name, x in (given or {}).items() if x is not None}
    share = min(CHUNK, -(-num // mesh.size))
    step = _mapped_step(model, mesh, what, way, share)
    size = share * mesh.size
    for start in range(0, num, size):
        # The last chunk is filled up by repeating.
        ids = np.minimum(np.arange(start, start + size), num - 1)
        part = put(mesh, SPLIT, {name: x[ids] for name, x in arrays.items()})
        scalars = {"start": jnp.int32(start), "temperature": jnp.float32(temperature)}
        yield np.asarray(step(key, state, part, scalars))[: num - start]


def joined(*args: Any, **kwargs: Any) -> np.ndarray:
    """All that `mapped` yields, as one array."""
    return np.concatenate(list(mapped(*args, **kwargs)))


def draw(model: Model, mesh: Mesh, key: Key[Array, ""], state: Any, num: int) -> np.ndarray:
    """Samples 0..num-1 at temperature 1, every class in turn, [num h w c]."""
    return joined(model, "sample", mesh, key, state, num)
