"""Where images come from: the interface of a source, and how splits are carved from it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxgen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SPLITS = "train", "validation", "test"
MAX_CARVED = 10_000


class Example(NamedTuple):
    """One stored example."""

    where: str
    """What a message calls it."""
    image: "Image.Image | np.ndarray"
    """A stored picture, or levels uint8 [h w c] that are ready."""
    label: int
    """The class, or -1."""


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it is stored."""

    name: str
    """With the version, where there is one."""
    stamp: Any
    """Names the stored bytes, JSON-able: equal stamps, equal examples."""
    sizes: dict[str, int]
    """Number of examples of each stored split; train is one of them."""
    class_names: tuple[str, ...]
    """Empty when there are no labels."""
    levels: int | None
    """Number of levels of the stored images; None: judge by the values."""
    read: Callable[[str, np.ndarray], Iterable[Example]]
    """(split, ids) to those examples, in order."""
    rate: int = 0
    """Samples a second, where the examples are sounds."""
    note: str = ""
    """What the protocol says beside the sizes and the shape."""


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
