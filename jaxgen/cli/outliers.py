"""The command `outliers`."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from jaxgen.abilities import Unnormalized, bounded
from jaxgen.cli.command import Command, at_least, data_of
from jaxgen.cli.output import grid_path, write_grid
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import heeds, load
from jaxgen.data.points import bins, from_units
from jaxgen.data.splits import Split
from jaxgen.errors import UserError
from jaxgen.evaluation.bounds import importance_weighted
from jaxgen.evaluation.outliers import ALARMS, DRAWS, Found, Scores, derived, found, png_nats, table
from jaxgen.fields import Only
from jaxgen.files import user_path, write_json
from jaxgen.media.kinds import ONE
from jaxgen.media.pictures import to_bytes
from jaxgen.media.points import in_units
from jaxgen.parallel.inference import examples, joined, per_example
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.registry import load_run
from jaxgen.report.tables import plain
from jaxgen.runs.directory import explained
from jaxgen.runs.saved import SavedRun
from jaxgen.runs.state import keys_of
from jaxgen.spec import DataSpec

SHOWN = 16
"""Examples of each row of the picture."""


@dataclass(frozen=True)
class Outliers(Command):
    """Tell another data set from the run's own by what the model measures of each example, beside
    the size of a PNG file; and show the most and the least likely."""

    needs: ClassVar = ()
    does: ClassVar = "tell other data from its own"
    only: ClassVar = {"fit": Only("without `size`", lambda command: command.size > 0)}

    dataset: str = ""
    """The other data set, named as for training; its test split is taken."""
    dataset_dir: str | None = None
    """Where the other data set is, as --data_dir for training."""
    size: int = 0
    """Make the other images of this size; 0 = as the run's were made."""
    fit: str = "resize"
    """How --size is reached: resize, crop or pad."""
    grey: bool = False
    """Turn the other images into grey ones."""
    levels: int = 0
    """Quantize the other data to so many levels; 0 = as the run's were."""
    against: str | None = None
    """A second run, on the same kind of data: its NLL is taken off (a likelihood ratio)."""
    k: int = 100
    """Draws of the importance-weighted bound, where the model has one."""
    data_dir: str | None = None
    """Where the run's own data set is now, if it has moved since training."""
    out: str = "outliers.png"
    """PNG file of the most and least likely examples, or a .wav of sounds."""
    seed: int = 0
    """Names the bootstrap's draws."""

    def check(self) -> None:
        at_least(1, k=self.k)

    def act(self, saved: SavedRun) -> None:
        if not self.dataset:
            raise UserError("--dataset: name the data set whose examples are to be told apart")
        path = grid_path(self.out, saved.model.spec)
        _unconditional(saved, self.run)
        second = self._second(saved)
        if self.k != Outliers.k and not any(bounded(s.model) for s in (saved, second) if s):
            raise UserError(f"--k={self.k}: {saved.run.name} has no bound; leave it out")
        own, other = data_of(self.run, saved, self.data_dir), self._other(saved)
        measured = self._measured(saved, own, other)
        likely = [name for name in measured if saved.model.metrics[name].likelihood]
        nll = measured[likely[0]] if likely else None
        named = {str(saved.model.metrics[name].label): s for name, s in measured.items()}
        if bounded(saved.model):
            named[f"bound of {self.k} draws"] = nll = self._bounds(saved, own, other)
        if isinstance(saved.model, Unnormalized):
            named["NLL but for its constant"] = nll = self._energies(saved, own, other)
        png = None
        if own.spec.kind == "image":
            png = Scores(*(
                png_nats(to_bytes(s.x, own.spec.levels)) for s in self._splits(own, other)
            ))  # fmt: skip
            named["PNG's size, no model"] = png
        if nll is not None:
            named |= derived(nll, png)
            if second is not None:
                named[f"NLL less that of {self.against}"] = self._ratio(nll, second, own, other)
        rows = {name: found(scores, self.seed) for name, scores in named.items()}
        self._tell(saved, own, other, rows)
        first = nll if nll is not None else next(iter(measured.values()))
        write_grid(path, _extremes(first, own, other), saved)

    def _other(self, saved: SavedRun) -> Dataset:
        """The other data set, made as the run's own was; raises UserError if it is of another
        shape."""
        config: DataConfig = saved.run.data
        changed: dict[str, Any] = {"dataset": self.dataset, "data_dir": self.dataset_dir}
        changed |= {"size": self.size, "fit": self.fit} if self.size else {}
        changed |= {"grey": True} if self.grey else {}
        changed |= {"levels": self.levels} if self.levels else {}
        spec = saved.model.spec
        # Each file of points has ranges of its own: they are compared in the run's.
        changed |= {"levels": 0} if spec.ranges else {}
        try:
            other = load(dataclasses.replace(config, **changed))
        except UserError as error:  # here the flag is another one's
            told = str(error).replace("--data_dir", "--dataset_dir")
            raise UserError(told) from error
        if other.spec.shape == spec.shape and spec.ranges and other.spec.kind == "points":
            if self.levels not in (0, spec.levels):
                raise UserError(
                    f"--levels={self.levels}: the run's points are {_shape(spec)}, and others are "
                    "made alike; leave it out"
                )
            return _in_ranges(other, spec)
        if other.spec.shape != spec.shape or other.spec.levels != spec.levels:
            raise UserError(
                f"--dataset={self.dataset} is {_shape(other.spec)}, and the run's data are "
                f"{_shape(spec)}: {_remedy(self.dataset, other.spec, spec)}"
            )
        return other

    def _splits(self, own: Dataset, other: Dataset) -> tuple[Any, Any, Any]:
        names = ((own, "validation"), (own, "test"), (other, "test"))
        return tuple(data.materialize(split) for data, split in names)  # type: ignore[return-value]

    def _measured(self, saved: SavedRun, own: Dataset, other: Dataset) -> dict[str, Scores]:
        """Every metric of the model's evaluation, turned so that higher is an outlier."""
        model, mesh, size = saved.model, make_mesh(), saved.run.train.batch_size
        state, key = put(mesh, WHOLE, saved.state), keys_of(saved.run.train.seed).evaluate
        parts = [
            per_example(model, mesh, key, state, split, size) for split in self._splits(own, other)
        ]
        sign = lambda name: -1.0 if model.metrics[name].better == "higher" else 1.0  # noqa: E731
        scores = {name: Scores(*(sign(name) * part[name] for part in parts)) for name in parts[0]}
        likely = {name: each for name, each in scores.items() if model.metrics[name].likelihood}
        # An ELBO is minus the NLL that it bounds: once is enough.
        same = lambda a, b: all(map(np.array_equal, a, b))  # noqa: E731
        rest = {
            n: a
            for n, a in scores.items()
            if model.metrics[n].of_x and not any(same(a, b) for b in likely.values())
        }
        return {**likely, **rest}

    def _bounds(self, saved: SavedRun, own: Dataset, other: Dataset) -> Scores:
        """The negative bound of k draws."""
        model, mesh, size = saved.model, make_mesh(), saved.run.train.batch_size
        state, key = put(mesh, WHOLE, saved.state), keys_of(saved.run.train.seed).evaluate
        values = (
            importance_weighted(model, mesh, key, state, split, size, (self.k,)).values[:, -1]
            for split in self._splits(own, other)
        )
        return Scores(*(-value for value in values))

    def _energies(self, saved: SavedRun, own: Dataset, other: Dataset) -> Scores:
        """-log p(x), but for a constant."""
        model, mesh = saved.model, make_mesh()
        args = mesh, jax.random.key(0), put(mesh, WHOLE, saved.state)
        splits = self._splits(own, other)
        given = (examples(split, model.spec, slice(None)) for split in splits)
        values = (joined(model, "log_unnormalized", *args, len(g["x"]), g) for g in given)
        return Scores(*(-value.astype(np.float64) for value in values))

    def _second(self, saved: SavedRun) -> SavedRun | None:
        """The second run; raises UserError if its likelihood cannot be taken off the first's."""
        if self.against is None:
            return None
        second, spec = load_run(self.against), saved.model.spec
        _unconditional(second, self.against)
        theirs = second.model.spec
        if theirs.shape != spec.shape or theirs.levels != spec.levels:
            raise UserError(
                f"--against={self.against} was trained on {_shape(theirs)}, and --run={self.run} "
                f"on {_shape(spec)}"
            )
        for run in (saved, second):
            metrics = run.model.metrics.values()
            if not any(metric.likelihood for metric in metrics) and not (
                run is saved and isinstance(run.model, Unnormalized)
            ):
                raise UserError(f"--against={self.against}: {run.run.name} has no likelihood")
        return second

    def _ratio(self, nll: Scores, second: SavedRun, own: Dataset, other: Dataset) -> Scores:
        """The NLL less that of the second run."""
        if bounded(second.model):
            less = self._bounds(second, own, other)
        else:
            [name] = [n for n, metric in second.model.metrics.items() if metric.likelihood]
            less = self._measured(second, own, other)[name]
        return Scores(*(a - b for a, b in zip(nll, less, strict=True)))

    def _tell(self, saved: SavedRun, own: Dataset, other: Dataset, rows: dict[str, Found]) -> None:
        counts = [len(split) for split in self._splits(own, other)]
        note = (
            f"Test splits, {counts[1]} and {counts[2]} {ONE[own.spec.kind]}s; in brackets the "
            f"middle 95 % of {DRAWS} bootstrap draws, seed={self.seed}. An AUROC below 0.5: the "
            "others count as more likely than the run's own. Alarms: the threshold is exceeded by "
            f"{100 * ALARMS:.0f} % of the run's validation split ({counts[0]}), and nothing is "
            f"chosen by the other data. {own.protocol} | {other.protocol}"
        )
        print(plain(table(rows, own.name, other.name, note)))
        directory = user_path(self.run, "--run")
        path = directory / f"outliers_{other.name.replace('/', '_').replace(':', '_')}.json"
        with explained(directory):
            scores = {name: dataclasses.asdict(each) for name, each in rows.items()}
            write_json(path, {"protocol": note, "step": saved.step, "scores": scores})
        print(f"written to {path}")


