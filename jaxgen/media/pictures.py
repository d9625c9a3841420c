"""Images as pictures: grids and heat maps; and files, in and out."""

import io
import math
import os
from pathlib import Path

import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import write_atomic
from jaxgen.media.decode import opened, shown
from jaxgen.media.points import coloured
from jaxgen.spec import DataSpec

CELL = 32
"""Images smaller than this many pixels are enlarged until they are not."""
GAP = 128
"""The grey, 0..255, between the cells."""


def grid(
    images: np.ndarray,
    levels: int,
    columns: int | None = None,
    pad: int = 1,
    scale: int | None = None,
) -> np.ndarray:
    """One picture, uint8 [H W c], of images [n h w c] or [rows cols h w c], levels or floats.

    Level x becomes round(255 x / (levels - 1)), exactly, and float x in [-1, 1] becomes
    round(255 (x + 1) / 2); what is no number is black. Every image is enlarged `scale` times by
    repeating pixels (by default until a cell has 32..63 pixels) and framed by `pad` grey
    pixels. `columns` lays out [n h w c]; by default the grid is about square.
    """
    images = np.asarray(images)
    if images.ndim == 5:
        columns = images.shape[1]
        images = images.reshape(-1, *images.shape[2:])
    n, h, w, c = images.shape
    columns = columns or max(1, math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    scale = scale or -(-CELL // max(h, w))
    cells = to_bytes(images, levels).repeat(scale, axis=1).repeat(scale, axis=2)
    spare = rows * columns - n
    cells = np.pad(cells, [(0, spare), (pad, 0), (pad, 0), (0, 0)], constant_values=GAP)
    high, wide = h * scale + pad, w * scale + pad
    picture = cells.reshape(rows, columns, high, wide, c).swapaxes(1, 2)
    picture = picture.reshape(rows * high, columns * wide, c)
    return np.pad(picture, [(0, pad), (0, pad), (0, 0)], constant_values=GAP)


def heatmap(maps: np.ndarray, columns: int | None = None, pad: int = 1) -> np.ndarray:
    """One picture, uint8 RGB [H W 3], of maps [n h w] or [rows cols h w] of floats.

    All maps share one colour scale, dark at the least and light at the greatest finite value;
    what is not finite is as dark as the least.
    """
    maps = np.asarray(maps, np.float64)
    finite = maps[np.isfinite(maps)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    unit = np.where(np.isfinite(maps), (maps - low) / ((high - low) or 1.0), 0.0)
    return grid(coloured(unit), 256, columns, pad)


def png_bytes(picture: np.ndarray) -> bytes:
    """A uint8 picture [H W 1], [H W 3] or [H W] as a PNG file's bytes."""
    from PIL import Image

    picture = np.asarray(picture, np.uint8)
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def save_png(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Writes a uint8 picture as a PNG file, atomically."""
    write_atomic(path, png_bytes(picture))


def load_image(path: Path, spec: DataSpec, background: str) -> np.ndarray:
    """An image file as levels, uint8, or as floats in [-1, 1] where the spec has no levels:
    [h w c], upright and on that background. Raises UserError naming a file that cannot be used."""
    modes = {1: "L", 3: "RGB"}
    if spec.channels not in modes:
        raise UserError(f"{path}: the model's images have {spec.channels} channels, not 1 or 3")
    with opened(path, str(path)) as file:
        image, _ = shown(file, modes[spec.channels], background)
    if image.size != (spec.width, spec.height):
        raise UserError(
            f"{path} is {image.width}x{image.height} pixels, and the model's images are "
            f"{spec.width}x{spec.height} (width x height); resize it"
        )
    values = np.asarray(image)
    if not spec.levels:
        return np.float32(values / 127.5 - 1.0).reshape(spec.shape)
    levels = np.round(values * ((spec.levels - 1) / 255.0)).astype(np.uint8)
    return levels.reshape(spec.shape)


def to_bytes(images: np.ndarray, levels: int) -> np.ndarray:
    """The bytes 0..255 that show levels, or floats in [-1, 1], of the same shape."""
    if np.issubdtype(images.dtype, np.floating):
        x = np.nan_to_num(images.astype(np.float64), nan=-1.0)
        return np.round((np.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    return np.round(np.arange(levels) * (255.0 / (levels - 1))).astype(np.uint8)[images]
