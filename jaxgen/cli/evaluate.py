"""The command `evaluate`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxgen.abilities import drawn
from jaxgen.cli.command import Command, at_least, data_of
from jaxgen.errors import UserError
from jaxgen.evaluation.results import final_results
from jaxgen.evaluation.subject import Subject
from jaxgen.files import user_path, write_json
from jaxgen.parallel.mesh import make_mesh
from jaxgen.report import tables
from jaxgen.runs.directory import explained
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Evaluate(Command):
    """Measure a run on a whole split of its data set, beside the baselines."""

    does: ClassVar = "measure it on a whole split, beside the baselines"

    split: Literal["train", "validation", "test"] = "test"
    """What to measure on."""
    k: int | None = None
    """Draws of the importance-weighted bound, for models that have one; default: the run's
    --draws."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""

    def check(self) -> None:
        if self.k is not None:
            at_least(1, k=self.k)

    def act(self, saved: SavedRun) -> None:
        if self.k is not None and not drawn(saved.model):
            raise UserError(
                f"--k={self.k}: {saved.run.name} has no likelihood that takes draws; leave it out"
            )
        directory = user_path(self.run, "--run")
        dataset = data_of(self.run, saved, self.data_dir)
        subject = Subject.of(
            saved.run, dataset, make_mesh(), saved.state, saved.step, directory, self.split, self.k
        )
        measured = final_results(subject)
        print(tables.text(measured))
        bound = "" if self.k is None else f"_k{self.k}"
        path = directory / f"results_{self.split}{bound}.json"
        with explained(directory):
            write_json(path, measured.to_json())
        print(f"written to {path}")
