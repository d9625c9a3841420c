"""The commands `traverse`, `manifold` and `attribute`: what latents stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxgen.abilities import Encodes
from jaxgen.cli.command import OF_A_SPLIT, Command, at_least, data_of, given_images
from jaxgen.cli.output import grid_path, listed, write_grid
from jaxgen.data.dataset import Dataset
from jaxgen.errors import UserError
from jaxgen.evaluation.subject import Subject
from jaxgen.files import user_path
from jaxgen.parallel.inference import examples
from jaxgen.parallel.mesh import make_mesh
from jaxgen.report.abilities import busiest, decoded, floats, quantiles, spread, traversed
from jaxgen.runs.saved import SavedRun


def subject_of(run: str, saved: SavedRun, dataset: Dataset) -> Subject:
    """The run as the report's looks take it."""
    directory = user_path(run, "--run")
    args = saved.run, dataset, make_mesh(), saved.state, saved.step, directory
    return Subject.of(*args)


def encoded(subject: Subject, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """The codes [n z] of a batch, and its labels."""
    given = {name: np.asarray(x) for name, x in batch.items() if name != "index"}
    return subject.able("encode", len(given["x"]), given), given.get("label")


@dataclass(frozen=True)
class Traverse(Command):
    """Move one latent at a time, all of them, those that tell most first: a row for each."""

    needs: ClassVar = (Encodes,)
    does: ClassVar = "move one latent at a time"

    image: str | None = None
    """A PNG or .wav file of the model's size, which is encoded; default: the first of the
    validation split."""
    latents: int = 0
    """Rows: how many latents; 0 = all."""
    steps: int = 11
    """Pictures a row."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    out: str = "traversals.png"
    """PNG file to write, or a .wav of sounds."""

    def check(self) -> None:
        at_least(0, latents=self.latents)
        at_least(2, steps=self.steps)

    def act(self, saved: SavedRun) -> None:
        path = grid_path(self.out, saved.model.spec)
        subject = subject_of(self.run, saved, data_of(self.run, saved, self.data_dir))
        code, label = self._start(saved, subject)
        order = busiest(subject)
        if self.latents > len(order):
            raise UserError(f"--latents={self.latents}: the model has {len(order)}")
        order = order[: self.latents or None]
        write_grid(path, traversed(subject, code, label, order, self.steps), saved)
        print(f"latents, from the top: {', '.join(map(str, order))}")

    def _start(self, saved: SavedRun, subject: Subject) -> tuple[np.ndarray, np.ndarray | None]:
        """The code [z] that the others stay at, and its label [1]."""
        if self.image is not None:
            batch = given_images(self.run, saved, (self.image,), 1, self.data_dir)
            codes, label = encoded(subject, batch)
        else:
            split, spec = subject.dataset.materialize("validation"), saved.model.spec
            codes, label = encoded(subject, examples(split, spec, slice(1)))
        return codes[0], label


@dataclass(frozen=True)
class Manifold(Command):
    """Decode a plane of two latents, at the quantiles of the prior, the others at its middle."""

    needs: ClassVar = (Encodes,)
    does: ClassVar = "decode a plane of two latents"

    dims: tuple[int, ...] = ()
    """The numbers of the two latents, to the right and up; default: the two that tell most."""
    side: int = 20
    """Pictures along each side."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    out: str = "manifold.png"
    """PNG file to write, or a .wav of sounds."""

    def check(self) -> None:
        at_least(2, side=self.side)
        if self.dims and (len(self.dims) != 2 or self.dims[0] == self.dims[1]):
            given = " ".join(map(str, self.dims))
            raise UserError(f"--dims {given}: give the numbers of two different latents")

    def act(self, saved: SavedRun) -> None:
        path, model = grid_path(self.out, saved.model.spec), saved.model
        subject = subject_of(self.run, saved, data_of(self.run, saved, self.data_dir))
        middle, reach = spread(subject, subject.codes)
        num = len(middle)
        if num < 2 or any(not 0 <= latent < num for latent in self.dims):
            raise UserError(f"--run={self.run} has {num} latents, numbered from 0; two are needed")
        right, up = self.dims or busiest(subject)[:2]
        sides = quantiles(self.side)
        z = np.tile(middle, (self.side, self.side, 1)).astype(np.float32)
        z[..., right] += reach[right] * sides[None]
        z[..., up] += reach[up] * -sides[:, None]
        label = np.zeros(self.side, np.int32) if model.spec.num_classes else None
        write_grid(path, decoded(subject, z, label), saved)
        told = " of the first class" if model.spec.num_classes else ""
        print(f"latent {right} grows to the right, latent {up} upwards{told}")


@dataclass(frozen=True)
class Attribute(Command):
    """Add what a label is, in latents, to images, a little more in each column: the mean code of
    the train examples that have it, less that of the others."""

    needs: ClassVar = (Encodes,)
    does: ClassVar = "add what a label is to images"
    only: ClassVar = {"count": OF_A_SPLIT}

    label: str = ""
    """The label, by name or number; default: the first there is."""
    images: tuple[str, ...] = ()
    """PNG or .wav files of the model's size; default: the first images of the test split."""
    count: int = 8
    """Without --images: how many test images."""
    most: float = 1.5
    """How often the difference is added in the last column, and taken off in the first."""
    steps: int = 9
    """Pictures a row."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    out: str = "attribute.png"
    """PNG file to write, or a .wav of sounds."""

    def check(self) -> None:
        at_least(1, count=self.count)
        at_least(2, steps=self.steps)
        if not 0 < self.most < float("inf"):
            raise UserError(f"--most must lie above 0; got {self.most}")

    def act(self, saved: SavedRun) -> None:
        path, spec = grid_path(self.out, saved.model.spec), saved.model.spec
        dataset = data_of(self.run, saved, self.data_dir)
        subject = subject_of(self.run, saved, dataset)
        batch = given_images(self.run, saved, self.images, self.count, self.data_dir)
        codes, label = encoded(subject, batch)
        times = np.linspace(-self.most, self.most, self.steps)[None, :, None]
        z = codes[:, None] + times * self._difference(subject, saved)
        x = decoded(subject, z.astype(np.float32), label)
        write_grid(
            path, np.concatenate([floats(np.asarray(batch["x"]), spec)[:, None], x], 1), saved
        )

    def _difference(self, subject: Subject, saved: SavedRun) -> np.ndarray:
        """The vector [z] of the label."""
        dataset = subject.dataset
        split, names = dataset.materialize("train"), tuple(dataset.class_names)
        if split.label is None or len(names) < 2:
            raise UserError(f"--run={self.run}: {dataset.name} has no labels to tell apart")
        if self.label in names:
            wanted = names.index(self.label)
        elif not self.label or (self.label.isdigit() and int(self.label) < len(names)):
            wanted = int(self.label or 0)
        else:
            raise UserError(f"--label={self.label}: the data set has {listed(names)}")
        codes, _ = encoded(subject, examples(split, saved.model.spec, slice(None)))
        has = np.asarray(split.label) == wanted
        if has.all() or not has.any():
            raise UserError(f"--label={names[wanted]}: all train examples have it, or none has")
        return codes[has].mean(0) - codes[~has].mean(0)
