"""A folder of image files, with sub-folders as labels or as splits."""

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.sources.images import GREY_MODES, decode, opened
from jaxgen.data.splits import SPLITS
from jaxgen.errors import UserError

SUFFIXES = ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm"


def folder_source(config: DataConfig) -> Source:
    """Returns the images under --data_dir, in the order of their paths.

    Sub-folders train, validation and test (train and one other at least) are splits; the
    sub-folders below are labels, when every image lies in one. Images have one channel if all
    files are grey, else three.
    """
    root = Path(config.data_dir or "").expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"--data_dir={config.data_dir} is not a directory")
    files = files_below(root, SUFFIXES)
    if not files:
        raise UserError(f"--data_dir={config.data_dir} holds no images ({' '.join(SUFFIXES)})")
    depth, splits = stored_splits(files, root)
    class_names = folder_names(files, depth)

    @cache
    def mode() -> str:
        return "L" if config.grey or all(_is_grey(root / file) for file in files) else "RGB"

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for file in (splits[split][i] for i in ids):
            image = decode(root / file, mode(), str(root / file))
            label = class_names.index(file.parts[depth]) if class_names else -1
            yield Example(str(root / file), image, label)

    return Source(
        name=f"folder:{root.name}",
        stamp=[str(root), *(stamp(root, file) for file in files)],
        sizes={name: len(group) for name, group in splits.items()},
        class_names=class_names,
        levels=None,
        read=read,
    )


def files_below(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Every such file below `root`, relative to it, sorted; hidden files are left out."""
    return sorted(
        Path(folder, file).relative_to(root)
        for folder, _, files in os.walk(root)
        for file in files
        if file.lower().endswith(suffixes) and not file.startswith(".")
    )


def stored_splits(files: list[Path], root: Path) -> tuple[int, dict[str, list[Path]]]:
    """Returns the number of folders that name the split (0 or 1), and the files of each."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.parts[0] if len(file.parts) > 1 else "", []).append(file)
    if "train" not in groups or not groups.keys() & {"validation", "test"}:
        return 0, {"train": files}
    if extra := groups.keys() - set(SPLITS):
        stray = groups[min(extra)][0]
        raise UserError(f"{root / stray} lies in none of the splits {', '.join(SPLITS)}; move it")
    return 1, groups


def folder_names(files: list[Path], depth: int) -> tuple[str, ...]:
    """The labels: the folders at that depth, sorted; () unless every file lies in one."""
    if any(len(file.parts) < depth + 2 for file in files):
        return ()
    return tuple(sorted({file.parts[depth] for file in files}))


def _is_grey(path: Path) -> bool:
    with opened(path, str(path)) as image:
        return image.mode in GREY_MODES


def stamp(root: Path, file: Path) -> tuple[str, int, int]:
    """Names the bytes of a file: what changes them changes its size or its time."""
    stat = (root / file).stat()
    return file.as_posix(), stat.st_size, stat.st_mtime_ns
