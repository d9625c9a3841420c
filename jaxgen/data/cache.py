"""Decoded data sets, kept on disk as memory-mapped arrays."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from jaxgen.data.build import Meta, build
from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Source
from jaxgen.data.splits import SPLITS, Split
from jaxgen.errors import UserError
from jaxgen.files import cache_folder

FORMAT = 1
"""Raised when the meaning of the files changes, so that old ones are not read."""


def cached(source: Source, config: DataConfig) -> tuple[dict[str, Split], Meta]:
    """Returns `build(source, config)` from the cache; the first call makes it.

    A cache appears by one rename after all of its bytes are on disk, so no process ever sees
    half of one, and of two that make it at once the first wins.
    """
    root = cache_dir(config)
    folder = root / f"{source.name.replace('/', '-').replace(':', '-')}-{_key(source, config)}"
    if (old := _open(folder)) is not None:
        return old
    try:
        root.mkdir(parents=True, exist_ok=True)
        if folder.exists():  # it was damaged from outside
            shutil.rmtree(folder)
        with tempfile.TemporaryDirectory(prefix=".", dir=root) as scratch:
            _make(Path(scratch, "made"), folder, source, config)
    except OSError as error:
        raise UserError(
            f"cannot keep decoded images in {root} ({error.strerror or error}); "
            "name another folder with --cache_dir"
        ) from error
    made = _open(folder)
    assert made is not None, f"{folder} vanished"
    return made


def cache_dir(config: DataConfig) -> Path:
    """Returns the folder that --cache_dir, or its default, names."""
    return Path(config.cache_dir or cache_folder()).expanduser().absolute()


def _key(source: Source, config: DataConfig) -> str:
    options = config.size, config.fit, config.grey, config.levels
    text = json.dumps([FORMAT, source.name, source.stamp, source.sizes, options])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _make(made: Path, folder: Path, source: Source, config: DataConfig) -> None:
    """Writes the cache to `made`, then renames it to `folder`."""
    made.mkdir()

    def allocate(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return _create(made / f"{name}.npy", shape, dtype)

    splits, meta = build(source, config, allocate)
    for array in (array for split in splits.values() for array in (split.x, split.label)):
        if isinstance(array, np.memmap):
            array.flush()
    (made / "meta.json").write_text(json.dumps(meta))
    for path in (*made.iterdir(), made):
        _sync(path)
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        # Another process was faster; what it made is the same.
    _sync(folder.parent)


def _create(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        # The file is sparse: on a full disk, filling it would end the process by a signal.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(folder: Path) -> tuple[dict[str, Split], Meta] | None:
    """Returns the cache in `folder`; None when it is missing, or cannot be read."""
    try:
        meta: Meta = json.loads((folder / "meta.json").read_text())
        splits = {}
        for name in SPLITS:
            labels = folder / f"{name}_labels.npy"
            splits[name] = Split.of(
                np.load(folder / f"{name}_images.npy", mmap_mode="r"),
                np.load(labels) if labels.exists() else None,
            )
        return splits, meta
    except (OSError, ValueError):
        return None
