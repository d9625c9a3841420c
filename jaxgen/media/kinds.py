"""What a datum looks like, by its kind: the one place that asks whether it is an image, a sound or
a point."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.media.pictures import grid, load_image, save_png, to_bytes
from jaxgen.media.points import coloured, in_units, plot
from jaxgen.media.sound import RANGE_DB, load_sound, save_wav, spectrograms, wav_bytes, waves
from jaxgen.spec import DataSpec, Kind

ONE: dict[Kind, str] = {"image": "image", "sound": "clip", "points": "point"}
"""What one datum of each kind is called, as in nats per image."""

ROOM: dict[Kind, int] = {"image": 100, "sound": 100, "points": 2000}
"""How many data of each kind a picture of samples shows."""

CHUNK = 1000
"""Sounds that are transformed at a time."""


def picture(x: np.ndarray, spec: DataSpec, columns: int | None = None) -> np.ndarray:
    """One picture, uint8 [H W c], of data [n h w c] or [rows cols h w c], levels or floats in
    [-1, 1]: a `grid` of the images or of the sounds' spectrograms, or a plot of the points."""
    if spec.kind == "points":
        return plot(x, spec)
    if spec.kind == "sound":
        return grid(coloured(spectrograms(x, spec)[..., 0] / 255), 256, columns)
    return grid(x, spec.levels, columns)


def legend(spec: DataSpec, rows: int = 1) -> str:
    """How `picture` of so many rows is to be read, to be added to a caption; nothing where it is
    plain."""
    if spec.kind == "points":
        return "; a colour a row, the first one dark, the last one light" if rows > 1 else ""
    if spec.kind == "image":
        return ""
    return (
        f"; spectrograms of {spec.width / spec.rate:.3g} s, 0 (below) to {spec.rate // 2} Hz, "
        f"{RANGE_DB:.0f} dB from dark to light"
    )


def save_samples(path: Path, x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Writes path.png, the picture of data [n h w c], images and spectrograms ten in a row, and of
    sounds path.wav, one after another; returns the picture."""
    shown = picture(x, spec, columns=10)
    path.parent.mkdir(exist_ok=True)
    save_png(path.with_suffix(".png"), shown)
    if spec.kind == "sound":
        save_wav(path.with_suffix(".wav"), x, spec)
    return shown


def save_one(path: Path, x: np.ndarray, spec: DataSpec) -> None:
    """Writes one datum [h w c] as path.png, pixel by pixel, or as path.wav; a point as a plot."""
    if spec.kind == "sound":
        save_wav(path.with_suffix(".wav"), x[None], spec)
    elif spec.kind == "points":
        save_png(path.with_suffix(".png"), plot(x[None], spec))
    else:
        save_png(path.with_suffix(".png"), grid(x[None], spec.levels, pad=0, scale=1))


def formats(spec: DataSpec) -> tuple[str, ...]:
    """The endings of the files that people look at or listen to, for many data together."""
    return (".png", ".wav") if spec.kind == "sound" else (".png",)


def save_many(path: Path, x: np.ndarray, spec: DataSpec, columns: int | None = None) -> None:
    """Writes data [n h w c] or [rows cols h w c] as the path's ending, one of `formats`, says: a
    picture, or sounds one after another, row by row."""
    if path.suffix == ".wav":
        save_wav(path, x.reshape(-1, *spec.shape), spec)
    else:
        save_png(path, picture(x, spec, columns))


def arrays(x: np.ndarray, spec: DataSpec) -> dict[str, Any]:
    """What a .npz file holds of data [n h w c], by name.

    x as `--dataset=arrays` reads it, of points in their own units [n d], as `--dataset=points`
    does; levels, their number, or a sound's rate, where there are such; and of images arr_0, the
    bytes 0..255 that they are shown by, grey in three channels: what tools that compute the FID
    expect, such as the evaluator of guided diffusion (Dhariwal & Nichol 2021, arXiv:2105.05233).
    """
    if spec.kind == "points":
        return {"x": in_units(x, spec)}
    held: dict[str, Any] = {"x": x}
    if spec.levels:
        held["levels"] = spec.levels
    if spec.kind == "sound":
        return {**held, "rate": spec.rate}
    shown = to_bytes(x, spec.levels)
    return {"arr_0": shown.repeat(3, -1) if spec.channels == 1 else shown, **held}


def missing(spec: DataSpec) -> int | float:
    """What stands where a datum has nothing: black, or silence; of points the middle."""
    if spec.kind == "image":
        return 0 if spec.levels else -1.0
    return spec.levels // 2 if spec.levels else 0.0


def players(x: np.ndarray, spec: DataSpec) -> list[bytes]:
    """A .wav file's bytes for each sound of [n 1 t 1]; of other kinds none."""
    if spec.kind != "sound":
        return []
    return [wav_bytes(wave, spec.rate) for wave in waves(x, spec.levels)]


def load_images(
    paths: Sequence[str | os.PathLike], spec: DataSpec, background: str = "white"
) -> np.ndarray:
    """The images in these files as the model takes them, [n h w c].

    Grey and RGB are converted into each other, what is transparent shows the background; sizes
    must match. Byte v becomes the level
    nearest to it, the inverse of `grid`'s map. Of a sound, a .wav file, the beginning is taken;
    rates must match. Raises `UserError` naming the file.
    """
    if not paths:
        raise UserError("--images names no file; give at least one image")
    if spec.kind == "points":
        raise UserError(f"--images={paths[0]}: points are not read from files; leave it out")
    files = map(Path, paths)
    if spec.kind == "sound":
        return np.stack([load_sound(file, spec) for file in files])
    return np.stack([load_image(file, spec, background) for file in files])


def scored(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """What sample scores look at: the data [n h w c] as they are, of sounds the spectrograms.

    Two waves that sound alike differ in every sample, but for their phase; spectrograms do not.
    """
    if spec.kind != "sound":
        return x
    chunks = (x[i : i + CHUNK] for i in range(0, len(x), CHUNK))
    return np.concatenate([spectrograms(chunk, spec) for chunk in chunks])


def scored_spec(spec: DataSpec) -> tuple[str, int]:
    """The words before the data set's name, and the levels, of what `scored` returns."""
    return ("spectrograms of ", 256) if spec.kind == "sound" else ("", spec.levels)
