"""Runs that were trained: a run directory to a model and its state, without the data set."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax

from jaxgen import loop
from jaxgen.checkpoint import Checkpoints
from jaxgen.data import DataConfig
from jaxgen.errors import UserError
from jaxgen.model import Model
from jaxgen.registry import preset
from jaxgen.run import Run, TrainConfig, from_dict, members_of, to_dict
from jaxgen.rundir import environment, read_run


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


def record_of(run: Run, dataset: Any) -> dict[str, Any]:
    """run.json: the whole resolved configuration, the data's fingerprint, and what ran."""
    return {
        "model_name": run.name,
        "model": to_dict(run.model),
        "data": to_dict(run.data),
        "train": to_dict(run.train),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "protocol": dataset.protocol,
            "class_names": list(dataset.class_names),
        },
        "environment": environment(),
    }


def run_of(record: dict[str, Any]) -> Run:
    """The Run that `record_of` described."""
    try:
        name = record["model_name"]
        model = from_dict(type(preset(name).model), record["model"])
        data = from_dict(DataConfig, record["data"])
        train = from_dict(TrainConfig, record["train"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"run.json is incomplete ({error}): restore it from a copy, or train again"
        ) from error
    return Run(name, model, data, train)


def load_run(
    directory: str | Path, checkpoint: Literal["best", "latest"] | int = "best"
) -> SavedRun:
    """Returns the trained model of a run directory, and changes nothing in it.

    `checkpoint` is "best" (by validation), "latest" or a step. Raises UserError if the directory
    is not a run, has no usable checkpoint, or does not fit this version.
    """
    record = read_run(directory)
    run = run_of(record)
    if run.train.seeds > 1:
        (_, first), *_, (_, last) = members_of(run, directory)
        raise UserError(
            f"--run={directory} holds a run for each of {run.train.seeds} seeds; "
            f"give one of them, --run={first} to {last}"
        )
    fresh = jax.eval_shape(lambda: loop.start(run.model.init(jax.random.key(0))))
    step = None if checkpoint == "latest" else checkpoint
    with Checkpoints(Path(directory) / "checkpoints", say=_warn, read_only=True) as checkpoints:
        progress, at = checkpoints.restore(fresh, step)
    return SavedRun(run, progress.state, at, record)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)
