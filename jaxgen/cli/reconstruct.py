"""The command `reconstruct`."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.cli.command import Command, at_least, given_images, repeated
from jaxgen.cli.output import grid_path, write_grid
from jaxgen.model import Encodes
from jaxgen.parallel.inference import joined
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Reconstruct(Command):
    """Encode images and decode them again: given above, reconstructed below."""

    needs: ClassVar = (Encodes,)
    does: ClassVar = "encode and decode images"

    images: tuple[str, ...] = ()
    """PNG files of the model's size; default: the first images of the test split."""
    count: int = 16
    """Without --images: how many test images."""
    out: str = "reconstructions.png"
    """PNG file to write."""

    def check(self) -> None:
        grid_path(self.out)
        at_least(1, count=self.count)

    def act(self, saved: SavedRun) -> None:
        model, mesh, key = saved.model, make_mesh(), jax.random.key(0)
        given = repeated(given_images(saved, self.images, self.count), 1)
        num, state = len(given["x"]), put(mesh, WHOLE, saved.state)
        z = joined(model, "encode", mesh, key, state, num, given)
        code = {"z": z, "label": given.get("label")}
        decoded = joined(model, "decode", mesh, key, state, num, code)
        seen = np.asarray(model.spec.to_float(jnp.asarray(given["x"])))
        write_grid(grid_path(self.out), np.stack([seen, decoded]), saved)
