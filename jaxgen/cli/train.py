"""The command `train`."""

import contextlib
import shlex
from pathlib import Path

from jaxgen.cli.commands import usable
from jaxgen.cli.flags import spelling
from jaxgen.cli.parse import parse_run
from jaxgen.data.dataset import Dataset
from jaxgen.evaluation.fitted import make_score
from jaxgen.report.finish import finish_seeds
from jaxgen.runs.config import Run, runs_by_seed
from jaxgen.runs.directory import claim, lock
from jaxgen.runs.record import record_of
from jaxgen.training.trainer import Trainer, check

MAY_CHANGE = ("environment", "data.data_dir", "data.cache_dir", "train.devices")
"""What may differ between a run and its resumption."""


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
            claim(where, record_of(each, dataset), MAY_CHANGE)
        scored = run.model.monitor not in run.model.metrics
        score = make_score(run, dataset, runs[0][1])[1] if scored else None
        Trainer(run, dataset, directory, score).train()
        finish_seeds(run, dataset, directory, print, next_commands)


def next_commands(run: Run, directory: Path) -> list[str]:
    """What can be done with the run next, a command line each."""
    where = shlex.quote(str(directory))
    return [f"jaxgen {name} --run={where}" for name in usable(run.model)]
