"""The files below a folder: found, put in order, and taken for splits and labels by place."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from jaxgen.data.config import DataConfig
from jaxgen.errors import UserError, warn

T = TypeVar("T")

SPLIT_FOLDERS = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip
"""What folders that are splits are called, in any case of letters."""

TOLD = 5
"""At most as many files are named in a message."""


class Tree(NamedTuple):
    """The files that a folder is read for."""

    root: Path
    name: str
    """What the folder is called, as text that can be written anywhere."""
    splits: dict[str, list[Path]]
    """The files of each stored split, relative to the root, in natural order."""
    folders: tuple[str, ...]
    """The folders that are labels, in natural order; () where not every file lies in one."""
    depth: int
    """How many folders above a file's label name its split: 0 or 1."""

    @property
    def files(self) -> list[Path]:
        """All of them, relative to the root."""
        return [file for group in self.splits.values() for file in group]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, as text that can be written anywhere."""
        return tuple(map(printable, self.folders))

    @property
    def stamp(self) -> list:
        """Names the bytes of the files: what changes them changes their size or their time."""
        return [str(self.root), *(_stamp(self.root / file, file) for file in self.files)]

    def label(self, file: Path) -> int:
        """The class of a file, or -1."""
        return self.folders.index(file.parts[self.depth]) if self.folders else -1

    def only(self, files: Iterable[Path]) -> "Tree":
        """Those of its files, and the labels that they have."""
        kept = set(files)
        splits = {k: [file for file in group if file in kept] for k, group in self.splits.items()}
        every = [file for group in splits.values() for file in group]
        return self._replace(splits=splits, folders=_labels(every, self.depth))


def read_tree(config: DataConfig, suffixes: Iterable[str], what: str) -> Tree:
    """Returns the files below --data_dir that end in one of those; `what` is what they are called.

    Links are followed, what is hidden is left out, and of other files it is said how many there
    are. Folders train, val (or valid, validation) and test are splits, where there are no others
    beside them; the folders below are labels, where every file lies in one. Raises UserError for
    what cannot be read: a folder, a link that leads nowhere or back to a folder around it.
    """
    root, suffixes = Path(config.data_dir or ""), tuple(suffixes)
    if not root.is_dir():
        raise UserError(f"--data_dir={root} is not a directory")
    files, left_out = _walk(root, suffixes)
    counts = ", ".join(f"{number} {why}" for why, number in left_out.most_common(TOLD))
    ends = f"{what} end in {' '.join(suffixes)}"
    if not files:
        held = f"; it holds {counts}" * bool(counts)
        raise UserError(f"--data_dir={root} holds no {what} ({ends}{held})")
    if counts:
        warn(f"{root}: left out {counts} ({ends})")
    depth, splits = _splits(files, root)
    folders = _labels(files, depth)
    strays = [file for file in files if len(file.parts) < depth + 2]
    if strays and len(strays) < len(files):
        warn(f"{root}: there are no labels, for {strays[0]} lies in no folder of one")
    return Tree(root, printable(root.name), splits, folders, depth)


def every(read: Callable[[Path], T], files: Iterable[Path]) -> list[T]:
    """Returns what `read` makes of each file; raises one UserError of all that it cannot read."""
    made, errors = [], []
    for file in files:
        try:
            made.append(read(file))
        except UserError as error:
            errors.append(error)
    if errors:
        more = f"\nand {len(errors) - TOLD} more like them" * (len(errors) > TOLD)
        raise UserError("\n".join(map(str, errors[:TOLD])) + more) from errors[0]
    return made


def natural(path: Path) -> list:
    """What paths are sorted by so that 2 comes before 10, folder by folder."""
    return [
        ([int(x) if i % 2 else x for i, x in enumerate(re.split("([0-9]+)", part))], part)
        for part in path.parts
    ]


def printable(name: str) -> str:
    """The name of a file with those of its bytes escaped that are no text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk(root: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], Counter[str]]:
    """The files, relative to the root and in natural order; and what else there is, counted."""
    found: list[Path] = []
    left_out: Counter[str] = Counter()
    # Each folder with the real places of the folders around it, by whatever links it was reached.
    folders: list[tuple[Path, tuple[Path, ...]]] = [(root, (root.resolve(),))]
    while folders:
        folder, around = folders.pop()
        for entry in _inside(folder):
            path, fits = Path(entry.path), entry.name.lower().endswith(suffixes)
            if entry.name.startswith("."):
                left_out["hidden"] += fits or entry.is_dir(follow_symlinks=False)
                continue
            if entry.is_symlink() and not path.exists():
                raise UserError(
                    f"{path} is a link to {os.readlink(path)}, and leads nowhere; mend or remove it"
                )
            if entry.is_dir():
                real = path.resolve()
                if any(place.is_relative_to(real) for place in around):
                    raise UserError(
                        f"{path} is a link to {real}, a folder around it, and has no end; remove it"
                    )
                folders.append((path, (*around, real)))
            elif fits and entry.is_file():
                found.append(path.relative_to(root))
            else:
                left_out[path.suffix.lower() or "without an ending"] += 1
    return sorted(found, key=natural), +left_out


def _inside(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}): mend its permissions, or remove it"
        ) from error


def _splits(files: list[Path], root: Path) -> tuple[int, dict[str, list[Path]]]:
    """The number of folders that name the split, 0 or 1, and the files of each."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.parts[0] if len(file.parts) > 1 else "", []).append(file)
    named: dict[str, list[str]] = {}
    for folder in groups:
        if split := SPLIT_FOLDERS.get(folder.lower()):
            named.setdefault(split, []).append(folder)
    others = [folder for folder in groups if folder.lower() not in SPLIT_FOLDERS]
    if not named or (others and not ("train" in named and len(named) > 1)):
        return 0, {"train": files}  # a label may be called train, beside plane and car
    if others:
        raise UserError(
            f"{root / groups[others[0]][0]} lies in none of the splits {', '.join(named)}; move it"
        )
    for split, folders in named.items():
        if len(folders) > 1:
            raise UserError(f"{root}: {' and '.join(folders)} are both {split}; keep one of them")
    if "train" not in named:
        raise UserError(f"{root} has {' and '.join(groups)}, and no train; add it")
    return 1, {split: groups[folder] for split, [folder] in named.items()}


def _labels(files: list[Path], depth: int) -> tuple[str, ...]:
    """The folders at that depth; () unless every file lies in one."""
    if any(len(file.parts) < depth + 2 for file in files):
        return ()
    return tuple(sorted({file.parts[depth] for file in files}, key=lambda x: natural(Path(x))))


def _stamp(path: Path, file: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend or remove it") from error
    return file.as_posix(), stat.st_size, stat.st_mtime_ns
