"""The commands `features` and `probe`: what a model's features of data are good for."""

import io
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Embeds
from jaxgen.cli.command import Command, data_of
from jaxgen.cli.output import arrays_path, writing
from jaxgen.data.dataset import Dataset
from jaxgen.errors import UserError
from jaxgen.evaluation.probe import DRAWS, Parts, components, probe, sizes_of, table, told
from jaxgen.files import user_path, write_atomic, write_json
from jaxgen.media.kinds import ONE
from jaxgen.parallel.inference import examples, first_batch, joined
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.report.tables import plain
from jaxgen.runs.directory import explained
from jaxgen.runs.saved import SavedRun
from jaxgen.runs.state import keys_of
from jaxgen.spec import DataSpec

SPLITS = ("train", "validation", "test")


def embedded(saved: SavedRun, dataset: Dataset, state: Any, split: str) -> np.ndarray:
    """The model's features [n f] of a whole split."""
    model, mesh = saved.model, make_mesh()
    data = dataset.materialize(split)
    given = examples(data, model.spec, slice(None))
    where = put(mesh, WHOLE, state)
    found = joined(model, "embed", mesh, jax.random.key(0), where, len(data), given)
    return np.asarray(found, np.float32)


def _flat(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Data as rows of floats in [-1, 1]."""
    return np.asarray(spec.to_float(jnp.asarray(x))).reshape(len(x), -1)


@dataclass(frozen=True)
class Features(Command):
    """Write the model's features of every example of a split, with the labels there are."""

    needs: ClassVar = (Embeds,)
    does: ClassVar = "write features of a split"

    split: Literal["train", "validation", "test"] = "test"
    """The split whose features are written."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    out: str = "features.npz"
    """The .npz file to write: features [n f], label [n] and class_names."""

    def check(self) -> None:
        arrays_path(self.out)

    def act(self, saved: SavedRun) -> None:
        path, dataset = arrays_path(self.out), data_of(self.run, saved, self.data_dir)
        found: dict[str, Any] = {"features": embedded(saved, dataset, saved.state, self.split)}
        label = dataset.materialize(self.split).label
        if label is not None:
            found |= {"label": label, "class_names": np.array(dataset.class_names)}
        file = io.BytesIO()
        np.savez(file, **found)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, file.getvalue())
        num, size = found["features"].shape
        print(f"{size} features of {num} {ONE[saved.model.spec.kind]}s written to {path}")


@dataclass(frozen=True)
class Probe(Command):
    """Train a classifier on the model's features, beside raw data, as many principal components,
    and the features of the same network before training."""

    needs: ClassVar = (Embeds,)
    does: ClassVar = "classify by its features"

    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    seed: int = 0
    """Chooses the labelled examples, where not all are used."""
    classifier: Literal["linear", "nearest"] = "linear"
    """linear: logistic regression on standardized features; nearest: the label of the nearest
    example, by the distance of features as they are."""

    def check(self) -> None:
        pass

    def act(self, saved: SavedRun) -> None:
        dataset = data_of(self.run, saved, self.data_dir)
        splits = [dataset.materialize(name) for name in SPLITS]
        labels = [split.label for split in splits]
        if any(label is None for label in labels) or len(dataset.class_names) < 2:
            raise UserError(
                f"--run={self.run}: {dataset.name} has no labels, which a classifier is to find; "
                "train on data that has them (they need not be told to the model)"
            )
        label = Parts(*map(np.asarray, labels))
        spec = saved.model.spec
        raw = Parts(*(_flat(s.x, spec) for s in splits))
        key = keys_of(saved.run.train.seed).init
        batch = first_batch(splits[0], spec, min(len(splits[0]), saved.run.train.batch_size))
        fresh = jax.jit(saved.run.model.at(0).init)(key, batch)
        ours, random = (
            Parts(*(embedded(saved, dataset, state, name) for name in SPLITS))
            for state in (saved.state, fresh)
        )
        size = ours.train.shape[1]
        kinds = {
            f"{saved.run.name} ({size})": ours,
            f"raw {ONE[spec.kind]}s ({raw.train.shape[1]})": raw,
            f"principal components ({min(size, *raw.train.shape)})": components(raw, size),
            f"{saved.run.name}, untrained ({size})": random,
        }
        sizes = sizes_of(len(label.train))
        rows = {
            name: [probe(parts, label, n, self.seed, self.classifier) for n in sizes]
            for name, parts in kinds.items()
        }
        note = (
            f"{told(self.classifier, len(label.validation))}, tested on {len(label.test)}; "
            f"± standard deviation over {DRAWS} draws of the labelled examples, seed={self.seed}. "
            f"{dataset.protocol}"
        )
        print(plain(table(rows, note, self.classifier)))
        directory = user_path(self.run, "--run")
        path = directory / f"probe{'_nearest' if self.classifier == 'nearest' else ''}.json"
        with explained(directory):
            write_json(path, {
                "protocol": note, "step": saved.step,
                "accuracy": {n: {a.size: list(a.values) for a in r} for n, r in rows.items()},
            })  # fmt: skip
        print(f"written to {path}")
