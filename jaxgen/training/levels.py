"""The levels of a run: the models that its steps are made by, one after another.

Most runs have one level. A model that grows (`Model.at`) has another one from each of its `changes`
on: the state stays the same, and the step is compiled anew.
"""

from typing import NamedTuple

from jaxgen.model import Model
from jaxgen.runs.config import Run


class Level(NamedTuple):
    """Steps start..end-1 of a run."""

    model: Model
    start: int
    end: int


def levels_of(run: Run) -> list[Level]:
    """The levels of a run, in order."""
    total = run.train.steps
    starts = [0, *(step for step in run.model.changes if 0 < step < total)]
    ends = [*starts[1:], total]
    return [Level(run.model.at(a), a, b) for a, b in zip(starts, ends, strict=True)]


def examples_per_step(run: Run, level: Level) -> int:
    """How many examples a step of that level consumes, over all devices."""
    return run.train.batch_size * level.model.minibatches


def examples_before(run: Run, step: int) -> int:
    """How many examples the steps before that one consumed."""
    return sum(
        max(0, min(step, level.end) - level.start) * examples_per_step(run, level)
        for level in levels_of(run)
    )
