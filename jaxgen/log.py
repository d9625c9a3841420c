"""Where a run's numbers go: metrics.jsonl (the record), TensorBoard, and a progress bar.

No failure to log ends the training: it is told once, and the run goes on.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jaxgen.rundir import write_atomic

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
QUIET = 10.0
"""Seconds between the plain progress lines that a terminal's bar is replaced by elsewhere."""


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in order; a line that an interruption tore is left out."""
    rows = []
    for line in Path(path).read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


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
        kind = _Bar if stream.isatty() else _Lines
        self._beside = beside
        self._progress: _Bar | _Lines = (
            beside._progress if beside else kind(stream, total, start, images_per_step)
        )
        self._warned: set[str] = set()
        self._torn = False
        self._file = self._events = None
        try:
            _drop_after(self._run / METRICS, start)
            # Unbuffered: a row that fails is lost, and does not come back at some later flush.
            self._file = open(self._run / METRICS, "ab", buffering=0)
        except OSError as error:
            self._warn(METRICS, error)
        try:
            self._events = _Events(self._run / TENSORBOARD, start) if tensorboard else None
        except OSError as error:
            self._warn(TENSORBOARD, error)

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
            self._warn(METRICS, error)

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


def _drop_after(path: Path, step: int) -> None:
    """Drops, in one atomic rewrite, the rows beyond `step` and torn lines."""
    if not path.exists():
        return
    rows = [row for row in read_metrics(path) if row.get("step", 0) <= step]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if text != path.read_bytes():
        write_atomic(path, text)


class _Events:
    """A TensorBoard event file, written synchronously.

    tensorboardX's SummaryWriter hands events to a thread; if that dies of a full disk, the
    next few calls fill its queue and the caller then waits for ever. Here errors are raised.
    """

    def __init__(self, directory: Path, start: int) -> None:
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._event = event_pb2.Event
        now = time.time_ns()  # to the nanosecond: a quick resume must not overwrite a file
        self._file = RecordWriter(str(directory / f"events.out.tfevents.{now // 10**9}.{now}"))
        self._put(file_version="brain.Event:2")
        if start > 0:  # hides what is there from step start + 1 on
            restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._put(step=start + 1, session_log=restart)
        self._file.flush()

    def write(self, step: int, scalars: dict[str, float], images: dict) -> None:
        from tensorboardX import summary

        for name, value in scalars.items():
            self._put(step=step, summary=summary.scalar(name, value))
        for name, picture in images.items():
            self._put(step=step, summary=summary.image(name, picture, dataformats="HWC"))
        self._file.flush()

    def _put(self, **what: Any) -> None:
        event = self._event(wall_time=time.time(), **what)
        self._file.write(event.SerializeToString())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class _Bar:
    """Progress on a terminal: a tqdm bar."""

    def __init__(self, stream: TextIO, total: int, start: int, images_per_step: int) -> None:
        from tqdm import tqdm

        form = "{n_fmt}/{total_fmt} |{bar}| {percentage:3.0f}%  {elapsed}<{remaining}{postfix}"
        self._stream, self._tqdm = stream, tqdm
        self._bar = tqdm(
            total=total, initial=start, file=stream, bar_format=form, dynamic_ncols=True
        )
        self._rate = _Rate(start, images_per_step)

    def show(self, step: int, metrics: dict[str, float]) -> None:
        self._bar.set_postfix_str(_facts(metrics, self._rate(step)), refresh=False)
        self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        self._tqdm.write(text, file=self._stream)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """Progress anywhere else: a plain line now and then, and for the last step."""

    def __init__(self, stream: TextIO, total: int, start: int, images_per_step: int) -> None:
        self._stream, self._total = stream, total
        self._rate = _Rate(start, images_per_step)
        self._first = start, time.monotonic()
        self._shown: float | None = None

    def show(self, step: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if self._shown is not None and now - self._shown < QUIET and step < self._total:
            return
        self._shown = now
        done, seconds = step - self._first[0], now - self._first[1]
        left = round(seconds / done * (self._total - step)) if done > 0 else 0
        facts = _facts(metrics, self._rate(step))
        self.say(f"step {step}/{self._total}  {facts}, {left // 60}:{left % 60:02d} left")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class _Rate:
    """Images per second since the call before."""

    def __init__(self, start: int, images_per_step: int) -> None:
        self._last = start, time.monotonic()
        self._images = images_per_step

    def __call__(self, step: int) -> float:
        (before, then), now = self._last, time.monotonic()
        self._last = step, now
        return (step - before) * self._images / max(now - then, 1e-9)


def _facts(metrics: dict[str, float], images_per_second: float) -> str:
    """The metrics and the speed, for people."""
    facts = [f"{name}={value:.4g}" for name, value in metrics.items()]
    if images_per_second > 0:
        facts.append(f"{images_per_second:,.0f} images/s")
    return ", ".join(facts)
