"""Picture files as every viewer shows them: upright, and on a background where transparent."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxgen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = "1", "L", "LA"
COLOUR_MODES = "RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"
ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held; 1 = upright."""


@contextmanager
def opened(file: Path | BytesIO, where: str) -> Iterator["Image.Image"]:
    """Opens a picture, whose pixels are decoded only when they are used.

    Raises UserError, naming `where`, when it is damaged or its pixels have not 8 bits.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode not in GREY_MODES + COLOUR_MODES:
                # Pillow would clip 16 bits to white, silently.
                raise UserError(
                    f"{where} has pixels of mode {image.mode}, and 8 bits a channel are read: "
                    "convert it first, such as by `magick mogrify -depth 8 FILE`"
                )
            yield image
    except UserError:
        raise
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, struct.error ...: all mean a bad file.
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"{where} is not a readable image ({reason}); mend or remove it") from error


def is_grey(image: "Image.Image", background: str) -> bool:
    """Whether the picture has no colours on that background."""
    plain = not image.has_transparency_data or _has_no_colour(background)
    return image.mode in GREY_MODES and plain


def shown(
    image: "Image.Image", mode: str, background: str
) -> tuple["Image.Image", tuple[str, ...]]:
    """The picture in Pillow's `mode`, L or RGB, as a viewer shows it, and what that took: it is
    turned upright as its EXIF data say, laid on the background where it is transparent, and the
    first one of an animation or of several pages."""
    from PIL import Image, ImageOps

    done: tuple[str, ...] = ()
    if getattr(image, "is_animated", False):
        image.seek(0)
        done += ("files of several pictures, of which the first is taken",)
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        image = ImageOps.exif_transpose(image)
        done += ("images turned upright (EXIF)",)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            paper = Image.new("RGBA", image.size, background)
            image = Image.alpha_composite(paper, image)
            done += (f"transparent images laid on {background}",)
    return image.convert(mode), done


def check_colour(flag: str, colour: str) -> None:
    """Raises UserError for what is not the name of a colour."""
    from PIL import ImageColor

    try:
        if len(ImageColor.getrgb(colour)) == 3:
            return
        error = None  # it is transparent itself
    except ValueError as told:
        error = told
    raise UserError(
        f"{flag}={colour} is not a colour: give a name, such as white, or #rrggbb"
    ) from error


def _has_no_colour(background: str) -> bool:
    from PIL import ImageColor

    return len(set(ImageColor.getrgb(background))) == 1
