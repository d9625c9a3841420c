"""What a datum looks like, by its kind: the one place that asks whether it is a sound."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxgen.errors import UserError
from jaxgen.media.pictures import coloured, grid, load_image, save_png
from jaxgen.media.sound import RANGE_DB, load_sound, save_wav, spectrograms
from jaxgen.spec import ImageSpec


def picture(images: np.ndarray, spec: ImageSpec, columns: int | None = None) -> np.ndarray:
    """One picture, uint8 [H W c], of images or sounds [n h w c] or [rows cols h w c]: a `grid` of
    the images, or of the sounds' spectrograms."""
    if not spec.rate:
        return grid(images, spec.levels, columns)
    return grid(coloured(spectrograms(images, spec)[..., 0] / 255), 256, columns)


def legend(spec: ImageSpec) -> str:
    """How `picture` is to be read: nothing for images."""
    if not spec.rate:
        return ""
    return (
        f"; spectrograms of {spec.width / spec.rate:.3g} s, 0 (below) to {spec.rate // 2} Hz, "
        f"{RANGE_DB:.0f} dB from dark to light"
    )


def save_samples(path: Path, images: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Writes path.png, the picture of the images or sounds [n h w c] ten in a row, and for sounds
    path.wav, one after another; returns the picture."""
    shown = picture(images, spec, columns=10)
    path.parent.mkdir(exist_ok=True)
    save_png(path.with_suffix(".png"), shown)
    if spec.rate:
        save_wav(path.with_suffix(".wav"), images, spec)
    return shown


def load_images(paths: Sequence[str | os.PathLike], spec: ImageSpec) -> np.ndarray:
    """The images in these files as integer levels, uint8 [n h w c] of the model's shape.

    Grey and RGB are converted into each other; sizes must match. Byte v becomes the level
    nearest to it, the inverse of `grid`'s map. Of a sound, a .wav file, the beginning is taken;
    rates must match. Raises `UserError` naming the file.
    """
    if not paths:
        raise UserError("--images names no file; give at least one image")
    load = load_sound if spec.rate else load_image
    return np.stack([load(Path(path), spec) for path in paths])


CHUNK = 1000
"""Sounds that are transformed at a time."""


def scored(images: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """What sample scores look at: the images [n h w c] as they are, of sounds the spectrograms.

    Two waves that sound alike differ in every sample, but for their phase; spectrograms do not.
    """
    if not spec.rate:
        return images
    chunks = (images[i : i + CHUNK] for i in range(0, len(images), CHUNK))
    return np.concatenate([spectrograms(chunk, spec) for chunk in chunks])
