"""The three splits, and how those that are not stored are carved from train."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from jaxgen.errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one split, as named arrays."""

    columns: Mapping[str, np.ndarray]
    """x [n h w c] (levels uint8, or floats), label int32 [n] where there are labels, and what else
    a data set holds of each example; arrays may be memory-mapped."""
    apart: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Columns of other examples: each with a length, and in training an order, of its own."""

    @classmethod
    def of(cls, x: np.ndarray, label: np.ndarray | None = None, **more: np.ndarray) -> Self:
        """The split of these columns; without a label, it has none."""
        return cls({"x": x, **({} if label is None else {"label": label}), **more})

    @property
    def x(self) -> np.ndarray:
        """[n h w c]"""
        return self.columns["x"]

    @property
    def label(self) -> np.ndarray | None:
        """int32 [n]; None when there are no labels."""
        return self.columns.get("label")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, ids: np.ndarray | slice) -> dict[str, np.ndarray]:
        """The columns of these examples, in memory."""
        return {name: np.ascontiguousarray(a[ids]) for name, a in self.columns.items()}


SPLITS = "train", "validation", "test"
MAX_CARVED = 10_000


class Part(NamedTuple):
    """One of the three splits, as a part of a stored one."""

    stored: str
    ids: np.ndarray


def carve(
    name: str, sizes: dict[str, int], what: str = "images", least: int = 2
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Returns the parts called train, validation and test of stored splits of those sizes, and
    which of them were carved.

    A split that is not stored is carved from train: min(10000, n // 6) examples, at least 1,
    by a permutation with seed 0. Parts keep the stored order. Raises UserError, which says `name`
    and `what`, unless `least` are left in train and one or more are in the others.
    """
    carved = tuple(split for split in ("test", "validation") if split not in sizes)
    num = sizes["train"]
    take = min(MAX_CARVED, max(1, num // 6))
    if num < least + take * len(carved) or 0 in sizes.values():
        raise UserError(
            f"{name} has too few {what} for a train, a validation and a test split ("
            + ", ".join(f"{split} {size}" for split, size in sizes.items())
            + f"): give train {least + len(carved)} at least"
            + "".join(f", {split} 1" for split in sizes if split != "train")
        )
    parts = {split: Part(split, np.arange(sizes[split])) for split in SPLITS if split in sizes}
    order = np.random.default_rng(0).permutation(num)
    for k, split in enumerate(carved):
        parts[split] = Part("train", np.sort(order[k * take : (k + 1) * take]))
    parts["train"] = Part("train", np.sort(order[take * len(carved) :]))
    return {split: parts[split] for split in SPLITS}, carved
