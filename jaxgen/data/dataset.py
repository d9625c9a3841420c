"""A data set as the trainer sees it, and what is done to its examples on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Int

from jaxgen.data.binarize import APART, Draw, draw_once, drawn
from jaxgen.data.pairing import Pairing
from jaxgen.data.splits import SPLITS, Split
from jaxgen.spec import DataSpec

TRAIN = SPLITS.index("train")

NAMED = 20
"""At most as many classes are named in a line."""

Density = Callable[[np.ndarray], np.ndarray]
"""Points [n d] in the data's own units to log densities [n], in nats."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data of one shape in three splits."""

    name: str
    """With the version, where there is one: mnist:3.0.1."""
    spec: DataSpec
    """What the model is to produce; 2 levels after any binarization."""
    splits: dict[str, Split]
    """train, validation and test. The train split is as it is before `observe`: still grey under
    --binarize=dynamic, and without what a pairing makes."""
    class_names: tuple[str, ...]
    """Empty when there are no labels."""
    fingerprint: str
    """sha256 of everything that a model sees: data, labels, levels, binarization, pairing."""
    protocol: str
    """One line to print beside every number that was measured on this data."""
    dynamic: Draw | None = None
    """How the train split is binarized anew in every epoch."""
    pairing: Pairing | None = None
    """How sources are made from x, or from what stands apart in the train split as `source`."""
    density: Density | None = None
    """The true log density, where it is known."""
    modes: np.ndarray | None = None
    """The centres [m d] of its modes in the data's own units, where they are known."""
    channel_classes: int = 0
    """The classes that each channel has of its own (see `Source.channel_classes`); 0 = none."""

    @property
    def labels(self) -> str:
        """Which class each label is, in one line; nothing where a model is told none, or where the
        classes are called by their numbers."""
        names = self.class_names[: self.spec.num_classes]
        if names == tuple(map(str, range(len(names)))):
            return ""
        named = ", ".join(f"{i} = {name}" for i, name in enumerate(names[:NAMED]))
        return f"labels: {named}{', …' * (len(names) > NAMED)}"

    def observe(
        self, columns: Mapping[str, Array], index: Int[Array, " b"], epoch: Int[Array, " b"]
    ) -> dict[str, Array]:
        """Returns what the model sees of these columns of train examples, `index` being their
        places: x binarized where that is dynamic, and the source where a pairing makes it.

        Pure, and may be compiled.
        """
        seen = dict(columns)
        if self.dynamic is not None:
            seen["x"] = self.dynamic(TRAIN, seen["x"], index, epoch)
            if self.pairing is not None and "source" in seen:
                seen["source"] = self.dynamic(APART, seen["source"], index, epoch)
        if self.pairing is not None:
            seen["source"] = self.pairing.make(seen.get("source", seen["x"]))
        return seen

    def materialize(self, split: str) -> Split:
        """Returns what the model sees of a whole split: of the train split, in epoch 0."""
        made = self.splits[split]
        if split != "train":
            return made
        if self.dynamic is not None:
            made = draw_once(self.dynamic, split, made)
        if self.pairing is None:
            return made
        if "source" not in made.apart:
            return Split({**made.columns, "source": self.pairing.made(made.x)}, made.apart)
        source = made.apart["source"]
        if self.dynamic is not None:
            source = drawn(self.dynamic, APART, source)
        return Split(made.columns, {**made.apart, "source": self.pairing.made(source)})
