"""The end of a run: its results measured, written and told."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jaxgen.abilities import Watches
from jaxgen.data.dataset import Dataset
from jaxgen.evaluation.across_seeds import summarize
from jaxgen.evaluation.results import Results, final_results
from jaxgen.evaluation.subject import Subject
from jaxgen.files import write_atomic, write_json
from jaxgen.media.kinds import ROOM, save_samples
from jaxgen.parallel.mesh import make_mesh
from jaxgen.report import tables
from jaxgen.report.page import write_report
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.config import Run, runs_by_seed
from jaxgen.runs.directory import explained
from jaxgen.runs.state import shapes

Say = Callable[[str], None]
Commands = Callable[[Run, Path], list[str]]
"""What can be done with a run next, a command line each."""


def none(run: Run, directory: Path) -> list[str]:
    """No commands."""
    return []


def finish(
    run: Run, dataset: Dataset, directory: Path, say: Say, commands: Commands = none
) -> Results:
    """Measures a run, as `measure` does, and says what came out."""
    results, page = measure(run, dataset, directory, say, commands)
    say(tables.text(results))
    say(f"report: {page}")
    return results


def measure(
    run: Run, dataset: Dataset, directory: Path, say: Say, commands: Commands = none
) -> tuple[Results, Path]:
    """Measures the best checkpoint on the test split; writes results.json, the report with the
    `commands` to go on with, and a picture of samples.

    Returns the results and the report's path. It needs the run's directory and the data set
    alone, and may be called again.
    """
    directory = Path(directory)
    mesh = make_mesh(run.train.devices, run.train.batch_size)
    with Checkpoints(directory / "checkpoints", say=say, read_only=True) as checkpoints:
        progress, step = checkpoints.restore(shapes(run.model), "best")
        subject = Subject.of(run, dataset, mesh, progress.state, step, directory)
        subject = dataclasses.replace(subject, last=_last(subject, checkpoints))
    results = final_results(subject)
    with explained(directory):
        write_json(directory / "results.json", results.to_json())
        if subject.samples is not None:
            spec = run.model.spec
            save_samples(directory / "samples" / "final", subject.samples[: ROOM[spec.kind]], spec)
        return results, write_report(subject, results, commands(run, directory))


def _last(subject: Subject, checkpoints: Checkpoints) -> Subject | None:
    """What training ended with, where that is measured too: of a model that watches itself, since
    what it is to find out comes after the best checkpoint."""
    if not isinstance(subject.run.model, Watches):
        return None
    if checkpoints.latest() == subject.step:
        return subject
    progress, step = checkpoints.restore(shapes(subject.run.model))
    run, mesh = subject.run, subject.mesh
    return Subject.of(run, subject.dataset, mesh, progress.state, step, subject.directory)


SHARED = ("features.npz", "baselines.npz")
"""What a run keeps that is fitted to the data set alone, whatever the seed."""


def finish_seeds(
    run: Run, dataset: Dataset, directory: Path, say: Say, commands: Commands = none
) -> None:
    """Measures every seed as `finish` does, and of several writes and says the summary."""
    alone = runs_by_seed(run, directory)
    if len(alone) == 1:
        finish(run, dataset, directory, say, commands)
        return
    results = []
    for each, where in alone:
        share(alone[0][1], where)
        measured, page = measure(each, dataset, where, say, commands)
        say(f"seed {each.train.seed}: report: {page}")
        results.append(measured)
    summary = summarize(results)
    with explained(directory):
        write_json(directory / "results.json", summary.to_json())
    say(tables.seeds_text(summary))


def share(first: Path, other: Path) -> None:
    """Gives another seed's directory what the first one has fitted."""
    for name in SHARED:
        if (first / name).exists() and not (other / name).exists():
            with explained(other):
                write_atomic(other / name, (first / name).read_bytes())
