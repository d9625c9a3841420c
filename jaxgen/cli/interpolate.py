"""The command `interpolate`."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.cli.command import Command, at_least, check_label, rows_of
from jaxgen.cli.output import grid_path, write_grid
from jaxgen.distributions.normal import interpolate
from jaxgen.model import Generates
from jaxgen.parallel.inference import joined, mapped
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Interpolate(Command):
    """Walk between random latents: a grid, one path a row."""

    needs: ClassVar = (Generates,)
    does: ClassVar = "walk between latents"

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

    def check(self) -> None:
        grid_path(self.out)
        at_least(1, pairs=self.pairs)
        at_least(2, steps=self.steps)

    def act(self, saved: SavedRun) -> None:
        model, mesh, key = saved.model, make_mesh(), jax.random.key(self.seed)
        rows = _row_labels(model.spec.num_classes, self.label, self.pairs)
        state = put(mesh, WHOLE, saved.state)
        both = None if rows is None else np.concatenate([rows, rows])
        ends = joined(model, "draw_latents", mesh, key, state, 2 * self.pairs, {"label": both})
        a, b = map(jnp.asarray, np.split(ends, 2))
        path = np.asarray(interpolate(a, b, self.steps))
        z = path.reshape(-1, path.shape[-1])
        label = None if rows is None else rows.repeat(self.steps)
        shown = mapped(model, "decode", mesh, key, state, len(z), {"z": z, "label": label})
        write_grid(grid_path(self.out), rows_of(shown, self.pairs), saved)


def _row_labels(classes: int, label: int | None, rows: int) -> np.ndarray | None:
    if label is not None:
        check_label(label, classes)
    if not classes:
        return None
    every = np.arange(rows) % classes if label is None else np.full(rows, label)
    return every.astype(np.int32)
