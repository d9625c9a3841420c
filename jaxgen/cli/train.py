"""The command `train`."""

import contextlib
import dataclasses
import shlex
from pathlib import Path

from jaxgen.cli.commands import usable
from jaxgen.cli.flags import spelling
from jaxgen.cli.parse import parse_run
from jaxgen.data.dataset import Dataset
from jaxgen.errors import warn
from jaxgen.evaluation.fitted import make_score
from jaxgen.optim.optimizer import Optimizer
from jaxgen.report.finish import finish_seeds
from jaxgen.runs.config import Run, runs_by_seed
from jaxgen.runs.directory import claim, lock
from jaxgen.runs.record import record_of
from jaxgen.training.trainer import Trainer, check

MAY_CHANGE = ("environment", "data.data_dir", "data.cache_dir", "train.devices")
"""What may differ between a run and its resumption."""
LENGTH = "train.steps"
"""What may be more."""


def train(argv: list[str]) -> None:
    """Trains what the flags describe, or goes on with it, and measures it."""
    run, directory, dataset = parse_run(argv, "train.py")
    with spelling(type(run.model), run.name, argv):
        check(run, dataset)
        _train(run, directory, dataset)


def _train(run: Run, directory: Path, dataset: Dataset) -> None:
    runs = runs_by_seed(run, directory)
    with contextlib.ExitStack() as locks:
        # The parent of several comes first: what it refuses leaves theirs untouched.
        for each, where in dict.fromkeys([(run, directory), *runs]):
            locks.enter_context(lock(where))
            old = claim(where, record_of(each, dataset), MAY_CHANGE, (LENGTH,))
            if where == directory and old and old["train"]["steps"] < run.train.steps:
                warn(f"{where}: {lengthened(run, old['train']['steps'])}")
        scored = run.model.monitor not in run.model.metrics
        score = make_score(run, dataset, runs[0][1])[1] if scored else None
        Trainer(run, dataset, directory, score).train()
        finish_seeds(run, dataset, directory, print, next_commands)


def lengthened(run: Run, before: int) -> str:
    """What it means for a run that it had `before` steps, and is to have more."""
    fields = {f.name: getattr(run.model, f.name) for f in dataclasses.fields(run.model)}
    rates = {name: x for name, x in fields.items() if isinstance(x, Optimizer) and x.decay_steps}
    ended = [
        f"{name}.decay_steps={x.decay_steps}"
        for name, x in rates.items()
        if x.constant_steps + x.decay_steps < run.train.steps
    ]
    still = f": with {', '.join(ended)} the learning rate is 0 from there on" if ended else ""
    return (
        f"lengthened from {before} to {run.train.steps} steps; schedules count steps of their own, "
        f"and stay as they were{still}"
    )


def next_commands(run: Run, directory: Path) -> list[str]:
    """What can be done with the run next, a command line each."""
    where = shlex.quote(str(directory))
    return [f"jaxgen {name} --run={where}" for name in usable(run.model)]
