"""The command `interpolate`."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.cli.command import Command, check_label
from jaxgen.cli.output import write_grid
from jaxgen.distributions.normal import interpolate
from jaxgen.errors import UserError
from jaxgen.model import Generates


@dataclass(frozen=True)
class Interpolate(Command):
    """Walk between random latents (VAE, GAN): a grid, one path a row."""

    out: str = "interpolation.png"
    """PNG file to write."""
    pairs: int = 8
    """Rows."""
    steps: int = 11
    """Images a row, both ends included."""
    label: int | None = None
    """Class of all images (conditional models; default: a class a row in turn)."""
    seed: int = 0
    """Names the latents."""

    def __call__(self) -> None:
        if self.pairs < 1 or self.steps < 2:
            raise UserError("--pairs must be at least 1 and --steps at least 2")
        saved = self.load()
        model = saved.model
        if not isinstance(model, Generates):
            raise UserError(f"{saved.run.name} has no latents to interpolate: use a VAE or a GAN")
        ends = model.draw_latents(jax.random.key(self.seed), 2 * self.pairs)
        path = interpolate(ends[: self.pairs], ends[self.pairs :], self.steps)
        label = _row_labels(model.spec.num_classes, self.label, self.pairs, self.steps)
        images = jax.jit(model.generate)(saved.state, path.reshape(-1, path.shape[-1]), label)
        shape = (self.pairs, self.steps, *model.spec.shape)
        write_grid(Path(self.out), np.asarray(images).reshape(shape), saved)


def _row_labels(classes: int, label: int | None, rows: int, steps: int) -> jax.Array | None:
    if label is not None:
        check_label(label, classes)
    if not classes:
        return None
    by_row = jnp.arange(rows) % classes if label is None else jnp.full(rows, label)
    return jnp.repeat(by_row, steps)
