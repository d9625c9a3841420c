"""A run's directory: its lock, its run.json, and the software that made it."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.errors import UserError
from jaxgen.files import parse_json, write_atomic

FORMAT = 3
"""The version of run.json and of what lies beside it; another one is refused."""

LOCK, HOLDER, RECORD, PARTIAL = ".lock", ".holder", "run.json", ".run.json.partial"
FILES = RECORD, "metrics.jsonl", "results.json", "report.html", "features.npz", "baselines.npz"
FOLDERS = "checkpoints", "samples", "tensorboard"
"""What a run writes into its directory."""
GROWN = "grown"
"""Where run.json keeps, a line each, the numbers that were raised since the run was made."""


@contextlib.contextmanager
def lock(path: str | os.PathLike) -> Iterator[None]:
    """Holds the run directory, which is made if it is missing, for the length of the block.

    The system releases the lock when the process dies, so there are no stale ones. Raises
    `UserError` naming the holder, or if the directory is someone's that is not a run.
    """
    from filelock import FileLock, Timeout  # here, so that reading a run needs it not

    path = Path(path)
    held = FileLock(path / LOCK)
    with explained(path):
        _refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"--run={path} is in use by {_holder(path)}; wait for it to end, or choose "
                "another --run"
            ) from None
    try:
        with explained(path):
            name = f"{socket.gethostname()}, pid {os.getpid()}\n"
            (path / HOLDER).write_text(name, encoding="utf-8")
        yield
    finally:
        held.release()


def _holder(path: Path) -> str:
    """Who holds the lock of a run directory, as far as is known."""
    try:
        return (path / HOLDER).read_text(encoding="utf-8").strip() or "another process"
    except (OSError, ValueError):
        return "another process"


def claim(
    path: str | os.PathLike,
    record: dict[str, Any],
    ignore: tuple[str, ...] = ("environment",),
    grows: tuple[str, ...] = (),
) -> dict[str, Any] | None:
    """Makes `path` the directory of the run that `record` describes; call it holding the lock.

    Returns the record that was there, of a run to be resumed; None for a new one. Differences at
    or below a dotted name in `ignore` are allowed, and whole numbers named in `grows` may be
    raised: then run.json is brought up to date, and keeps both (see `GROWN`). Raises `UserError`,
    and changes nothing, for a run of another configuration, a foreign directory, or one in which
    a file is where a folder has to be, or a folder where a file.
    """
    path = Path(path)
    with explained(path):
        _refuse_foreign(path)
        _refuse_misplaced(path)
        if not (path / RECORD).exists():
            path.mkdir(parents=True, exist_ok=True)
            write_run(path, record)
            return None
    old, new = read_run(path), json.loads(json.dumps(record))
    history, found = old.pop(GROWN, []), list(_differences(old, new))
    raised = [str(change) for change in found if change.name in grows and change.raises()]
    lines = [str(c) for c in found if not _below(c.name, ignore) and str(c) not in raised]
    if lines:
        raise UserError(
            f"--run={path} is a run of another configuration (there -> asked for):\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nask for the same configuration to resume it, choose another --run, or delete it"
        )
    if old != new:
        history = [*history, *raised] if isinstance(history, list) else raised
        with explained(path):
            write_run(path, {**record, GROWN: history} if history else record)
    return old


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
        record = parse_json((path / RECORD).read_bytes())
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
    return [str(change) for change in _differences(old, new)]


_ABSENT = object()


class _Change(NamedTuple):
    """One difference: the dotted name, and the values."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.name == "dataset.fingerprint":  # two hashes tell people nothing
            return "dataset: the data have changed"
        a, b = ("absent" if x is _ABSENT else json.dumps(x) for x in (self.old, self.new))
        return f"{self.name}: {a} -> {b}"

    def raises(self) -> bool:
        """Whether a whole number has become a larger one."""
        return type(self.old) is type(self.new) is int and self.old < self.new


def _differences(old: dict, new: dict, prefix: str = "") -> Iterator[_Change]:
    """Every difference of two nested records."""
    for key in {**old, **new}:
        a, b, name = old.get(key, _ABSENT), new.get(key, _ABSENT), f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{name}.")
        elif a != b:
            yield _Change(name, a, b)


def _below(name: str, parents: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of `parents` or lies below one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _refuse_foreign(path: Path) -> None:
    """Raises `UserError` if there is something at `path` that is not a run of ours."""
    if path.exists() and not path.is_dir():
        raise UserError(f"--run={path} is a file; choose a directory")
    if not path.exists() or (path / RECORD).exists():
        return
    others = sorted({p.name for p in path.iterdir()} - {LOCK, HOLDER, PARTIAL})
    if others:
        raise UserError(
            f"--run={path} holds other files ({', '.join(others[:3])}, no {RECORD}) and is not "
            "a run; choose a new or an empty directory"
        )


def _refuse_misplaced(path: Path) -> None:
    """Raises `UserError` if a folder is where the run writes a file, or a file where a folder."""
    wrong = [
        f"{name} is a folder, and has to be a file" for name in FILES if (path / name).is_dir()
    ]
    wrong += [
        f"{name} is a file, and has to be a folder" for name in FOLDERS if (path / name).is_file()
    ]
    if wrong:
        raise UserError(f"--run={path}: {'; '.join(wrong)}: move it elsewhere")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of the file system into `UserError`s that name --run."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--run={path} cannot be used ({error}); choose a directory that can be written to"
        ) from error
