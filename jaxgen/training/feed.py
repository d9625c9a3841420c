"""Batches for many steps at a time: gathered on the device where the data fits, else streamed."""

from typing import Any

import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from jaxgen.data.dataset import Dataset
from jaxgen.data.shuffle import indices
from jaxgen.model import Batch
from jaxgen.parallel.mesh import AXIS, WHOLE, put

RESIDENT_BYTES = 2**30
"""A train split up to this size is kept on every device."""

STREAM_BYTES = 2**27
"""A chunk of streamed images is at most this large, or one step: about two live at a time, one
being trained on while the host gathers the next."""

STEPS = PartitionSpec(None, AXIS)
"""[steps examples ...]: the examples are split over the devices."""


class Feed:
    """The train split as `chunk`s of up to `capacity` steps; a function of (seed, step) alone.

    With several seeds, what differs between them has a leading axis for them.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        examples: int,
        mesh: Mesh,
        capacity: int,
        seeds: int = 1,
    ) -> None:
        """`examples` is the number that one step of a seed consumes over all devices; `capacity`
        the most steps asked of a chunk; the seeds are seed, seed + 1, ..."""
        self._dataset, self._seed, self._examples = dataset, seed, examples
        self._mesh, self.seeds = mesh, seeds
        self._own = STEPS if seeds == 1 else PartitionSpec(None, *STEPS)
        self._split = dataset.splits["train"]
        self._labelled = dataset.spec.num_classes > 0
        indices(seed, 0, examples, len(self._split.images))
        self.resident = self._split.images.nbytes <= RESIDENT_BYTES
        step_bytes = seeds * examples * self._split.images[:1].nbytes
        most = capacity if self.resident else max(1, STREAM_BYTES // step_bytes)
        self.capacity = min(capacity, most)
        """Steps that a chunk holds."""
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
        where = WHOLE if self.resident else self._own
        own = {"id": self._own, "epoch": self._own}
        return {**own, "index": STEPS, **dict.fromkeys(names, where)}

    @property
    def axes(self) -> dict[str, int | None]:
        """Where the axis of several seeds is in each array of a chunk; None: they share it."""
        shared = {"index"} | (set(self._store) if self.resident else set())
        return {name: None if name in shared else 0 for name in self.specs}

    def chunk(self, first: int, count: int) -> dict[str, Array]:
        """What steps first..first+count-1 see, padded to `capacity` steps."""
        shape = (self.capacity, self._examples)
        ids, epochs = np.zeros((2, self.seeds, *shape), np.int32)
        for s in range(self.seeds):
            for i in range(count):
                ids[s, i], epochs[s, i] = indices(
                    self._seed + s, first + i, self._examples, len(self._split.images)
                )
        if self.seeds == 1:
            ids, epochs = ids[0], epochs[0]
        index = np.broadcast_to(np.arange(self._examples, dtype=np.int32), shape)
        chunk = put(self._mesh, self._own, {"id": ids, "epoch": epochs})
        chunk |= put(self._mesh, STEPS, {"index": np.array(index)})
        if self.resident:
            return chunk | self._store
        return chunk | put(self._mesh, self._own, self._gather(ids))

    def batch(self, chunk: dict[str, Array], i: Array) -> Batch:
        """Step i of a chunk, inside the compiled program: this device's share of the batch."""
        ids, epochs = chunk["id"][i], chunk["epoch"][i]
        at = ids if self.resident else i
        batch: dict[str, Array] = {
            name: chunk[name][at] for name in ("image", "label") if name in chunk
        }
        batch["image"] = self._dataset.observe(batch["image"], ids, epochs)
        return {**batch, "index": chunk["index"][i]}
