"""Exact means over a split, and samples in bounded memory."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jaxgen.data.splits import Split
from jaxgen.model import Batch, Model
from jaxgen.parallel.compiling import compiler_options
from jaxgen.parallel.mesh import AXIS, SPLIT, WHOLE, data_parallel, put

CHUNK = 100
"""Images that a device samples at a time."""


@functools.lru_cache(maxsize=16)
def _eval_step(model: Model, mesh: Mesh) -> Callable[..., dict[str, Array]]:
    options = compiler_options(model.convolutional)
    return data_parallel(model.eval_step, mesh, (WHOLE, WHOLE, SPLIT), SPLIT, options=options)


def per_example(
    model: Model, mesh: Mesh, key: Key[Array, ""], state: Any, split: Split, batch_size: int
) -> dict[str, np.ndarray]:
    """The model's evaluation metrics for every example of a split, float64 [n] on the host.

    The last batch is filled up by repeating examples, which are then dropped: it counts exactly.
    Noise is a function of (key, place in the split), so the batch size changes nothing.
    """
    num = len(split.images)
    size = -(-min(batch_size, num) // mesh.size) * mesh.size
    step = _eval_step(model, mesh)
    parts = []
    for start in range(0, num, size):
        ids = np.arange(start, start + size, dtype=np.int32) % num
        batch = {"image": np.asarray(split.images[ids]), "index": ids}
        if model.spec.num_classes:
            assert split.labels is not None
            batch["label"] = split.labels[ids]
        parts.append(step(key, state, put(mesh, SPLIT, batch)))
    joined = {name: [np.asarray(part[name], np.float64) for part in parts] for name in parts[0]}
    return {name: np.concatenate(values)[:num] for name, values in joined.items()}


def mean_and_error(values: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of each metric, and under `<name>_se` the standard error of that mean."""
    result = {}
    for name, value in values.items():
        result[name] = float(value.mean())
        result[f"{name}_se"] = float(value.std(ddof=1) / np.sqrt(len(value)))
    return result


@functools.lru_cache(maxsize=16)
def _sample_step(model: Model, mesh: Mesh, num: int) -> Callable[..., Array]:
    def step(key: Any, state: Any, label: Any, temperature: Any, start: Any) -> Array:
        start = start + jax.lax.axis_index(AXIS) * num
        return model.sample(key, state, num, label, temperature, start)

    return data_parallel(step, mesh, (WHOLE, WHOLE, SPLIT, WHOLE, WHOLE), SPLIT)


def samples(
    model: Model,
    mesh: Mesh,
    key: Key[Array, ""],
    state: Any,
    num: int,
    label: np.ndarray | None = None,
    temperature: float = 1.0,
) -> Iterator[np.ndarray]:
    """Yields samples 0..num-1 in chunks, uint8 [n h w c]; the chunks' size changes no image."""
    step = _sample_step(model, mesh, _share(mesh, num))
    for start, ids in _chunks(mesh, num):
        part = None if label is None else put(mesh, SPLIT, label[ids])
        images = step(key, state, part, jnp.float32(temperature), jnp.int32(start))
        yield np.asarray(images)[: num - start]


@functools.lru_cache(maxsize=16)
def _complete_step(model: Any, mesh: Mesh, num: int) -> Callable[..., Array]:
    def step(key: Any, state: Any, given: Any, temperature: Any, start: Any) -> Array:
        start = start + jax.lax.axis_index(AXIS) * num
        image, known, label = given
        return model.complete(key, state, image, known, label, temperature, start)

    return data_parallel(step, mesh, (WHOLE, WHOLE, SPLIT, WHOLE, WHOLE), SPLIT)


def completions(
    model: Any,
    mesh: Mesh,
    key: Key[Array, ""],
    state: Any,
    image: np.ndarray,
    known: np.ndarray,
    label: np.ndarray | None = None,
    temperature: float = 1.0,
) -> Iterator[np.ndarray]:
    """Yields the images [n h w c], completed by a model that `Completes`, in chunks like those of
    `samples`."""
    num = len(image)
    step = _complete_step(model, mesh, _share(mesh, num))
    for start, ids in _chunks(mesh, num):
        given = put(mesh, SPLIT, (image[ids], known[ids], None if label is None else label[ids]))
        images = step(key, state, given, jnp.float32(temperature), jnp.int32(start))
        yield np.asarray(images)[: num - start]


def _share(mesh: Mesh, num: int) -> int:
    """Images that each device makes at a time."""
    return min(CHUNK, -(-num // mesh.size))


def _chunks(mesh: Mesh, num: int) -> Iterator[tuple[int, np.ndarray]]:
    """The first index of each chunk, and all of them; the last one is filled up by repeating."""
    size = _share(mesh, num) * mesh.size
    for start in range(0, num, size):
        yield start, np.minimum(np.arange(start, start + size), num - 1)


def draw(model: Model, mesh: Mesh, key: Key[Array, ""], state: Any, num: int) -> np.ndarray:
    """Samples 0..num-1 at temperature 1, every class in turn, uint8 [num h w c]."""
    return np.concatenate(list(samples(model, mesh, key, state, num)))


def full_batch(split_images: np.ndarray, labels: np.ndarray | None, num: int) -> Batch:
    """The first `num` examples of a split as one batch."""
    images = jnp.asarray(np.asarray(split_images[:num]))
    batch: dict[str, jax.Array] = {"image": images, "index": jnp.arange(len(images))}
    if labels is not None:
        batch["label"] = jnp.asarray(labels[:num])
    return batch


Score = Callable[[np.ndarray], dict[str, float]]
"""Metrics of samples, uint8 [n h w c]: for models that have no likelihood to validate by."""
