"""Batches for many steps at a time: gathered on the device where the data fits, else streamed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from jaxgen.data import Dataset, indices
from jaxgen.model import Batch
from jaxgen.parallel import AXIS, WHOLE, put

RESIDENT_BYTES = 2**30
"""A train split up to this size is kept on every device."""

STEPS = PartitionSpec(None, AXIS)
"""[steps examples ...]: the examples are split over the devices."""


class Feed:
    """The train split as `chunk`s of up to `capacity` steps; a function of (seed, step) alone."""

    def __init__(
        self, dataset: Dataset, seed: int, examples: int, mesh: Mesh, capacity: int
    ) -> None:
        """`examples` is the number that one step consumes over all devices."""
        self._dataset, self._seed, self._examples = dataset, seed, examples
        self._mesh, self.capacity = mesh, capacity
        self._split = dataset.splits["train"]
        self._labelled = dataset.spec.num_classes > 0
        indices(seed, 0, examples, len(self._split.images))
        self.resident = self._split.images.nbytes <= RESIDENT_BYTES
        self._store = put(mesh, WHOLE, self._gather(slice(None))) if self.resident else {}

    def _gather(self, ids: Any) -> dict[str, np.ndarray]:
        found = {"image": np.ascontiguousarray(self._split.images[ids])}
        if self._labelled:
            assert self._split.labels is not None
            found["label"] = self._split.labels[ids]
        return found

    @property
    def specs(self) -> dict[str, Any]:
        """How each array of a chunk is split over the mesh."""
        names = ("image", "label") if self._labelled else ("image",)
        where = WHOLE if self.resident else STEPS
        return {"id": STEPS, "epoch": STEPS, "index": STEPS, **dict.fromkeys(names, where)}

    def chunk(self, first: int, count: int) -> dict[str, Array]:
        """What steps first..first+count-1 see, padded to `capacity` steps."""
        shape = (self.capacity, self._examples)
        ids, epochs = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for i in range(count):
            ids[i], epochs[i] = indices(
                self._seed, first + i, self._examples, len(self._split.images)
            )
        index = np.broadcast_to(np.arange(self._examples, dtype=np.int32), shape)
        chunk = put(self._mesh, STEPS, {"id": ids, "epoch": epochs, "index": np.array(index)})
        if self.resident:
            return chunk | self._store
        return chunk | put(self._mesh, STEPS, self._gather(ids))

    def batch(self, chunk: dict[str, Array], i: Array) -> Batch:
        """Step i of a chunk, inside the compiled program: this device's share of the batch."""
        ids, epochs = chunk["id"][i], chunk["epoch"][i]
        at = ids if self.resident else i
        batch: dict[str, Array] = {
            name: chunk[name][at] for name in ("image", "label") if name in chunk
        }
        batch["image"] = self._dataset.observe(batch["image"], ids, epochs)
        return {**batch, "index": chunk["index"][i]}


def full_batch(split_images: np.ndarray, labels: np.ndarray | None, num: int) -> Batch:
    """The first `num` examples of a split as one batch."""
    images = jnp.asarray(np.asarray(split_images[:num]))
    batch: dict[str, jax.Array] = {"image": images, "index": jnp.arange(len(images))}
    if labels is not None:
        batch["label"] = jnp.asarray(labels[:num])
    return batch
