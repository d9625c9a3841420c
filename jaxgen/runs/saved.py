"""Runs that were trained: a run directory to a model and its state, without the data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxgen.errors import UserError, warn
from jaxgen.files import user_path
from jaxgen.model import Model
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.config import Run, runs_by_seed
from jaxgen.runs.directory import read_run
from jaxgen.runs.record import run_of
from jaxgen.runs.state import shapes


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A trained model: `model.sample(key, state, num)` draws from it."""

    run: Run
    state: Any
    """The model's state, on the default device."""
    step: int
    """The step of the checkpoint that it came from."""
    record: dict[str, Any]
    """run.json."""

    @property
    def model(self) -> Model:
        return self.run.model


def load_run(
    directory: str | Path,
    checkpoint: Literal["best", "latest"] | int,
    kind: Callable[[str], type[Model]],
) -> SavedRun:
    """Returns the trained model of a run directory, and changes nothing in it.

    `kind` gives the type of the model of that name. `checkpoint` is "best" (by validation),
    "latest" or a step. Raises UserError if the directory is not a run, has no usable checkpoint,
    or does not fit this version.
    """
    directory = user_path(directory, "--run")
    record = read_run(directory)
    run = run_of(record, kind)
    if run.train.seeds > 1:
        (_, first), *_, (_, last) = runs_by_seed(run, directory)
        raise UserError(
            f"--run={directory} holds a run for each of {run.train.seeds} seeds; "
            f"give one of them, --run={first} to {last}"
        )
    fresh = shapes(run.model)
    step = None if checkpoint == "latest" else checkpoint
    with Checkpoints(directory / "checkpoints", say=warn, read_only=True) as checkpoints:
        progress, at = checkpoints.restore(fresh, step)
    return SavedRun(run, progress.state, at, record)
