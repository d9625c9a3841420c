"""Where commands write: pictures, arrays, sounds and folders of them, and their progress bar."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import user_path, write_atomic
from jaxgen.media.kinds import formats, picture, save_one
from jaxgen.media.pictures import save_png
from jaxgen.media.sound import save_wav
from jaxgen.runs.saved import SavedRun
from jaxgen.spec import DataSpec


def progress(chunks, num: int):
    """Passes chunks on, with a progress bar where there is a terminal and more than one."""
    from tqdm import tqdm

    with tqdm(total=num, unit="image", disable=None, leave=False) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def images_path(out: str, spec: DataSpec) -> Path:
    """Where `write_images` can write such images to, by its name; else a UserError."""
    path, ends = user_path(out, "--out"), formats(spec)
    if path.suffix and path.suffix not in ends:
        listed = f"{', '.join(ends[:-1])} or {ends[-1]}"
        raise UserError(f"--out={path}: give a name that ends in {listed}, or a folder")
    return path


def write_images(path: Path, images: np.ndarray, label: np.ndarray | None, saved: SavedRun) -> None:
    """A picture, arrays, one sound, or a folder of PNGs or sounds, as the path's name says (see
    `images_path`)."""
    spec = saved.model.spec
    if path.suffix == ".png":
        write_grid(path, images, saved, columns=min(10, len(images)))
        return
    with writing(path):
        if path.suffix == ".npz":
            import io

            file = io.BytesIO()
            named: dict[str, Any] = {} if label is None else {"label": label}
            np.savez(file, image=images, **named)
            write_atomic(path, file.getvalue())
        elif path.suffix == ".wav":
            save_wav(path, images, spec)
        else:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise UserError(f"--out={path} is not empty; choose a new folder")
            for i, image in enumerate(images):
                save_one(path / f"{i:06d}", image, spec)
    print(f"{len(images)} images written to {path}")


def grid_path(out: str) -> Path:
    """Where `write_grid` can write to, by its name; else a UserError."""
    path = user_path(out, "--out")
    if path.suffix != ".png":
        raise UserError(f"--out={path}: give a name that ends in .png")
    return path


def write_grid(path: Path, images: np.ndarray, saved: SavedRun, columns: int | None = None) -> None:
    """One picture of data [n h w c] or [rows cols h w c]; says where it is."""
    with writing(path):
        save_png(path, picture(images, saved.model.spec, columns))
    print(f"written to {path} (run {saved.run.name}, checkpoint of step {saved.step})")


class writing:
    """Turns errors of the file system into UserErrors that name --out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            raise UserError(f"--out={self.path} cannot be written ({error})") from error
