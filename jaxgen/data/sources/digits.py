"""The embedded data set: 1,797 handwritten digits, 8x8 pixels, 17 levels."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxgen.data.sources.base import Example, Source

# In stored order, so that figures compare with the literature: the last 447 images were
# written by people who wrote none of the others.
OFFSETS = {"train": (0, 1000), "validation": (1000, 1350), "test": (1350, 1797)}


def digits() -> Source:
    """Returns scikit-learn's copy of the UCI optical digits test set (Alpaydin & Kaynak, 1998)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for i in ids + OFFSETS[split][0]:
            yield Example(f"digits example {i}", Image.fromarray(images[i]), int(labels[i]))

    return Source(
        name="digits",
        stamp="digits",
        sizes={name: stop - start for name, (start, stop) in OFFSETS.items()},
        class_names=tuple(str(name) for name in bunch.target_names),
        levels=17,
        read=read,
    )
