"""Paths that a user writes, files that are written whole or not at all, and the folder for what can
be made again."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from jaxgen.errors import UserError


def user_path(text: str | os.PathLike, flag: str) -> Path:
    """The absolute path that `text`, given as `flag`, means: ~ is a home, and what is relative
    starts in the working directory, now. Links and `..` stay as written.

    It need not exist. Raises UserError naming the flag for what cannot be a path: an empty text,
    an unknown ~user, links in a loop, or more characters than the system takes.
    """
    try:
        if not os.fspath(text):
            raise ValueError("it is empty")
        path = Path(text).expanduser().absolute()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # of the system, of ~, of odd characters
        shown = text if len(str(text)) <= 80 else f"{str(text)[:40]}…"
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{flag}={shown} cannot be used as a path ({reason})") from error
    return path


def cache_folder() -> Path:
    """The user's folder for what jaxgen keeps and could make again; it may not exist yet.

    $XDG_CACHE_HOME/jaxgen where that is set, else ~/.cache/jaxgen on Linux, and on other systems
    a folder jaxgen where they keep caches.
    """
    from platformdirs import user_cache_path  # here, so that a run that keeps nothing needs it not

    return user_cache_path("jaxgen", appauthor=False)


def parse_json(data: bytes) -> Any:
    """The value that JSON stands for. Raises ValueError if it is none, or nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


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
    if os.name == "posix":  # elsewhere a folder cannot be opened
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
