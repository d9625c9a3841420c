"""The end of a run: its results measured, written and told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.data.dataset import Dataset
from jaxgen.evaluation.across_seeds import summarize
from jaxgen.evaluation.results import SHOWN, final_results, inspect
from jaxgen.files import write_atomic, write_json
from jaxgen.parallel import inference
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.report import tables
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.config import Run, members_of
from jaxgen.runs.state import keys_of, start


def finish(
    run: Run, dataset: Dataset, directory: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures a run, as `measure` does, and says what came out."""
    results, page = measure(run, dataset, directory, say)
    say(table(results))
    say(f"report: {page}")
    return results


def measure(
    run: Run, dataset: Dataset, directory: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], Path]:
    """Measures the best checkpoint on the test split; writes results.json and the report.

    Returns the results and the report's path. It needs the run's directory and the data set
    alone, and may be called again.
    """
    from jaxgen.report.page import write_report

    directory = Path(directory)
    mesh, keys = make_mesh(run.train.devices, run.train.batch_size), keys_of(run.train.seed)
    fresh = jax.eval_shape(lambda: start(run.model.init(keys.init)))
    with Checkpoints(directory / "checkpoints", say=say, read_only=True) as checkpoints:
        progress, step = checkpoints.restore(fresh, "best")
    state = put(mesh, WHOLE, progress.state)
    results = final_results(run, dataset, mesh, state, step, directory)
    write_json(directory / "results.json", results)
    samples = inference.draw(run.model, mesh, keys.sample, state, SHOWN)
    real = np.asarray(dataset.materialize(results["split"]).images[:SHOWN])
    page = write_report(directory, run, results, samples, real, inspect(run, dataset, state))
    return results, page


def table(results: dict[str, Any]) -> str:
    """What `final_results` returned, as plain text."""
    return tables.text(results)


SHARED = ("features.npz", "baselines.npz")
"""What a run keeps that is fitted to the data set alone, whatever the seed."""


def finish_seeds(run: Run, dataset: Dataset, directory: Path, say: Callable[[str], None]) -> None:
    """Measures every seed as `results.finish` does, and of several writes and says the summary."""
    members = members_of(run, directory)
    if len(members) == 1:
        finish(run, dataset, directory, say)
        return
    found = []
    for member, where in members:
        share(members[0][1], where)
        measured, page = measure(member, dataset, where, say)
        say(f"seed {member.train.seed}: report: {page}")
        found.append(measured)
    summary = summarize(found)
    write_json(directory / "results.json", summary)
    say(tables.seeds_text(summary))


def share(first: Path, other: Path) -> None:
    """Gives another seed's directory what the first one has fitted."""
    for name in SHARED:
        if (first / name).exists() and not (other / name).exists():
            write_atomic(other / name, (first / name).read_bytes())
