"""Files that are written whole or not at all, and the folder for what can be made again."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """The user's folder for what jaxgen keeps and could make again; it may not exist yet.

    $XDG_CACHE_HOME/jaxgen where that is set, else ~/.cache/jaxgen on Linux, and on other systems
    a folder jaxgen where they keep caches.
    """
    from platformdirs import user_cache_path  # here, so that a run that keeps nothing needs it not

    return user_cache_path("jaxgen", appauthor=False)


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Writes results as JSON, atomically."""
    write_atomic(path, (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())


def write_atomic(path: str | os.PathLike, data: bytes, partial: str | None = None) -> None:
    """Writes a file so that, whatever happens, it is the old one or the new one, whole.

    `partial` is the name of the file, in the same directory, that is written first.
    """
    path = Path(path)
    temporary = path.with_name(partial or f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
