"""The three splits, and how those that are not stored are carved from train."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxgen.errors import UserError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one split."""

    images: np.ndarray
    """uint8 [n h w c], integer levels; it may be memory-mapped."""
    labels: np.ndarray | None
    """int32 [n]; None when there are no labels."""


SPLITS = "train", "validation", "test"
MAX_CARVED = 10_000


class Part(NamedTuple):
    """One of the three splits, as a part of a stored one."""

    stored: str
    ids: np.ndarray


def carve(
    name: str, sizes: dict[str, int], what: str = "images"
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Returns the parts called train, validation and test of stored splits of those sizes, and
    which of them were carved.

    A split that is not stored is carved from train: min(10000, n // 6) examples, at least 1,
    by a permutation with seed 0. Parts keep the stored order. A message says `name` and `what`.
    """
    carved = tuple(split for split in ("test", "validation") if split not in sizes)
    num = sizes["train"]
    take = min(MAX_CARVED, max(1, num // 6))
    if num <= take * len(carved) or 0 in sizes.values():
        raise UserError(
            f"{name} has too few {what} for a train, a validation and a test split: "
            + ", ".join(f"{split} {size}" for split, size in sizes.items())
        )
    parts = {split: Part(split, np.arange(sizes[split])) for split in SPLITS if split in sizes}
    order = np.random.default_rng(0).permutation(num)
    for k, split in enumerate(carved):
        parts[split] = Part("train", np.sort(order[k * take : (k + 1) * take]))
    parts["train"] = Part("train", np.sort(order[take * len(carved) :]))
    return {split: parts[split] for split in SPLITS}, carved
