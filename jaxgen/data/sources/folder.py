"""A folder of image files, with sub-folders as labels or as splits."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.sources.tree import every, read_tree
from jaxgen.errors import UserError
from jaxgen.media.decode import is_grey, opened, shown

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""What is read, as far as this Pillow can."""


def folder_source(config: DataConfig) -> Source:
    """Returns the images under --data_dir (see `read_tree`), upright and on --background, in the
    natural order of their paths. They have one channel if all are grey, else three."""
    from PIL import Image

    known = Image.registered_extensions()
    tree = read_tree(config, [end for end in SUFFIXES if end in known], "images")
    root, files = tree.root, tree.files

    def grey(file: Path) -> bool:
        with opened(root / file, str(root / file)) as image:
            return is_grey(image, config.background)

    @cache
    def mode() -> str:
        return "L" if config.grey or all(map(grey, files)) else "RGB"

    def whole(file: Path) -> None:
        with opened(root / file, str(root / file)) as image:
            image.load()

    def decode(file: Path) -> tuple["Image.Image", tuple[str, ...]]:
        with opened(root / file, str(root / file)) as image:
            return shown(image, mode(), config.background)

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for file in (tree.splits[split][i] for i in ids):
            try:
                image, done = decode(file)
            except UserError:
                every(whole, files)  # names all that are damaged
                raise
            yield Example(str(root / file), image, tree.label(file), done)

    return Source(
        name=f"folder:{tree.name}",
        stamp=tree.stamp,
        sizes={name: len(group) for name, group in tree.splits.items()},
        class_names=tree.class_names,
        levels=None,
        read=read,
    )
