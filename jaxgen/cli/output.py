"""Where commands write: pictures, arrays, sounds and folders of them, and their progress bar."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import user_path, write_atomic
from jaxgen.media.kinds import ONE, arrays, formats, save_many, save_one
from jaxgen.runs.saved import SavedRun
from jaxgen.spec import DataSpec

LISTED = 30
"""Classes that are listed by name; of more, the first ones are."""


def progress(chunks, num: int, spec: DataSpec):
    """Passes chunks on, with a progress bar where there is a terminal and more than one."""
    from tqdm import tqdm

    with tqdm(total=num, unit=ONE[spec.kind], disable=None, leave=False) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def images_path(out: str, spec: DataSpec) -> Path:
    """Where `write_images` can write such data to, by its name; else a UserError."""
    path = user_path(out, "--out")
    if path.suffix:
        return _checked(path, (*formats(spec), ".npz"), ", or a folder")
    return _checked(path, ("",))


def grid_path(out: str, spec: DataSpec) -> Path:
    """Where `write_grid` can write such data to, by its name; else a UserError."""
    return _checked(user_path(out, "--out"), formats(spec))


def arrays_path(out: str) -> Path:
    """Where an .npz file can be written to, by its name; else a UserError."""
    return _checked(user_path(out, "--out"), (".npz",))


def _checked(path: Path, ends: tuple[str, ...], other: str = "") -> Path:
    """The path, if it has one of these endings and can be written to, "" being a new folder."""
    if path.suffix not in ends:
        known = " or ".join(filter(None, (", ".join(ends[:-1]), ends[-1])))
        raise UserError(f"--out={path}: give a name that ends in {known}{other}")
    with writing(path):
        above = next(p for p in path.absolute().parents if p.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            raise PermissionError(f"{above} is no folder that can be written to")
        if path.is_file() and not path.suffix:
            raise UserError(f"--out={path} is a file; choose a new name")
        if path.is_dir() and (path.suffix or any(path.iterdir())):
            what = "a folder" if path.suffix else "not empty"
            raise UserError(f"--out={path} is {what}; choose a new name")
    return path


def write_images(path: Path, images: np.ndarray, label: np.ndarray | None, saved: SavedRun) -> None:
    """A picture, arrays, one sound, or a folder of PNGs or sounds, as the path's name says (see
    `images_path`)."""
    spec, names = saved.model.spec, class_names(saved)
    if path.suffix == ".png":
        write_grid(path, images, saved, columns=min(10, len(images)))
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            file = io.BytesIO()
            named: dict[str, Any] = {"label": label, "class_names": list(names)}
            np.savez(file, **arrays(images, spec), **({} if label is None else named))
            write_atomic(path, file.getvalue())
        elif path.suffix:
            save_many(path, images, spec)
        else:
            path.mkdir(exist_ok=True)
            for i, image in enumerate(images):
                save_one(path / f"{i:06d}", image, spec)
    print(f"{len(images)} {ONE[spec.kind]}s written to {path}{_key(names)}")


def write_grid(path: Path, images: np.ndarray, saved: SavedRun, columns: int | None = None) -> None:
    """Data in rows, as one picture or sound (see `grid_path`)."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_many(path, images, saved.model.spec, columns)
    made_by = f"run {saved.run.name}, checkpoint of step {saved.step}"
    print(f"written to {path} ({made_by}){_key(class_names(saved))}")


def class_names(saved: SavedRun) -> tuple[str, ...]:
    """The names of the classes that the run's model is told, by their number."""
    if not saved.model.spec.num_classes:
        return ()
    return tuple(saved.record["dataset"]["class_names"])


def listed(names: Sequence[str]) -> str:
    """The classes by number, with their names where these are not the numbers."""
    if all(name == str(i) for i, name in enumerate(names)):
        return f"0..{len(names) - 1}"
    some = [f"{i} = {name}" for i, name in enumerate(names[:LISTED])]
    return ", ".join(some) + f", … {len(names) - 1}" * (len(names) > LISTED)


def _key(names: Sequence[str]) -> str:
    """What the labels mean, where that is to be told."""
    return f"; classes {listed(names)}" if any(n != str(i) for i, n in enumerate(names)) else ""


class writing:
    """Turns errors of the file system into UserErrors that name --out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            raise UserError(f"--out={self.path} cannot be written ({error})") from error
