"""Two folders of images: those of the second are to be made from those of the first."""

import dataclasses

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Source
from jaxgen.data.sources.folder import folder_source
from jaxgen.errors import UserError


def folders_source(config: DataConfig) -> Source:
    """Returns the images of B, and apart from them those of A, of --data_dir=A,B.

    Each folder has its own splits, as a single one has, and its own number of images.
    """
    paths = (config.data_dir or "").split(",")
    if len(paths) != 2 or not all(paths):
        raise UserError(
            f"--data_dir={config.data_dir}: give two folders, A,B; images of B are to be made "
            "from those of A"
        )
    a, b = (folder_source(dataclasses.replace(config, data_dir=path)) for path in paths)
    return dataclasses.replace(
        b, source=a, alike="give --size=N to make all N x N, and --grey if some have colours"
    )
