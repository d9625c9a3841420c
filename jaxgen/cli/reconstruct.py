"""The command `reconstruct`."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Encodes
from jaxgen.cli.command import OF_A_SPLIT, Command, at_least, given_images, repeated
from jaxgen.cli.output import grid_path, write_grid
from jaxgen.parallel.inference import joined
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Reconstruct(Command):
    """Encode images and decode them again: given above, reconstructed below."""

    needs: ClassVar = (Encodes,)
    does: ClassVar = "encode and decode images"
    only: ClassVar = {"count": OF_A_SPLIT, "data_dir": OF_A_SPLIT}

    images: tuple[str, ...] = ()
    """PNG or .wav files of the model's size; default: the first images of the test split."""
    count: int = 16
    """Without --images: how many test images."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    out: str = "reconstructions.png"
    """PNG file to write, or a .wav of sounds."""

    def check(self) -> None:
        at_least(1, count=self.count)

    def act(self, saved: SavedRun) -> None:
        model, mesh, key = saved.model, make_mesh(), jax.random.key(0)
        path = grid_path(self.out, model.spec)
        given = repeated(given_images(self.run, saved, self.images, self.count, self.data_dir), 1)
        num, state = len(given["x"]), put(mesh, WHOLE, saved.state)
        z = joined(model, "encode", mesh, key, state, num, given)
        code = {"z": z, "label": given.get("label")}
        decoded = joined(model, "decode", mesh, key, state, num, code)
        seen = np.asarray(model.spec.to_float(jnp.asarray(given["x"])))
        write_grid(path, np.stack([seen, decoded]), saved)
