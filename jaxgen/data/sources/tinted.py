"""Digits in colours: the smallest set of colour images, and one whose colours can be told."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from jaxgen.data.sources.base import Example, Source

LUMA = np.array([0.299, 0.587, 0.114])
"""What red, green and blue weigh, in ITU-R 601."""


def hues(num: int) -> NDArray[np.float64]:
    """Returns as many colours [n 3] in 0..1, evenly around the circle about the middle grey in the
    plane of one luma: their grey copies are all alike."""
    blue = np.array([-LUMA[2], -LUMA[2], LUMA[0] + LUMA[1]])
    red = np.array([LUMA[1], -LUMA[0], 0.0])
    angles = 2 * np.pi * np.arange(num)[:, None] / num
    around = np.cos(angles) * blue / np.abs(blue).max() + np.sin(angles) * red / np.abs(red).max()
    return 0.5 + 0.5 * around / np.abs(around).max()


def tinted(single: Source) -> Source:
    """Returns the images of `single`, which has one channel and classes, white in them being a
    colour of each class."""
    from PIL import Image

    colours = hues(len(single.class_names))

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for example in single.read(split, ids):
            shades = np.asarray(example.x)[..., None] * colours[example.label]
            image = Image.fromarray(np.floor(shades + 0.5).astype(np.uint8))
            yield example._replace(where=f"tinted {example.where}", x=image)

    return Source(
        name=f"tinted_{single.name}",
        stamp=f"tinted {single.stamp}",
        sizes=single.sizes,
        class_names=single.class_names,
        levels=single.levels,
        read=read,
        note="each class in a colour of its own, all of one luma",
    )
