"""A user's own arrays as a data set."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.data.points import Ranges, bins, from_units, ranges_of
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.splits import SPLITS
from jaxgen.errors import UserError

Stored = Mapping[str, Mapping[str, Any]]
"""Columns by split: {"train": {"x": …, "label": …}, "test": …}."""


def array_source(
    name: str,
    stored: Stored,
    levels: int | None = None,
    class_names: Sequence[str] = (),
    paired: bool = True,
    coordinates: Sequence[str] = (),
) -> Source:
    """Returns arrays as a data set; splits that are missing are carved from train.

    x is images [n h w c] or [n h w]: integers 0..levels-1 (None: 2 levels where the values are
    0 and 1 or 0 and 255, else 256), or real numbers in [-1, 1]; or points, real numbers [n d],
    quantized to `levels` bins a coordinate unless that is None. `label` is integers [n], -1 where
    there is none. `source` is as x, of as many examples if `paired`.

    Raises UserError saying which array is wrong, and how to mend it.
    """
    for split in stored:
        if split not in SPLITS:
            raise UserError(f"{name} has a split {split!r}; there are {', '.join(SPLITS)}")
    if levels is not None and not 2 <= levels <= 256:
        raise UserError(f"{name}: levels must lie in 2..256; got {levels}")
    x = _domain(
        name, {split: columns["x"] for split, columns in stored.items()}, levels, coordinates
    )
    label = _column(name, stored, "label", same_length=True)
    if class_names and not label:
        raise UserError(f"{name} has class_names and no labels: give both, or neither")
    classes = tuple(map(str, class_names)) or _numbers(label)
    label = {split: _checked_label(name, split, array, classes) for split, array in label.items()}
    source = _column(name, stored, "source", same_length=paired)
    return dataclasses.replace(
        x,
        class_names=classes,
        read=_labelled(x, label) if label else x.read,
        source=_domain(f"{name} source", source) if source else None,
        paired=paired,
    )


def _labelled(x: Source, label: Mapping[str, np.ndarray]) -> Callable[..., Iterable[Example]]:
    """`x.read`, with labels."""

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for example, i in zip(x.read(split, ids), ids, strict=True):
            yield example._replace(label=int(label[split][i]))

    return read


def _domain(
    name: str, given: Mapping[str, Any], levels: int | None = None, coordinates: Sequence[str] = ()
) -> Source:
    """One array of each split, as examples without labels."""
    arrays = {split: _array(array, f"{name}: {split}") for split, array in given.items()}
    first = arrays["train"]
    for split, array in arrays.items():
        if array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
            raise UserError(
                f"{name}: train is {described(first)} and {split} is {described(array)}: make them "
                "alike"
            )
    ranges: Ranges = ()
    if first.ndim == 2:
        named = coordinates or [f"{name}: coordinate {i}" for i in range(first.shape[1])]
        ranges = ranges_of(np.concatenate(list(arrays.values())), named)
        arrays = {split: from_units(array, ranges) for split, array in arrays.items()}
        if levels:
            arrays = {split: bins(array, levels) for split, array in arrays.items()}
    else:
        _check_values(name, arrays, levels)
    real = first.dtype != np.uint8

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for i in ids:
            yield Example(f"{name}: {split} example {i}", arrays[split][i], -1)

    return Source(
        name=name,
        stamp=None,
        sizes={split: len(array) for split, array in arrays.items()},
        class_names=(),
        levels=levels or 0 if real else levels,
        read=read,
        what="points" if ranges else "examples",
        ranges=ranges,
    )


def _array(given: Any, where: str) -> np.ndarray:
    """Images uint8 or float32 [n h w c], or points float64 [n d]."""
    try:
        array = np.asarray(given)
    except ValueError as error:  # ragged lists
        raise UserError(f"{where} is no array of numbers ({error})") from error
    if array.size == 0 or array.ndim == 0:
        raise UserError(f"{where} has shape {array.shape}: give one example or more")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            at = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
            raise UserError(f"{where} is {array[at]} at {at}: mend or remove it")
        if array.ndim <= 2 or array.shape[1:-1] == (1, 1):
            return array.astype(np.float64).reshape(len(array), -1)
    elif not (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
        raise UserError(f"{where} is of {array.dtype}: give integers, or real numbers")
    if array.ndim not in (3, 4):
        raise UserError(
            f"{where} has shape {array.shape}: images are [n h w c] or [n h w], and points are "
            "real numbers [n d]"
        )
    array = array[..., None] if array.ndim == 3 else array
    if array.shape[1] in (1, 3) and min(array.shape[2:]) > 4:
        raise UserError(
            f"{where} has shape {array.shape}, which looks like [n c h w]: give [n h w c], "
            "such as x.transpose(0, 2, 3, 1)"
        )
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    least, most = int(array.min()), int(array.max())
    if least < 0 or most > 255:
        raise UserError(f"{where} holds integers {least}..{most}: levels lie in 0..255")
    return array.astype(np.uint8)


def _check_values(name: str, arrays: Mapping[str, np.ndarray], levels: int | None) -> None:
    """Raises UserError for images whose values are not what their type promises."""
    for split, array in arrays.items():
        where, least, most = f"{name}: {split}", array.min(), array.max()
        if array.dtype == np.uint8:
            if levels and most >= levels:
                raise UserError(
                    f"{where} holds the level {most}, and {levels} levels are 0..{levels - 1}"
                )
        elif levels:
            raise UserError(
                f"{where} is real numbers, which have no {levels} levels: give integers"
            )
        elif least < -1 or most > 1:
            raise UserError(
                f"{where} has values from {least:g} to {most:g}: scale real numbers to [-1, 1], "
                "such as x / 127.5 - 1, or give integers"
            )


def _column(name: str, stored: Stored, column: str, same_length: bool) -> dict[str, Any]:
    """The arrays of a column by split: of every split, or of none."""
    arrays = {k: held[column] for k, held in stored.items() if held.get(column) is not None}
    if not arrays:
        return {}
    for split, held in stored.items():
        if split not in arrays:
            raise UserError(f"{name} has a {column} for {', '.join(arrays)}, and none for {split}")
        num, shape = len(held["x"]), np.shape(arrays[split])
        if same_length and shape[:1] != (num,):
            mend = "" if column == "label" else "; give paired=False if they are no pairs"
            raise UserError(
                f"{name}: {split} has {num} examples, and a {column} of shape {shape}{mend}"
            )
    return arrays


def _numbers(label: Mapping[str, Any]) -> tuple[str, ...]:
    """Names for classes that have none."""
    numbers = (np.asarray(array) for array in label.values())
    integers = (array for array in numbers if np.issubdtype(array.dtype, np.integer))
    return tuple(map(str, range(1 + max((int(array.max()) for array in integers), default=-1))))


def _checked_label(name: str, split: str, given: Any, class_names: tuple[str, ...]) -> np.ndarray:
    label, where = np.asarray(given), f"{name}: label of {split}"
    if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
        raise UserError(f"{where} is {described(label)}: give one integer for each example, [n]")
    least, most, num = int(label.min()), int(label.max()), len(class_names)
    if least < -1 or most >= num:
        raise UserError(
            f"{where} holds {least}..{most}: the {num} classes are 0..{num - 1}, and -1 is none"
        )
    return label.astype(np.int32)


def described(array: np.ndarray) -> str:
    """What a message says of an array."""
    return f"{array.dtype} of shape {array.shape}"
