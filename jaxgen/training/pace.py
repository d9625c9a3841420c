"""How many steps are dispatched at once, and the signals that stop a run."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SECONDS_PER_DISPATCH = 2.0
"""About how long one compiled call may run: signals and progress wait for it."""


class Pace:
    """How many steps to dispatch at once, from how long the last ones took."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.steps = 1
        self._since: float | None = None

    def dispatched(self, count: int) -> None:
        """Tells that `count` steps were dispatched, and all earlier ones are done."""
        now = time.monotonic()
        if self._since is not None:
            wanted = count * SECONDS_PER_DISPATCH / max(now - self._since, 1e-3)
            self.steps = int(min(max(1, wanted), 4 * self.steps, self._most))
        self._since = now

    def restart(self) -> None:
        """Forgets the clock: something other than training took the time."""
        self._since = None


@contextlib.contextmanager
def signals(say: Callable[[str], None]) -> Iterator[list[int]]:
    """Records SIGTERM and SIGINT, for the loop to act on after the steps under way.

    A second one acts at once, as it would have without us. Only the main thread can be told of
    signals: in another one none is recorded, and `say` is told so.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        say("not in the main thread: a signal saves nothing here, only validations do")
        yield received
        return
    before: dict[int, Any] = {}

    def record(number: int, frame: Any) -> None:
        received.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    for watched in (signal.SIGTERM, signal.SIGINT):
        before[watched] = signal.signal(watched, record)
    try:
        yield received
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
