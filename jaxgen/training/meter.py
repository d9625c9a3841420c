"""Per-step metrics of a log interval, and the watch for divergence."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import Stopped
from jaxgen.training.interval import Interval
from jaxgen.training.seeds import SeedRun


class Meter:
    """Per-step metrics of a log interval, fetched one dispatch late; watches for divergence."""

    def __init__(self, runs: Sequence[SeedRun], max_skipped: int, first: int) -> None:
        """The runs begin, or resume, at step `first`, within the interval that they stopped in."""
        self._runs, self._max_skipped = runs, max_skipped
        self._pending: tuple[int, int, Any, Any] | None = None
        notes = [run.checkpoints.notes(first) if first else {} for run in runs]
        self._intervals = [Interval(**each) for each in notes]

    def add(self, step: int, count: int, metrics: dict[str, jax.Array], in_a_row: Any) -> None:
        """Takes the metrics of a dispatch, of `count` steps from `step` on, for the next `read`."""
        # A copy, since `in_a_row` is donated to the next dispatch.
        self._pending = (step, count, metrics, jnp.copy(in_a_row))

    def read(self) -> None:
        """Waits for the pending steps, takes their metrics, and raises Stopped on divergence."""
        if self._pending is None:
            return
        step, count, stacked, in_a_row = self._pending
        self._pending = None
        # [steps seeds], also where one seed alone has no axis.
        fetched = jax.device_get(stacked)
        sound = np.atleast_1d(fetched.pop("sound"))
        values = {name: np.asarray(v)[:count].reshape(count, -1) for name, v in fetched.items()}
        applied = values.pop("applied")
        shown = {name: v[applied].mean() for name, v in values.items() if applied.any()}
        self._runs[0].log.progress(step + count, shown)
        for i, (run, row) in enumerate(zip(self._runs, np.atleast_1d(in_a_row), strict=True)):
            mine = {name: v[:, i] for name, v in values.items()}
            self._intervals[i].add(mine, applied[:, i])
            if not sound[i]:
                raise Stopped(self._unsound(run, step + count), 1)
            if max(int(row), _longest(~applied[:, i])) >= self._max_skipped:
                worst = int(np.argmin(applied[:, i]))
                bad = [name for name, v in mine.items() if not np.isfinite(v[worst])]
                raise Stopped(self._diverged(run, step + worst + 1, bad), 1)

    def row(self, step: int) -> list[dict[str, float]]:
        """Writes every seed's row, begins the next interval, and returns the rows."""
        rows = [interval.row() for interval in self._intervals]
        for run, row in zip(self._runs, rows, strict=True):
            run.log.write(step, "train", row)
        self._intervals = [Interval() for _ in self._runs]
        return rows

    def notes(self, i: int) -> dict[str, Any]:
        """What a checkpoint of the i-th seed has to keep of the interval under way, as JSON."""
        return asdict(self._intervals[i])

    def _diverged(self, run: SeedRun, step: int, bad: list[str]) -> str:
        return (
            f"stopped: {self._who(run)}{self._max_skipped} steps in a row were not finite and "
            f"were not applied; at step {step} it was {', '.join(bad)}. {_advice(run)}"
        )

    def _unsound(self, run: SeedRun, step: int) -> str:
        return (
            f"stopped: {self._who(run)}the state at step {step} is not finite, although every "
            f"gradient that made it was. {_advice(run)}"
        )

    def _who(self, run: SeedRun) -> str:
        return f"seed {run.seed}: " if len(self._runs) > 1 else ""


def _advice(run: SeedRun) -> str:
    return f"Train a new --run with a lower learning rate; {run.checkpoints.told()}"


def _longest(bad: np.ndarray) -> int:
    """The longest run of True."""
    length = longest = 0
    for b in bad:
        length = length + 1 if b else 0
        longest = max(longest, length)
    return longest
