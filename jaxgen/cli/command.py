"""What can be done with a trained run: a dataclass of flags each, which names the ability it needs.

The refusal of a model that lacks it, the usage page and the report's list of commands are made
from that and from the registry.
"""

import abc
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jaxgen.cli.flags import spelling
from jaxgen.cli.output import class_names, listed
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.fields import Only, refuse_idle
from jaxgen.files import user_path
from jaxgen.media.kinds import load_images
from jaxgen.model import Batch, Model
from jaxgen.parallel.inference import first_batch
from jaxgen.parallel.mesh import all_devices
from jaxgen.registry import MODELS, load_run
from jaxgen.runs.saved import SavedRun

OF_A_SPLIT = Only("beside `images`", lambda command: not command.images)
"""The rule for fields that say which data of a split are taken, where no images are given."""


@dataclass(frozen=True)
class Command(abc.ABC):
    """A command on a trained run."""

    needs: ClassVar[tuple[type, ...]] = ()
    """The abilities that a model must have for it, all of them."""
    does: ClassVar[str]
    """What it does, for the usage page."""

    run: str
    """The run directory that training made."""
    checkpoint: str = "best"
    """best (by validation), latest, or the step of one."""

    def __call__(self) -> None:
        """Does it; raises UserError if the flags are wrong or the model is not able to."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value >= 2**31:  # examples are numbered in 32 bits
                raise UserError(f"--{field.name}={value} must be at most 2^31-1")
        self.check()
        with spelling(type(self), "", ()):
            refuse_idle(self)
        all_devices()
        saved = self._load()
        if not able(type(self), saved.model):
            others = [name for name, preset in MODELS.items() if able(type(self), preset.model)]
            raise UserError(
                f"{saved.run.name} cannot {self.does}: use one of {', '.join(others) or 'none'}"
            )
        self.act(saved)

    def _load(self) -> SavedRun:
        """The run, with that checkpoint; raises UserError if it cannot be used."""
        if self.checkpoint in ("best", "latest"):
            return load_run(self.run, self.checkpoint)  # type: ignore[arg-type]
        if not self.checkpoint.isdigit():
            raise UserError(f"--checkpoint={self.checkpoint}: give best, latest or a step")
        return load_run(self.run, int(self.checkpoint))

    @abc.abstractmethod
    def check(self) -> None:
        """Raises UserError for flags that no run can fulfil, before the run is read."""

    @abc.abstractmethod
    def act(self, saved: SavedRun) -> None:
        """Does it with a model that is able to."""


def able(kind: type[Command], model: Model) -> bool:
    """Whether a model has all the abilities that the command needs."""
    return all(isinstance(model, ability) for ability in kind.needs)


def at_least(least: int, **flags: int) -> None:
    """Raises UserError for a flag below the least that makes sense."""
    for name, value in flags.items():
        if value < least:
            raise UserError(f"--{name}={value} must be at least {least}")


def check_temperature(temperature: float) -> None:
    """Raises UserError unless it is a positive number."""
    if not 0 < temperature < float("inf"):
        raise UserError(f"--temperature must lie above 0; got {temperature}")


def label_of(label: str, saved: SavedRun) -> int:
    """The number of the class that is named so, or that has this number; raises UserError unless
    the run has it. Where names are numbers, they are meant: 3 is the folder 3."""
    names = class_names(saved)
    if label in names:
        return names.index(label)
    if label in map(str, range(len(names))):
        return int(label)
    known = listed(names) if names else "none: the run is not --conditional"
    raise UserError(f"--label={label}: the run's classes are {known}")


def data_of(run: str, saved: SavedRun, data_dir: str | None = None) -> Dataset:
    """The data set of that --run, where `data_dir` says it is now; raises UserError if it is not
    the one that the run was trained on."""
    config: DataConfig = saved.run.data
    if data_dir is not None:
        config = dataclasses.replace(config, data_dir=data_dir)
    dataset = load(config)
    if dataset.fingerprint != saved.record["dataset"]["fingerprint"]:
        raise UserError(
            f"--run={run}: the data have changed since it was trained, from\n"
            f"  {saved.record['dataset']['protocol']}\nto\n  {dataset.protocol}\n"
            "give the original with --data_dir"
        )
    return dataset


def given_images(
    run: str, saved: SavedRun, paths: tuple[str, ...], count: int, data_dir: str | None
) -> Batch:
    """The user's images, or the first of the test split (see `data_of`)."""
    spec = saved.model.spec
    if not paths:
        return first_batch(data_of(run, saved, data_dir).splits["test"], spec, count)
    if spec.num_classes:
        raise UserError(
            "--images have no labels and the run is conditional: leave --images out to use "
            "the test split"
        )
    given = [user_path(path, "--images") for path in paths]
    images = load_images(given, spec, saved.run.data.background)
    return {"x": jnp.asarray(images), "index": jnp.arange(len(images))}


def repeated(batch: Batch, times: int) -> dict[str, np.ndarray]:
    """The columns of a batch with every example several times, but for its index."""
    return {n: np.asarray(x).repeat(times, 0) for n, x in batch.items() if n != "index"}


def rows_of(chunks: Iterator[np.ndarray], rows: int) -> np.ndarray:
    """All chunks, as that many rows [rows columns h w c]."""
    whole = np.concatenate(list(chunks))
    return whole.reshape(rows, -1, *whole.shape[1:])
