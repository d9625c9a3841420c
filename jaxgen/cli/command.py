"""What can be done with a run directory: a dataclass of flags each, with `run()`."""

import abc
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.media.kinds import load_images
from jaxgen.model import Batch
from jaxgen.registry import load_run
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Command(abc.ABC):
    """A command on a trained run."""

    run: str
    """The run directory that training made."""
    checkpoint: str = "best"
    """best (by validation), latest, or the step of one."""

    def load(self) -> SavedRun:
        """The run, with that checkpoint; raises UserError if it cannot be used."""
        if self.checkpoint in ("best", "latest"):
            return load_run(self.run, self.checkpoint)  # type: ignore[arg-type]
        if not self.checkpoint.isdigit():
            raise UserError(f"--checkpoint={self.checkpoint}: give best, latest or a step")
        return load_run(self.run, int(self.checkpoint))

    @abc.abstractmethod
    def __call__(self) -> None:
        """Does it."""


def check_label(label: int, classes: int) -> None:
    if not 0 <= label < classes:
        known = f"0..{classes - 1}" if classes else "none: the run is not --conditional"
        raise UserError(f"--label={label}: the run's classes are {known}")


def given_images(saved: SavedRun, paths: tuple[str, ...], count: int) -> Batch:
    """The user's images, or the first of the test split (which needs the data set)."""
    if paths:
        if saved.model.spec.num_classes:
            raise UserError(
                "--images have no labels and the run is conditional: leave --images out to use "
                "the test split"
            )
        images, labels = load_images(paths, saved.model.spec), None
    else:
        split = load(saved.run.data).splits["test"]
        images, labels = np.asarray(split.images[:count]), split.labels
    batch: dict[str, jax.Array] = {"image": jnp.asarray(images), "index": jnp.arange(len(images))}
    if saved.model.spec.num_classes:
        assert labels is not None
        batch["label"] = jnp.asarray(labels[:count])
    return batch
