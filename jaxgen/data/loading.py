"""The data sets by name: a configuration to a data set."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.data.assemble import assemble
from jaxgen.data.build import Meta, build
from jaxgen.data.cache import cached
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.sources.arrays import array_source
from jaxgen.data.sources.base import Source
from jaxgen.data.sources.densities import TOYS, toy
from jaxgen.data.sources.digits import digits
from jaxgen.data.sources.folder import folder_source
from jaxgen.data.sources.folders import folders_source
from jaxgen.data.sources.npz import npz_source
from jaxgen.data.sources.points import points_source
from jaxgen.data.sources.stacked import stacked
from jaxgen.data.sources.tfds import tfds_source
from jaxgen.data.sources.tinted import tinted
from jaxgen.data.sources.tones import tones
from jaxgen.data.sources.wav import wav_source
from jaxgen.data.splits import SPLITS, Split
from jaxgen.errors import UserError


class Entry(NamedTuple):
    """What is known of a source before it is read."""

    load: Callable[[DataConfig], Source]
    takes: tuple[str, ...]
    """The fields of `DataConfig` that it heeds, beside `dataset`; `cache_dir` if it is cached."""
    needs: Mapping[str, str] = {}
    """Those that it cannot do without, and what they are."""
    cached: bool = False
    """Whether its examples take long to read, and so are kept on disk."""


_LEVELS = "conditional", "levels", "binarize", "binarize_seed", "pairing", "unpaired"
_IMAGES = *_LEVELS, "size", "fit", "grey"
_STACKED = "conditional", "levels", "binarize", "binarize_seed"
_SOUNDS = "conditional", "size", "rate"
_POINTS = "conditional", "levels"

SOURCES: dict[str, Entry] = {
    "digits": Entry(lambda config: digits(), _IMAGES),
    **{name: Entry(lambda config: toy(config.dataset), _POINTS) for name in TOYS},
    "stacked_digits": Entry(lambda config: stacked(digits()), _STACKED),
    "tinted_digits": Entry(lambda config: tinted(digits()), _IMAGES),
    "tones": Entry(tones, _SOUNDS),
    "folder": Entry(
        folder_source,
        ("data_dir", "background", *_IMAGES),
        {"data_dir": "PATH, the folder of images"},
        cached=True,
    ),
    "folders": Entry(
        folders_source,
        ("data_dir", "background", "size", "fit", "grey", "levels"),
        {"data_dir": "A,B, two folders of images: B's are to be made from A's"},
        cached=True,
    ),
    "wav": Entry(
        wav_source,
        ("data_dir", *_SOUNDS),
        {"data_dir": "PATH, the folder of .wav files", "size": "N, the samples of a clip"},
        cached=True,
    ),
    "points": Entry(
        points_source,
        ("data_dir", *_POINTS),
        {"data_dir": "FILE, a .csv, .npy or .npz file of points [n d]"},
    ),
    "arrays": Entry(
        npz_source,
        ("data_dir", *_LEVELS),
        {"data_dir": "FILE.npz, with the arrays x, label, … of train, validation and test"},
    ),
}
"""The data sets by name. A new one is a file in `sources` and a line here."""

_OTHERS = Entry(
    lambda config: tfds_source(config, tuple(SOURCES)), ("data_dir", *_IMAGES), cached=True
)
"""Any other name is that of a TFDS data set."""


def load(config: DataConfig) -> Dataset:
    """Returns the data set; the first time, TFDS sets and folders are decoded into the cache.

    Raises UserError for a field that the data set does not heed, or that it lacks.
    """
    entry = SOURCES.get(config.dataset, _OTHERS)
    _check_flags(config, entry)
    # What is read at once needs no cache, and so no place to write.
    return assemble(entry.load(config), config, cached if entry.cached else _in_memory)


def from_arrays(
    train: ArrayLike,
    validation: ArrayLike | None = None,
    test: ArrayLike | None = None,
    *,
    labels: ArrayLike | Mapping[str, ArrayLike] | None = None,
    source: ArrayLike | Mapping[str, ArrayLike] | None = None,
    levels: int | None = None,
    class_names: Sequence[str] = (),
    paired: bool = True,
    config: DataConfig | None = None,
) -> Dataset:
    """Returns a user's own arrays as a data set; splits that are missing are carved from train.

    train, validation and test: images [n h w c] or [n h w], integers 0..levels-1 (None: 2 levels
    where the values are 0 and 1 or 0 and 255, else 256) or real numbers in [-1, 1]; or points,
    real numbers [n d] in any units, quantized to `levels` bins a coordinate if that is given.
    labels: integers [n] of train, or a mapping from split to them; source: what x is made from,
    given in the same way, in pairs or apart (`paired=False`). config: what else is done, as by
    flags (default: DataConfig(dataset="arrays")); a model is told labels if it is `conditional`.
    Give the same to `Run`.

    Raises UserError saying which array is wrong.
    """
    config = config or DataConfig(dataset="arrays")
    if config.dataset != "arrays":
        raise UserError(
            f"from_arrays: its config is for --dataset={config.dataset}; give "
            'DataConfig(dataset="arrays", …)'
        )
    _check_flags(config, SOURCES["arrays"]._replace(needs={}))
    x = {"train": train, "validation": validation, "test": test}
    given = {"x": x, "label": _by_split(labels), "source": _by_split(source)}
    stored: dict[str, dict[str, ArrayLike]] = {name: {} for name in SPLITS if x[name] is not None}
    for column, arrays in given.items():
        for split, array in arrays.items():
            if array is not None and split not in stored:
                raise UserError(f"from_arrays: a {column} is given for {split}, which has no x")
            if array is not None:
                stored[split][column] = array
    return assemble(array_source("arrays", stored, levels, class_names, paired), config, _in_memory)


def heeds(dataset: str, name: str) -> bool:
    """Whether a field of the configuration has a meaning to the data set that is named so."""
    return _heeds(SOURCES.get(dataset, _OTHERS), name)


def _by_split(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {"train": given}


def _check_flags(config: DataConfig, entry: Entry) -> None:
    """Raises UserError for a field that the data set does not heed, or that it lacks."""
    for field in fields(config):
        value = getattr(config, field.name)
        if value == field.default or field.name == "dataset" or _heeds(entry, field.name):
            continue
        names = [name for name, other in SOURCES.items() if _heeds(other, field.name)]
        names += ["any of TFDS"] * _heeds(_OTHERS, field.name)
        raise UserError(
            f"--{field.name}={value} means nothing to --dataset={config.dataset}, but to "
            f"{_listed(names, 'or')}: name such a --dataset, or {_without(field)}"
        )
    if not all(getattr(config, name) for name in entry.needs):
        needs = [f"--{name}={what}" for name, what in entry.needs.items()]
        raise UserError(f"--dataset={config.dataset} needs {_listed(needs, 'and')}")


def _without(field: Field) -> str:
    """How to ask for nothing, also where a model's preset asks for something."""
    if field.default is None:
        return f"leave --{field.name} out"
    if field.default is False:
        return f"give --no_{field.name}"
    return f"give --{field.name}={field.default}"


def _heeds(entry: Entry, name: str) -> bool:
    return name in entry.takes or (name == "cache_dir" and entry.cached)


def _listed(names: list[str], word: str) -> str:
    """One name, or `a, b or c`; of names with commas, `a, x, or b, y`."""
    if len(names) < 2:
        return "".join(names)
    comma = "," if any("," in name for name in names) else ""
    return f"{', '.join(names[:-1])}{comma} {word} {names[-1]}"


def _in_memory(source: Source, config: DataConfig) -> tuple[dict[str, Split], Meta]:
    def allocate(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > _memory():  # the system would grant it, and end the process once it is filled
            raise UserError(
                f"--size={config.size}: {name} of {source.name} take {size / 2**30:.0f} GiB, more "
                "than this machine has; give a smaller --size"
            )
        return np.empty(shape, dtype)

    return build(source, config, allocate)


def _memory() -> float:
    """The bytes of memory that the machine has, where the system tells."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
