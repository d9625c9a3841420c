"""Decoded data sets, kept on disk as memory-mapped arrays."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from jaxgen.data.build import Meta, build, digest
from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Source
from jaxgen.data.splits import SPLITS, Split
from jaxgen.errors import UserError, warn
from jaxgen.files import cache_folder

FORMAT = 2
"""Raised when the meaning of the files changes, so that old ones are not read."""


def cached(source: Source, config: DataConfig) -> tuple[dict[str, Split], Meta]:
    """Returns `build(source, config)` from the cache; the first call makes it.

    A cache appears by one rename after all of its bytes are on disk, so no process ever sees
    half of one, and of two that make it at once the first wins. One that was damaged since is made
    again, and that is said.
    """
    root = cache_dir(config)
    name = source.name.replace("/", "-").replace(":", "-")[:50]  # 255 bytes are a name at most
    folder = root / f"{name}-{_key(source, config)}"
    if (old := _open(folder)) is not None:
        return old
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clear(folder)
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
    return Path(config.cache_dir or cache_folder()).absolute()


def _clear(folder: Path) -> None:
    """Removes what is there in place of a cache, if anything is."""
    if not os.path.lexists(folder):
        return
    warn(f"{folder} is damaged, and is made again")
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()


def _key(source: Source, config: DataConfig) -> str:
    options = config.size, config.fit, config.grey, config.levels, config.background
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
    (made / "meta.json").write_text(json.dumps({"meta": meta, "sha256": _check(meta)}))
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
    """Returns the cache in `folder`; None when it is missing, or not what was written."""
    try:
        held = json.loads((folder / "meta.json").read_bytes())
        meta: Meta = held["meta"]
        splits = {}
        for name in SPLITS:
            labels = folder / f"{name}_labels.npy"
            splits[name] = Split.of(
                np.load(folder / f"{name}_images.npy", mmap_mode="r"),
                # Mapped first: a damaged length is not allocated.
                np.array(np.load(labels, mmap_mode="r")) if labels.exists() else None,
            )
        sound = _check(meta) == held["sha256"] and digest(splits) == meta["digest"]
        # The digest is of bytes, whatever they mean.
        kinds = {"x": np.uint8 if meta["levels"] else np.float32, "label": np.int32}
        columns = [column for split in splits.values() for column in split.columns.items()]
        sound = sound and all(array.dtype == kinds[name] for name, array in columns)
    except Exception:  # no limit to what JSON and NumPy raise for damage
        return None
    return (splits, meta) if sound else None


def _check(meta: Meta) -> str:
    """The checksum of what is known beside the arrays, whose own is in it."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
