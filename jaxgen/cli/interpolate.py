"""The command `interpolate`."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Generates
from jaxgen.cli.command import Command, at_least, label_of, rows_of
from jaxgen.cli.output import grid_path, write_grid
from jaxgen.distributions.normal import interpolate
from jaxgen.parallel.inference import joined, mapped
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Interpolate(Command):
    """Walk between random latents: a grid, one path a row."""

    needs: ClassVar = (Generates,)
    does: ClassVar = "walk between latents"

    out: str = "interpolation.png"
    """PNG file to write, or a .wav of sounds."""
    pairs: int = 8
    """Rows."""
    steps: int = 11
    """Pictures a row, both ends included."""
    label: str | None = None
    """Class of all, by name or number (conditional models; default: a class a row in turn)."""
    seed: int = 0
    """Names the latents."""

    def check(self) -> None:
        at_least(1, pairs=self.pairs)
        at_least(2, steps=self.steps)

    def act(self, saved: SavedRun) -> None:
        model, mesh, key = saved.model, make_mesh(), jax.random.key(self.seed)
        assert isinstance(model, Generates)
        path, rows = grid_path(self.out, model.spec), self._row_labels(saved)
        state = put(mesh, WHOLE, saved.state)
        both = None if rows is None else np.concatenate([rows, rows])
        ends = joined(model, "draw_latents", mesh, key, state, 2 * self.pairs, {"label": both})
        a, b = map(jnp.asarray, np.split(ends, 2))
        walks = np.asarray(interpolate(a, b, self.steps, model.groups))
        z = walks.reshape(-1, walks.shape[-1])
        label = None if rows is None else rows.repeat(self.steps)
        shown = mapped(model, "decode", mesh, key, state, len(z), {"z": z, "label": label})
        write_grid(path, rows_of(shown, self.pairs), saved)

    def _row_labels(self, saved: SavedRun) -> np.ndarray | None:
        """The class of each row, of a conditional model."""
        classes = saved.model.spec.num_classes
        if self.label is not None:
            return np.full(self.pairs, label_of(self.label, saved), np.int32)
        return np.arange(self.pairs, dtype=np.int32) % classes if classes else None
