"""A data set as the trainer sees it, and binarization."""

from dataclasses import dataclass

from jaxtyping import Array, Int, UInt8

from jaxgen.data.binarize import Draw, draw_once
from jaxgen.data.splits import SPLITS, Split
from jaxgen.spec import ImageSpec


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one shape in three splits."""

    name: str
    """With the version, where there is one: mnist:3.0.1."""
    spec: ImageSpec
    """What the model is to produce; 2 levels after any binarization."""
    splits: dict[str, Split]
    """train, validation and test; train is still grey under --binarize=dynamic."""
    class_names: tuple[str, ...]
    """Empty when there are no labels."""
    fingerprint: str
    """sha256 of everything that a model sees: images, labels, levels, binarization."""
    protocol: str
    """One line to print beside every number that was measured on this data."""
    dynamic: Draw | None = None
    """How the train split is binarized anew in every epoch."""

    def observe(
        self,
        images: UInt8[Array, "b h w c"],
        index: Int[Array, " b"],
        epoch: Int[Array, " b"],
    ) -> UInt8[Array, "b h w c"]:
        """Returns what the model sees of these train images, `index` being their places.

        Pure, and may be compiled; the identity unless binarization is dynamic.
        """
        if self.dynamic is None:
            return images
        return self.dynamic(SPLITS.index("train"), images, index, epoch)

    def materialize(self, split: str) -> Split:
        """Returns what the model sees of a whole split: of a dynamic train split, epoch 0."""
        if self.dynamic is None or split != "train":
            return self.splits[split]
        return draw_once(self.dynamic, split, self.splits[split])
