"""The command `interpolate`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Encodes, Generates
from jaxgen.cli.command import OF_A_SPLIT, Command, at_least, given_images, label_of, rows_of
from jaxgen.cli.output import grid_path, write_grid
from jaxgen.distributions.normal import interpolate
from jaxgen.errors import UserError
from jaxgen.parallel.inference import joined, mapped
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Interpolate(Command):
    """Walk between random latents, or those of given images: a grid, one path a row."""

    needs: ClassVar = (Generates,)
    does: ClassVar = "walk between latents"

    out: str = "interpolation.png"
    """PNG file to write, or a .wav of sounds."""
    images: tuple[str, ...] = ()
    """PNG or .wav files of the model's size, two or more: from each to the next. Default: between
    draws of the prior."""
    pairs: int = 8
    """Without --images: rows."""
    steps: int = 11
    """Pictures a row, both ends included."""
    label: str | None = None
    """Class of all, by name or number (conditional models; default: a class a row in turn)."""
    seed: int = 0
    """Names the latents."""

    only: ClassVar = {"pairs": OF_A_SPLIT, "label": OF_A_SPLIT, "seed": OF_A_SPLIT}

    def check(self) -> None:
        at_least(1, pairs=self.pairs)
        at_least(2, steps=self.steps)
        if len(self.images) == 1:
            raise UserError("--images names one file; a walk is from one image to another")

    def act(self, saved: SavedRun) -> None:
        model, mesh, key = saved.model, make_mesh(), jax.random.key(self.seed)
        assert isinstance(model, Generates)
        path, rows = grid_path(self.out, model.spec), self._row_labels(saved)
        state = put(mesh, WHOLE, saved.state)
        a, b = map(jnp.asarray, self._ends(saved, state, rows))
        walks = np.asarray(interpolate(a, b, self.steps, model.groups))
        z = walks.reshape(-1, walks.shape[-1])
        label = None if rows is None else rows.repeat(self.steps)
        shown = mapped(model, "decode", mesh, key, state, len(z), {"z": z, "label": label})
        write_grid(path, rows_of(shown, len(walks)), saved)

    def _ends(self, saved: SavedRun, state: Any, rows: np.ndarray | None) -> list[np.ndarray]:
        """Where the walks begin and where they end, [n z] each."""
        model, mesh, key = saved.model, make_mesh(), jax.random.key(self.seed)
        if self.images:
            if not isinstance(model, Encodes):
                raise UserError(
                    f"--images: {saved.run.name} has no encoder, so that no image has a latent; "
                    "leave them out to walk between draws of the prior"
                )
            given = given_images(self.run, saved, self.images, 1, None)
            x = {"x": np.asarray(given["x"])}
            codes = joined(model, "encode", mesh, key, state, len(x["x"]), x)
            return [codes[:-1], codes[1:]]
        both = None if rows is None else np.concatenate([rows, rows])
        ends = joined(model, "draw_latents", mesh, key, state, 2 * self.pairs, {"label": both})
        return np.split(ends, 2)

    def _row_labels(self, saved: SavedRun) -> np.ndarray | None:
        """The class of each row, of a conditional model."""
        classes = saved.model.spec.num_classes
        if self.label is not None:
            return np.full(self.pairs, label_of(self.label, saved), np.int32)
        return np.arange(self.pairs, dtype=np.int32) % classes if classes else None
