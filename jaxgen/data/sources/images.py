"""One stored image -> one uint8 array."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image


GREY_MODES = "1", "L"
COLOUR_MODES = "RGB", "RGBA", "P", "LA", "PA", "CMYK", "YCbCr"


@contextmanager
def opened(file: Path | BytesIO, where: str) -> Iterator["Image.Image"]:
    """Opens an image, whose pixels are decoded only when they are used.

    Raises UserError, naming `where`, when it is damaged or its pixels have not 8 bits.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode not in GREY_MODES + COLOUR_MODES:
                # Pillow would clip 16 bits to white, silently.
                raise UserError(f"{where} has mode {image.mode}; only 8-bit images can be read")
            yield image
    except UserError:
        raise
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, struct.error ...: all mean a bad file.
        raise UserError(f"{where} is not a readable image ({error}); mend or remove it") from error


def decode(file: Path | BytesIO, mode: str, where: str) -> "Image.Image":
    """Returns the image in Pillow's `mode`, which drops transparency unless it is RGBA."""
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
    if config.fit == "resize":
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if config.fit == "crop" and min(width, height) < size:
        raise UserError(f"--fit=crop: {where} is {height}x{width}, smaller than --size={size}")
    if config.fit == "pad" and max(width, height) > size:
        raise UserError(f"--fit=pad: {where} is {height}x{width}, larger than --size={size}")
    # Cropping outside of the image fills with zeros: one line crops and pads.
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
