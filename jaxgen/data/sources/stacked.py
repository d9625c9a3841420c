"""Three digits in the three channels of one image: a thousand modes that can be counted.

After the stacked MNIST of Metz et al. 2017 (arXiv:1611.02163, section 3.3.1), of the embedded
digits.
"""

from collections.abc import Iterable

import numpy as np

from jaxgen.data.sources.base import Example, Source
from jaxgen.data.splits import SPLITS

CHANNELS = 3
SIZES = {"train": 20_000, "validation": 2000, "test": 5000}


def stacked(single: Source) -> Source:
    """Returns images whose channels are images of `single`, which has one channel, each drawn
    anew from the same split.

    Image i of a split is a function of (split, i) alone. Its label is the classes of its channels
    as the places of one number, the first channel's first.
    """
    classes = len(single.class_names)
    kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def images(split: str) -> tuple[np.ndarray, np.ndarray]:
        if split not in kept:
            examples = [*single.read(split, np.arange(single.sizes[split]))]
            x = np.stack([np.asarray(example.x) for example in examples])
            kept[split] = x, np.array([example.label for example in examples])
        return kept[split]

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        x, label = images(split)
        for i in ids:
            chosen = np.random.default_rng((SPLITS.index(split), int(i))).integers(
                len(x), size=CHANNELS
            )
            number = np.ravel_multi_index(tuple(label[chosen]), (classes,) * CHANNELS)
            image = np.moveaxis(x[chosen], 0, -1)
            yield Example(f"stacked {single.name} {split} image {i}", image, int(number))

    names = single.class_names
    return Source(
        name=f"stacked_{single.name}",
        stamp=f"stacked {single.stamp}",
        sizes=SIZES,
        class_names=tuple(f"{a}{b}{c}" for a in names for b in names for c in names),
        levels=single.levels,
        read=read,
        note=f"each channel an image of {single.name} of the same split, drawn by itself",
        channel_classes=classes,
    )
