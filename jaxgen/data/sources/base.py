"""Where examples come from: the interface of a source."""

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
    x: "Image.Image | np.ndarray"
    """A stored picture; or [h w c] that is ready, levels uint8 or real numbers float32."""
    label: int
    """The class, or -1."""
    done: tuple[str, ...] = ()
    """What had to be done to it, for the protocol: images of what kind, and what became of them."""


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
    """Number of levels of what is stored; None: judge by the values; 0: real numbers."""
    read: Callable[[str, np.ndarray], Iterable[Example]]
    """(split, ids) to those examples, in order."""
    rate: int = 0
    """Samples a second, where the examples are sounds."""
    what: str = "images"
    """What a message calls the examples."""
    note: str = ""
    """What the protocol says beside the sizes and the shape."""
    ranges: tuple[tuple[float, float], ...] = ()
    """What -1 and 1 stand for in each coordinate, where the examples are points."""
    density: Callable[[np.ndarray], np.ndarray] | None = None
    """The log density in nats of points [n d] in the data's own units, where it is known."""
    modes: np.ndarray | None = None
    """The centres [m d] of its modes, where they are known."""
    channel_classes: int = 0
    """The classes that each channel has of its own, where every one is a picture by itself; the
    label is those of all channels as the places of one number."""
    source: "Source | None" = None
    """What the examples are made from, where that is stored too."""
    paired: bool = False
    """Whether `source` has an example for each of these, in the same order; else it is apart."""
    alike: str = ""
    """Where both must have one shape: how to mend it when they differ."""
