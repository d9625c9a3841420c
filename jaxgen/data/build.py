"""A source's examples -> arrays of levels, and the digest that names them."""

import hashlib
from collections.abc import Callable
from typing import TypedDict

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Source
from jaxgen.data.sources.images import to_array
from jaxgen.data.splits import Part, Split, carve
from jaxgen.errors import UserError

CHUNK = 1024

Allocate = Callable[[str, tuple[int, ...], type], np.ndarray]
"""(name, shape, dtype) to an array to fill: in memory, or in a file."""


class Meta(TypedDict):
    """What is known of the arrays beside their values; JSON-able."""

    stored_levels: int
    levels: int
    digest: str


def build(source: Source, config: DataConfig, allocate: Allocate) -> tuple[dict[str, Split], Meta]:
    """Returns the three splits after --grey, --size and --levels, in constant memory."""
    parts, _ = carve(source.name, source.sizes)
    [example] = source.read("train", np.array([0]))
    model = example.where, to_array(example.image, config, example.where).shape
    seen = np.zeros(256, bool)
    splits = {}
    for name, part in parts.items():
        splits[name] = _allocate(name, part, model[1], bool(source.class_names), allocate)
        _fill(splits[name], part, source, config, model, seen)
    stored = source.levels or _count_levels(seen)
    levels = config.levels or stored
    if levels > stored:
        raise UserError(f"--levels={levels} is more than the {stored} levels of {source.name}")
    digest = _quantize(splits, stored, levels)
    return splits, Meta(stored_levels=stored, levels=levels, digest=digest)


def _allocate(
    name: str, part: Part, shape: tuple[int, ...], labelled: bool, allocate: Allocate
) -> Split:
    num = len(part.ids)
    images = allocate(f"{name}_images", (num, *shape), np.uint8)
    return Split(images, allocate(f"{name}_labels", (num,), np.int32) if labelled else None)


def _fill(
    split: Split,
    part: Part,
    source: Source,
    config: DataConfig,
    model: tuple[str, tuple[int, ...]],
    seen: np.ndarray,
) -> None:
    """Reads the part into the split, and marks in `seen` [256] the values that occur."""
    from tqdm import tqdm

    examples = source.read(part.stored, part.ids)
    # disable=None: no bar unless stderr is a terminal.
    bar = tqdm(examples, f"decoding {source.name}", len(part.ids), leave=False, disable=None)
    for i, (where, image, label) in enumerate(bar):
        x = to_array(image, config, where)
        if x.shape != model[1]:
            raise UserError(
                f"images differ in size: {model[0]} is {_size(model[1])} and {where} is "
                f"{_size(x.shape)}; give --size=N to make all of them N x N"
            )
        split.images[i] = x
        seen[x] = True
        if split.labels is not None:
            split.labels[i] = label


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _count_levels(seen: np.ndarray) -> int:
    """2 when the pixels of all splits take the values 0 and 1, or 0 and 255, alone; else 256."""
    return 2 if np.flatnonzero(seen).tolist() in ([0, 1], [0, 255]) else 256


def _quantize(splits: dict[str, Split], stored: int, levels: int) -> str:
    """Maps values to floor(x levels / stored), in place; returns the sha256 of all arrays."""
    # The minimum makes 255 of a binary set 1, and undoes what Lanczos overshoots.
    table = (np.minimum(np.arange(256), stored - 1) * levels // stored).astype(np.uint8)
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {split.images.shape} {split.labels is not None} ".encode())
        for start in range(0, len(split.images), CHUNK):
            chunk = table[split.images[start : start + CHUNK]]
            if (stored, levels) != (256, 256):
                split.images[start : start + CHUNK] = chunk
            digest.update(chunk.tobytes())
        if split.labels is not None:
            digest.update(split.labels.astype("<i4").tobytes())
    return digest.hexdigest()
