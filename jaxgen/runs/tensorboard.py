"""TensorBoard's event files: the only file that knows tensorboardX."""

import contextlib
import time
from pathlib import Path
from typing import Any


class Events:
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
        # Hides what an earlier attempt, also one that saved nothing, wrote of the steps to come.
        begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._put(step=start + 1, session_log=begin)
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
