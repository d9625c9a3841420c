"""Where a run's numbers go: metrics.jsonl (the record), TensorBoard, and a progress bar.

No failure to log ends the training: it is told once, and the run goes on.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jaxgen.files import parse_json, write_atomic
from jaxgen.runs.bar import Bar, Lines
from jaxgen.runs.tensorboard import Events

METRICS_FILE, TENSORBOARD = "metrics.jsonl", "tensorboard"


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in order; lines that are torn or damaged are left out."""
    lines = Path(path).read_bytes().splitlines()
    return [row for line in lines if (row := _row(line)) is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    """The row that a line holds: a step, the name of a split, and numbers or null; else None."""
    try:
        row = parse_json(line)
        numbers = dict(row)
        named = type(row["step"]) is int and isinstance(numbers.pop("split"), str)
    except (ValueError, TypeError, KeyError):
        return None
    return row if named and all(map(_is_number, numbers.values())) else None


def _is_number(x: Any) -> bool:
    """Whether it is null or a number that a float can hold."""
    return x is None or (type(x) in (int, float) and abs(x) <= sys.float_info.max)


class Log:
    """Writes the metrics of a run that starts, or resumes, at step `start`.

    What an earlier attempt wrote about steps beyond `start` is dropped.
    """

    def __init__(
        self,
        run: str | os.PathLike,
        total: int,
        *,
        start: int = 0,
        images_per_step: int = 0,
        tensorboard: bool = True,
        stream: TextIO | None = None,
        beside: "Log | None" = None,
    ) -> None:
        """`total` is the run's last step; `stream` takes progress and messages (stderr), unless
        the run trains `beside` another one, whose log then shows them."""
        self._run = Path(run)
        stream = sys.stderr if stream is None else stream
        kind = Bar if stream.isatty() else Lines
        self._beside = beside
        self._progress: Bar | Lines = (
            beside._progress if beside else kind(stream, total, start, images_per_step)
        )
        self._warned: set[str] = set()
        self._torn = False
        self._file = self._events = None
        try:
            if damaged := _drop_after(self._run / METRICS_FILE, start):
                path = self._run / METRICS_FILE
                self.say(f"warning: lines of {path} that are damaged, and left out: {damaged}")
            # Unbuffered: a row that fails is lost, and does not come back at some later flush.
            self._file = open(self._run / METRICS_FILE, "ab", buffering=0)
        except OSError as error:
            self._warn(METRICS_FILE, error)
        try:
            self._events = Events(self._run / TENSORBOARD, start) if tensorboard else None
        except OSError as error:
            self._warn(TENSORBOARD, error)
        except ImportError:
            if beside is None:  # once for all seeds
                self.say("tensorboardX is not installed: TensorBoard is left out")

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Records scalars: a row of metrics.jsonl (null where not finite), and TensorBoard."""
        numbers = {name: np.asarray(value).item() for name, value in metrics.items()}
        row = {"step": int(step), "split": split}
        row |= {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        self._append(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._record(step, {f"{split}/{name}": x for name, x in numbers.items()}, {})

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Shows a uint8 picture [H W c] in TensorBoard."""
        self._record(step, {}, {name: picture})

    def progress(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Moves the bar to `step`, which is done."""
        numbers = {name: np.asarray(value).item() for name, value in metrics.items()}
        with contextlib.suppress(OSError):  # stderr may go to a full disk or a closed pipe
            self._progress.show(int(step), numbers)

    def say(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        with contextlib.suppress(OSError):
            self._progress.say(text)

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """A block that writes `what` of the run's directory: an OSError is told, once, and ends
        nothing but the block."""
        try:
            yield
        except OSError as error:
            self._warn(what, error)

    def close(self) -> None:
        """Ends the bar and closes the files; may be called twice."""
        with contextlib.suppress(OSError):
            if self._beside is None:
                self._progress.close()
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()
        self._file = self._events = None

    def _append(self, line: bytes) -> None:
        if self._file is None:
            return
        try:
            line = b"\n" + line if self._torn else line
            self._torn = True
            if self._file.write(line) != len(line):
                raise OSError("No space left on device")
            self._torn = False
        except OSError as error:
            self._warn(METRICS_FILE, error)

    def _record(self, step: int, scalars: dict[str, float], images: dict) -> None:
        if self._events is None:
            return
        try:
            self._events.write(int(step), scalars, images)
        except OSError as error:
            # TensorBoard reads an event file up to the first torn record: end it here.
            self._events.close()
            self._events = None
            self._warn(TENSORBOARD, error)

    def _warn(self, what: str, error: OSError) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self.say(f"warning: {self._run / what} cannot be written ({error}); training goes on")


def _drop_after(path: Path, step: int) -> int:
    """Drops, in one atomic rewrite, the rows beyond `step` and lines that are no rows; returns how
    many of these there were, but for a last one that an interruption tore."""
    if not path.exists():
        return 0
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    before = path.read_bytes()
    if text != before:
        write_atomic(path, text)
    *lines, _torn = before.split(b"\n")
    return sum(_row(line) is None for line in lines if line)
