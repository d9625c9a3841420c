"""One stored image -> one uint8 array."""

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.errors import UserError
from jaxgen.media.decode import opened

if TYPE_CHECKING:
    from PIL import Image

MAX_SIDE = 2**13
"""Images are not made larger than this many pixels: one of them takes 192 MiB."""


def decode(file: BytesIO, mode: str, where: str) -> "Image.Image":
    """Returns the image as it is stored, in Pillow's `mode`: transparency is dropped unless that is
    RGBA, and no EXIF data turn it, as TFDS has it."""
    with opened(file, where) as image:
        return image.convert(mode)


def to_array(image: "Image.Image | np.ndarray", config: DataConfig, where: str) -> np.ndarray:
    """Returns uint8 [h w c] after --grey and --size; values are as stored. Arrays are ready, and
    are returned as they are."""
    if isinstance(image, np.ndarray):
        return image
    if config.grey and image.mode != "L":
        image = image.convert("L")
    if config.size and image.size != (config.size, config.size):
        image = _fit(image, config, where)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _fit(image: "Image.Image", config: DataConfig, where: str) -> "Image.Image":
    from PIL import Image, ImageOps

    size, (width, height) = config.size, image.size
    if size > MAX_SIDE:
        raise UserError(f"--size={size}: images are at most {MAX_SIDE} x {MAX_SIDE}; give less")
    if config.fit == "resize":
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if config.fit == "crop" and min(width, height) < size:
        raise UserError(f"--fit=crop: {where} is {height}x{width}, smaller than --size={size}")
    if config.fit == "pad" and max(width, height) > size:
        raise UserError(f"--fit=pad: {where} is {height}x{width}, larger than --size={size}")
    # Cropping outside of the image fills with zeros: one line crops and pads.
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
