"""The command `evaluate`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxgen.cli.command import Command
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.parallel.mesh import make_mesh


@dataclass(frozen=True)
class Evaluate(Command):
    """Measure a run on a whole split of its data set, beside the baselines."""

    split: Literal["train", "validation", "test"] = "test"
    """What to measure on."""
    k: int | None = None
    """VAE: samples of the importance-weighted bound; default: the run's --vae.final_k."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""

    def __call__(self) -> None:
        from jaxgen.evaluation import results
        from jaxgen.files import write_json
        from jaxgen.report.finish import table

        saved = self.load()
        run = saved.run
        if self.k is not None:
            if self.k < 1 or "final_k" not in {f.name for f in dataclasses.fields(run.model)}:
                raise UserError(f"--k={self.k}: only a VAE has a bound of k samples, k at least 1")
            model = dataclasses.replace(run.model, final_k=self.k)  # type: ignore[call-arg]
            run = dataclasses.replace(run, model=model)
        if self.data_dir is not None:
            run = dataclasses.replace(
                run, data=dataclasses.replace(run.data, data_dir=self.data_dir)
            )
        dataset = load(run.data)
        if dataset.fingerprint != saved.record["dataset"]["fingerprint"]:
            raise UserError(
                f"--run={self.run} was trained on other data than {dataset.name} is now "
                "(the fingerprints differ); give the original with --data_dir"
            )
        found = results.final_results(
            run, dataset, make_mesh(), saved.state, saved.step, Path(self.run), self.split
        )
        print(table(found))
        bound = "" if self.k is None else f"_k{self.k}"
        name = f"results_{self.split}{bound}.json"
        write_json(Path(self.run) / name, found)
        print(f"written to {Path(self.run) / name}")
