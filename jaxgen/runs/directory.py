"""A run's directory: its lock, its run.json, and the software that made it."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxgen.errors import UserError
from jaxgen.files import write_atomic

FORMAT = 2
"""The version of run.json and of what lies beside it; another one is refused."""

LOCK, RECORD, PARTIAL = ".lock", "run.json", ".run.json.partial"


@contextlib.contextmanager
def lock(path: str | os.PathLike) -> Iterator[None]:
    """Holds the run directory, which is made if it is missing, for the length of the block.

    The kernel releases the lock when the process dies, so there are no stale ones. Raises
    `UserError` naming the holder, or if the directory is someone's that is not a run.
    """
    path = Path(path)
    with _explained(path):
        _refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
        file = open(path / LOCK, "a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"--run={path} is in use by {holder}; wait for it to end, or choose another --run"
            ) from None
        except OSError as error:
            raise UserError(f"--run={path} cannot be locked ({error}); choose another") from error
        with _explained(path):
            file.truncate(0)
            file.write(f"{socket.gethostname()}, pid {os.getpid()}\n")
            file.flush()
        yield


def claim(
    path: str | os.PathLike, record: dict[str, Any], ignore: tuple[str, ...] = ("environment",)
) -> bool:
    """Makes `path` the directory of the run that `record` describes; call it holding the lock.

    Returns whether there was such a run already, to be resumed. Differences at or below a
    dotted name in `ignore` are allowed, and then run.json is brought up to date. Raises
    `UserError`, and changes nothing, for a run of another configuration or a foreign directory.
    """
    path = Path(path)
    with _explained(path):
        _refuse_foreign(path)
        if not (path / RECORD).exists():
            path.mkdir(parents=True, exist_ok=True)
            write_run(path, record)
            return False
    old, new = read_run(path), json.loads(json.dumps(record))
    lines = [
        # Two hashes tell people nothing.
        "dataset: the data have changed" if name == "dataset.fingerprint" else line
        for name, line in _differences(old, new)
        if not _below(name, ignore)
    ]
    if lines:
        raise UserError(
            f"--run={path} is a run of another configuration (there -> asked for):\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nask for the same configuration to resume it, choose another --run, or delete it"
        )
    if old != new:
        with _explained(path):
            write_run(path, record)
    return True


def write_run(path: str | os.PathLike, record: dict[str, Any]) -> None:
    """Writes run.json into the directory, atomically."""
    text = json.dumps({"format": FORMAT, **record}, indent=2) + "\n"
    write_atomic(Path(path) / RECORD, text.encode(), PARTIAL)


def read_run(path: str | os.PathLike) -> dict[str, Any]:
    """The record of the run in `path`; `UserError` if it is not a run that can be read."""
    path = Path(path)
    mend = "give the directory of a run that train.py made"
    if not path.is_dir():
        raise UserError(f"--run={path} is not a directory; {mend}")
    try:
        record = json.loads((path / RECORD).read_bytes())
    except FileNotFoundError:
        raise UserError(f"--run={path} is not a run: it has no {RECORD}; {mend}") from None
    except OSError as error:
        raise UserError(f"--run={path}: {RECORD} cannot be read ({error}); {mend}") from error
    except ValueError as error:
        raise UserError(
            f"--run={path}: {RECORD} is damaged or half written ({error}); restore it from a "
            "copy, or delete the run and train again"
        ) from error
    version = record.pop("format", None) if isinstance(record, dict) else None
    if version != FORMAT:
        raise UserError(
            f"--run={path}: {RECORD} has format {version}, that of another version of jaxgen, and "
            f"this one reads format {FORMAT}; use the jaxgen that wrote it, or train again"
        )
    return record


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The differences of two nested records, a line each: `model.width: 64 -> 128`."""
    return [line for _, line in _differences(old, new)]


_ABSENT = object()


def _differences(old: dict, new: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted name of every difference, and the line that shows it."""

    def show(value: Any) -> str:
        return "absent" if value is _ABSENT else json.dumps(value)

    for key in {**old, **new}:
        a, b, name = old.get(key, _ABSENT), new.get(key, _ABSENT), f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{name}.")
        elif a != b:
            yield name, f"{name}: {show(a)} -> {show(b)}"


def _below(name: str, parents: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of `parents` or lies below one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _refuse_foreign(path: Path) -> None:
    """Raises `UserError` if there is something at `path` that is not a run of ours."""
    if path.exists() and not path.is_dir():
        raise UserError(f"--run={path} is a file; choose a directory")
    if not path.exists() or (path / RECORD).exists():
        return
    others = sorted({p.name for p in path.iterdir()} - {LOCK, PARTIAL})
    if others:
        raise UserError(
            f"--run={path} holds other files ({', '.join(others[:3])}, no {RECORD}) and is not "
            "a run; choose a new or an empty directory"
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns errors of the file system into `UserError`s that name --run."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--run={path} cannot be used ({error}); choose a directory that can be written to"
        ) from error
