"""A source's examples -> arrays of levels or real numbers, and the digest that names them."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import TypedDict

import numpy as np

from jaxgen.data.chunks import CHUNK
from jaxgen.data.config import DataConfig
from jaxgen.data.points import bins
from jaxgen.data.sources.base import Source
from jaxgen.data.sources.images import to_array
from jaxgen.data.splits import Part, Split, carve
from jaxgen.errors import UserError

Allocate = Callable[[str, tuple[int, ...], type], np.ndarray]
"""(name, shape, dtype) to an array to fill: in memory, or in a file."""


class Meta(TypedDict):
    """What is known of the arrays beside their values; JSON-able."""

    stored_levels: int
    """0 = real numbers, as in `DataSpec`."""
    levels: int
    digest: str
    done: dict[str, int]
    """What had to be done to examples, and to how many (see `Example.done`)."""


def build(source: Source, config: DataConfig, allocate: Allocate) -> tuple[dict[str, Split], Meta]:
    """Returns the three splits after --grey, --size and --levels, in constant memory."""
    parts, _ = carve(source.name, source.sizes, source.what)
    [example] = source.read("train", np.array([0]))
    like = example.where, to_array(example.x, config, example.where)
    seen, done = np.zeros(256, bool), Counter[str]()
    splits = {}
    for name, part in parts.items():
        splits[name] = _allocate(name, part, like[1], bool(source.class_names), allocate)
        _fill(splits[name], part, source, config, like, seen, done)
    stored = _count_levels(seen) if source.levels is None else source.levels
    levels = config.levels or stored
    if levels > stored > 0:
        raise UserError(f"--levels={levels} is more than the {stored} levels of {source.name}")
    if source.ranges and stored not in (0, levels):
        # A bin that is cut has no one width.
        raise UserError(f"--levels={levels}: {source.name} has {stored} bins already; leave it out")
    if levels and not stored and not source.ranges:
        raise UserError(
            f"--levels={levels}: {source.name} holds images of real numbers; store levels as uint8"
        )
    if stored == 0 and levels:
        splits = {name: Split.of(bins(s.x, levels), s.label) for name, s in splits.items()}
    elif levels != stored or stored not in (0, 256):
        _quantize(splits, stored, levels)
    return splits, Meta(stored_levels=stored, levels=levels, digest=digest(splits), done=dict(done))


def _allocate(name: str, part: Part, like: np.ndarray, labelled: bool, allocate: Allocate) -> Split:
    num = len(part.ids)
    x = allocate(f"{name}_images", (num, *like.shape), like.dtype.type)
    return Split.of(x, allocate(f"{name}_labels", (num,), np.int32) if labelled else None)


def _fill(
    split: Split,
    part: Part,
    source: Source,
    config: DataConfig,
    like: tuple[str, np.ndarray],
    seen: np.ndarray,
    done: Counter[str],
) -> None:
    """Reads the part into the split, marks in `seen` [256] the levels that occur, and counts what
    is `done`."""
    from tqdm import tqdm

    examples = source.read(part.stored, part.ids)
    # disable=None: no bar unless stderr is a terminal.
    bar = tqdm(examples, f"decoding {source.name}", len(part.ids), leave=False, disable=None)
    for i, (where, stored, label, steps) in enumerate(bar):
        x = to_array(stored, config, where)
        if x.shape != like[1].shape:
            raise UserError(
                f"images differ in size: {like[0]} is {_size(like[1].shape)} and {where} is "
                f"{_size(x.shape)}; give --size=N to make all of them N x N"
            )
        split.x[i] = x
        done.update(steps)
        if source.levels is None:
            seen[x] = True
        if split.label is not None:
            split.label[i] = label


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _count_levels(seen: np.ndarray) -> int:
    """2 when the pixels of all splits take the values 0 and 1, or 0 and 255, alone; else 256."""
    return 2 if np.flatnonzero(seen).tolist() in ([0, 1], [0, 255]) else 256


def _quantize(splits: dict[str, Split], stored: int, levels: int) -> None:
    """Maps values to floor(x levels / stored), in place."""
    # The minimum makes 255 of a binary set 1, and undoes what Lanczos overshoots.
    table = (np.minimum(np.arange(256), stored - 1) * levels // stored).astype(np.uint8)
    for split in splits.values():
        for start in range(0, len(split), CHUNK):
            split.x[start : start + CHUNK] = table[split.x[start : start + CHUNK]]


def digest(splits: dict[str, Split]) -> str:
    """The sha256 of all arrays."""
    sha = hashlib.sha256()
    for name, split in splits.items():
        sha.update(f"{name} {split.x.shape} {split.label is not None} ".encode())
        for start in range(0, len(split), CHUNK):
            sha.update(split.x[start : start + CHUNK].tobytes())
        if split.label is not None:
            sha.update(split.label.astype("<i4").tobytes())
    return sha.hexdigest()