def _unconditional(saved: SavedRun, run: str) -> None:
    """Raises UserError for a run whose likelihood is one of x given its label."""
    if saved.model.spec.num_classes or saved.model.spec.source is not None:
        raise UserError(
            f"--run={run} measures x given what belongs to it, its label or its source, which "
            "other data have not: train one without --conditional and --pairing"
        )


def _extremes(scores: Scores, own: Dataset, other: Dataset) -> np.ndarray:
    """The lowest and the highest scores of the own, then of the other: four rows."""
    rows = []
    for values, data in ((scores.own, own), (scores.other, other)):
        num = min(SHOWN, len(scores.own), len(scores.other))
        order, x = np.argsort(values, kind="stable"), np.asarray(data.materialize("test").x)
        rows += [x[order[:num]], x[order[len(order) - num :]]]
    return np.stack(rows)


def _in_ranges(other: Dataset, spec: DataSpec) -> Dataset:
    """Points in the ranges of the spec, and in its bins where it has levels: what lies beyond the
    ranges is in the outermost bins."""
    test = other.materialize("test")
    x = from_units(in_units(test.x, other.spec), spec.ranges)
    x = bins(x, spec.levels) if spec.levels else x
    protocol = f"{other.protocol}; taken in the run's ranges"
    splits = {**other.splits, "test": Split.of(x, test.label)}
    return dataclasses.replace(
        other, spec=spec, splits=splits, protocol=protocol, density=None, modes=None
    )


def _shape(spec: DataSpec) -> str:
    levels = f"{spec.levels} levels" if spec.levels else "real numbers"
    return f"{spec.height}x{spec.width}x{spec.channels}, {levels}"


def _remedy(dataset: str, theirs: DataSpec, ours: DataSpec) -> str:
    """Which flags would make the one the other."""
    if theirs.kind != ours.kind:
        return (
            f"these are {ONE[theirs.kind]}s and those {ONE[ours.kind]}s, which no flag makes alike"
        )
    flags, wanted = [], f"{ours.height}x{ours.width}x{ours.channels}"
    if (theirs.height, theirs.width) != (ours.height, ours.width) and ours.height == ours.width:
        flags.append(
            f"--size={ours.height} resizes them (the shorter side is scaled, the longer one "
            "cropped; --fit=pad or crop does otherwise)"
        )
    if theirs.channels == 3 and ours.channels == 1:
        flags.append("--grey makes them grey")
    if flags and not heeds(dataset, "size"):
        flags = [f"no flag resizes what a file holds; make them {wanted} in it"]
    if theirs.levels > ours.levels > 0:
        flags.append(f"--levels={ours.levels} quantizes them")
    return "; ".join(flags) or "no flag makes them alike, so train on data that are"
