"""Batches for many steps at a time: gathered on the device where the data fits, else streamed."""

from typing import Any

import jax.numpy as jnp
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
"""A chunk of streamed images, or of the numbers of resident ones, is at most this large, or one
step: about two live at a time, one being trained on while the host gathers the next."""

STEPS = PartitionSpec(None, AXIS)
"""[steps examples ...]: the examples are split over the devices."""


class Feed:
    """The train split as `chunk`s of up to `capacity` steps; a function of (seed, example number)
    alone.

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
        split = dataset.splits["train"]
        self._orders = _orders(dataset)
        self._columns = {**split.columns, **split.apart}
        if not dataset.spec.num_classes:
            self._columns.pop("label", None)
        bytes_of = lambda take: sum(take(a).nbytes for a in self._columns.values())  # noqa: E731
        self.resident = bytes_of(lambda a: a) <= RESIDENT_BYTES
        numbers = 4 * (1 + 2 * len(self._orders))  # int32: the index, and each order's two
        each = numbers if self.resident else bytes_of(lambda a: a[:1])
        self.capacity = min(capacity, max(1, STREAM_BYTES // (seeds * examples * each)))
        """Steps that a chunk holds."""
        self._store = put(mesh, WHOLE, self._whole()) if self.resident else {}

    def _whole(self) -> dict[str, np.ndarray]:
        return {name: np.ascontiguousarray(a) for name, a in self._columns.items()}

    @property
    def specs(self) -> dict[str, Any]:
        """How each array of a chunk is split over the mesh."""
        where = WHOLE if self.resident else self._own
        own = {f"{what}{order}": self._own for order in self._orders for what in ("id", "epoch")}
        return {**own, "index": STEPS, **dict.fromkeys(self._columns, where)}

    @property
    def axes(self) -> dict[str, int | None]:
        """Where the axis of several seeds is in each array of a chunk; None: they share it."""
        shared = {"index"} | (set(self._store) if self.resident else set())
        return {name: None if name in shared else 0 for name in self.specs}

    def chunk(self, first_example: int, count: int) -> dict[str, Array]:
        """What `count` steps see from that example of the order on, padded to `capacity` steps."""
        shape = (self.capacity, self._examples)
        own: dict[str, np.ndarray] = {}
        for stream, (order, num) in enumerate(self._orders.items()):
            both = np.zeros((2, self.seeds, *shape), np.int32)
            for s in range(self.seeds):
                number = count * self._examples
                taken = indices(self._seed + s, first_example, number, num, stream)
                both[:, s, :count] = np.stack(taken).reshape(2, count, -1)
            own[f"id{order}"], own[f"epoch{order}"] = both[:, 0] if self.seeds == 1 else both
        index = np.broadcast_to(np.arange(self._examples, dtype=np.int32), shape)
        chunk = put(self._mesh, self._own, own) | put(self._mesh, STEPS, {"index": np.array(index)})
        if self.resident:
            return chunk | self._store
        gathered = {
            name: np.ascontiguousarray(column[own[f"id{self._order_of(name)}"]])
            for name, column in self._columns.items()
        }
        return chunk | put(self._mesh, self._own, gathered)

    def batch(self, chunk: dict[str, Array], i: Array) -> Batch:
        """Step i of a chunk, inside the compiled program: this device's share of the batch."""
        columns = {
            name: chunk[name][chunk[f"id{self._order_of(name)}"][i] if self.resident else i]
            for name in self._columns
        }
        seen = self._dataset.observe(columns, chunk["id"][i], chunk["epoch"][i])
        return {**seen, "index": chunk["index"][i]}

    def _order_of(self, column: str) -> str:
        """The order that a column is in: its own where it is apart, else that of the examples."""
        return f":{column}" if f":{column}" in self._orders else ""


def _orders(dataset: Dataset) -> dict[str, int]:
    """The orders in which examples are taken, and how many examples each has: "" of the columns
    that belong together, and :NAME of each column that is apart."""
    split = dataset.splits["train"]
    return {"": len(split), **{f":{name}": len(a) for name, a in split.apart.items()}}


def first_examples(dataset: Dataset, seed: int, num: int) -> Batch:
    """The first examples of a run's order as the model sees them, for its initial values."""
    split, orders = dataset.splits["train"], _orders(dataset)
    taken = {
        order: indices(seed, 0, num, length, stream)
        for stream, (order, length) in enumerate(orders.items())
    }
    ids, epochs = taken[""]
    columns = split.take(ids) | {n: a[taken[f":{n}"][0]] for n, a in split.apart.items()}
    if not dataset.spec.num_classes:
        columns.pop("label", None)
    seen = dataset.observe(
        {name: jnp.asarray(x) for name, x in columns.items()}, jnp.asarray(ids), jnp.asarray(epochs)
    )
    return {**seen, "index": jnp.arange(num)}
