"""The runs that train together, one a seed: what each reads, writes and reports by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.checkpoint import Checkpoints, NoCheckpoint
from jaxgen.errors import Stopped, UserError
from jaxgen.log import Log
from jaxgen.loop import Progress
from jaxgen.run import Run


@dataclass(frozen=True)
class Keys:
    """A run's independent streams of randomness."""

    init: jax.Array
    train: jax.Array
    evaluate: jax.Array
    sample: jax.Array


def keys_of(seed: int) -> Keys:
    """All keys of a run follow from its seed."""
    return Keys(*jax.random.split(jax.random.key(seed), 4))


@dataclass(frozen=True)
class Member:
    """A run of one seed, while it trains."""

    run: Run
    directory: Path
    keys: Keys
    checkpoints: Checkpoints
    log: Log

    @property
    def seed(self) -> int:
        return self.run.train.seed


def restore(checkpoints: Sequence[Checkpoints], fresh: list[Progress]) -> tuple[list, int]:
    """Returns (the progress of every member, step) of the newest step that all have saved.

    A stop between the members' saves leaves some a step ahead; what they have beyond the common
    step stays on disk. All start afresh, at step 0, if one of them has nothing to start from.
    Raises UserError if all have checkpoints but no step in common.
    """
    try:
        if len(checkpoints) == 1:
            progress, step = checkpoints[0].restore(fresh[0])
            return [progress], step
        while common := set.intersection(*(set(c.steps()) for c in checkpoints)):
            step = max(common)
            try:
                pairs = zip(checkpoints, fresh, strict=True)
                return [c.restore(state, step)[0] for c, state in pairs], step
            except NoCheckpoint:  # it is damaged, has said so, and is out of the way
                continue
    except NoCheckpoint:
        return fresh, 0
    if not all(c.steps() for c in checkpoints):
        return fresh, 0
    have = "\n".join(f"  {c.directory.parent}: {c.steps()}" for c in checkpoints)
    raise UserError(
        f"--seeds={len(checkpoints)}: the seeds have no checkpoint of the same step:\n{have}\n"
        "finish each alone, with its own --seed and --run, and run the same command again; or "
        "choose another --run"
    )


def means(found: Sequence[dict[str, float]]) -> str:
    """The members' metrics for people: the mean, and of several the standard deviation."""

    def told(values: np.ndarray) -> str:
        spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
        return f"{values.mean():.4g}{spread}"

    return ", ".join(f"{n} {told(np.array([f[n] for f in found]))}" for n in found[0])


class Meter:
    """Per-step metrics of a log interval, fetched one dispatch late; watches for divergence."""

    def __init__(self, members: Sequence[Member], max_skipped: int) -> None:
        self._members, self._max_skipped = members, max_skipped
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
        # [steps members], also where one member alone has no axis.
        fetched = jax.device_get(stacked)
        sound = np.atleast_1d(fetched.pop("sound"))
        values = {name: np.asarray(v)[:count].reshape(count, -1) for name, v in fetched.items()}
        self._steps.append(values)
        applied = values["applied"]
        shown = {name: v[applied].mean() for name, v in _measured(values) if applied.any()}
        self._members[0].log.progress(step + count, shown)
        for i, (member, row) in enumerate(zip(self._members, np.atleast_1d(in_a_row), strict=True)):
            if not sound[i]:
                raise Stopped(self._unsound(member, step + count), 1)
            if max(int(row), _longest(~applied[:, i])) >= self._max_skipped:
                mine = {name: v[:, i] for name, v in values.items()}
                raise Stopped(self._diverged(member, step, mine), 1)

    def row(self, step: int) -> None:
        """Writes every member's means of the interval, over its applied steps."""
        joined = {name: np.concatenate([s[name] for s in self._steps]) for name in self._steps[0]}
        for i, member in enumerate(self._members):
            applied = joined["applied"][:, i]
            kept = {name: v[applied, i] for name, v in _measured(joined)}
            found = {name: v.mean() if v.size else float("nan") for name, v in kept.items()}
            member.log.write(step, "train", {**found, "skipped": int((~applied).sum())})
        self._steps = []

    def _diverged(self, member: Member, step: int, values: dict[str, np.ndarray]) -> str:
        worst = int(np.argmin(values["applied"]))
        bad = [name for name, v in _measured(values) if not np.isfinite(v[worst])]
        what = ", ".join(bad)
        return (
            f"stopped: {self._who(member)}{self._max_skipped} steps in a row were not finite and "
            f"were not applied; at step {step + worst + 1} it was {what}. {_advice(member)}"
        )

    def _unsound(self, member: Member, step: int) -> str:
        return (
            f"stopped: {self._who(member)}the state at step {step} is not finite, although every "
            f"gradient that made it was. {_advice(member)}"
        )

    def _who(self, member: Member) -> str:
        return f"seed {member.seed}: " if len(self._members) > 1 else ""


def _advice(member: Member) -> str:
    return (
        f"The last good checkpoint is kept in {member.directory}; train a new --run with a lower "
        "learning rate"
    )


def _measured(values: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """The model's own metrics."""
    return [(name, v) for name, v in values.items() if name != "applied"]


def _longest(bad: np.ndarray) -> int:
    """The longest run of True."""
    longest = run = 0
    for b in bad:
        run = run + 1 if b else 0
        longest = max(longest, run)
    return longest
