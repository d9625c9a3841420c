"""Per-step metrics of a log interval, and the watch for divergence."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import Stopped
from jaxgen.training.seeds import SeedRun


class Meter:
    """Per-step metrics of a log interval, fetched one dispatch late; watches for divergence."""

    def __init__(self, runs: Sequence[SeedRun], max_skipped: int) -> None:
        self._runs, self._max_skipped = runs, max_skipped
        self._pending: tuple[int, int, Any, Any] | None = None
        self._steps: list[dict[str, np.ndarray]] = []

    def add(self, step: int, count: int, metrics: dict[str, jax.Array], in_a_row: Any) -> None:
        """Takes the metrics of a dispatch, of `count` steps from `step` on, for the next `read`."""
        # A copy, since `in_a_row` is donated to the next dispatch.
        self._pending = (step, count, metrics, jnp.copy(in_a_row))

    def read(self) -> None:
        """Waits for the pending steps, keeps their metrics, and raises Stopped on divergence."""
        if self._pending is None:
            return
        step, count, stacked, in_a_row = self._pending
        self._pending = None
        # [steps seeds], also where one seed alone has no axis.
        fetched = jax.device_get(stacked)
        sound = np.atleast_1d(fetched.pop("sound"))
        values = {name: np.asarray(v)[:count].reshape(count, -1) for name, v in fetched.items()}
        self._steps.append(values)
        applied = values["applied"]
        shown = {name: v[applied].mean() for name, v in _measured(values) if applied.any()}
        self._runs[0].log.progress(step + count, shown)
        for i, (run, row) in enumerate(zip(self._runs, np.atleast_1d(in_a_row), strict=True)):
            if not sound[i]:
                raise Stopped(self._unsound(run, step + count), 1)
            if max(int(row), _longest(~applied[:, i])) >= self._max_skipped:
                mine = {name: v[:, i] for name, v in values.items()}
                raise Stopped(self._diverged(run, step, mine), 1)

    def row(self, step: int) -> None:
        """Writes every seed's means of the interval, over its applied steps."""
        names = dict.fromkeys(name for values in self._steps for name, _ in _measured(values))
        for i, run in enumerate(self._runs):
            means = {}
            for name in names:
                # A model that grows may measure more on one level than on another.
                applied = [v[name][v["applied"][:, i], i] for v in self._steps if name in v]
                joined = np.concatenate(applied)
                means[name] = joined.mean() if joined.size else float("nan")
            skipped = sum(int((~v["applied"][:, i]).sum()) for v in self._steps)
            run.log.write(step, "train", {**means, "skipped": skipped})
        self._steps = []

    def _diverged(self, run: SeedRun, step: int, values: dict[str, np.ndarray]) -> str:
        worst = int(np.argmin(values["applied"]))
        bad = [name for name, v in _measured(values) if not np.isfinite(v[worst])]
        what = ", ".join(bad)
        return (
            f"stopped: {self._who(run)}{self._max_skipped} steps in a row were not finite and "
            f"were not applied; at step {step + worst + 1} it was {what}. {_advice(run)}"
        )

    def _unsound(self, run: SeedRun, step: int) -> str:
        return (
            f"stopped: {self._who(run)}the state at step {step} is not finite, although every "
            f"gradient that made it was. {_advice(run)}"
        )

    def _who(self, run: SeedRun) -> str:
        return f"seed {run.seed}: " if len(self._runs) > 1 else ""


def _advice(run: SeedRun) -> str:
    return (
        f"The last good checkpoint is kept in {run.directory}; train a new --run with a lower "
        "learning rate"
    )


def _measured(values: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """The model's own metrics."""
    return [(name, v) for name, v in values.items() if name != "applied"]


def _longest(bad: np.ndarray) -> int:
    """The longest run of True."""
    length = longest = 0
    for b in bad:
        length = length + 1 if b else 0
        longest = max(longest, length)
    return longest
