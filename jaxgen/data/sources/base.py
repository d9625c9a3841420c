"""Where images come from: the interface of a source, and how splits are carved from it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


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
