"""The command `project`."""

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Decodes, Encodes, Generates
from jaxgen.cli.command import OF_A_SPLIT, Command, at_least, data_of, given_images
from jaxgen.cli.output import grid_path, write_grid, writing
from jaxgen.errors import UserError
from jaxgen.evaluation.projection import Projection, project
from jaxgen.files import write_atomic
from jaxgen.model import example_keys
from jaxgen.parallel.inference import CHUNK, joined
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Project(Command):
    """Find the latents of images by gradient descent: given above, found below, and how they
    differ. A file .npz of the picture's name has the latents z [n z] and errors [n]."""

    needs: ClassVar = (Decodes,)
    does: ClassVar = "find the latents of images"
    only: ClassVar = {"count": OF_A_SPLIT}

    images: tuple[str, ...] = ()
    """PNG or .wav files of the model's size; default: the first images of the test split."""
    count: int = 8
    """Without --images: how many test images."""
    starts: int = 4
    """How many latents each search begins at: the image's code, where the model encodes, and draws
    of a standard normal. The best is kept."""
    steps: int = 500
    """Steps of Adam."""
    rate: float = 0.1
    """The size of a step at first; it falls to 0 along a cosine."""
    prior: float = 0.0
    """How much the squared length of z counts, beside the squared error of an image."""
    seed: int = 0
    """Names the draws."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    out: str = "projection.png"
    """PNG file to write, or a .wav of sounds."""

    def check(self) -> None:
        at_least(1, count=self.count, starts=self.starts, steps=self.steps)
        if not 0 < self.rate < float("inf"):
            raise UserError(f"--rate must lie above 0; got {self.rate}")
        if not 0 <= self.prior < float("inf"):
            raise UserError(f"--prior must not be negative; got {self.prior}")

    def act(self, saved: SavedRun) -> None:
        path, spec = grid_path(self.out, saved.model.spec), saved.model.spec
        dataset = data_of(self.run, saved, self.data_dir)
        given = given_images(self.run, saved, self.images, self.count, self.data_dir)
        columns = {name: np.asarray(a) for name, a in given.items() if name != "index"}
        x = np.asarray(spec.to_float(jnp.asarray(columns["x"])))
        code = self._codes(saved, columns)
        found = self._found(saved, x, code, columns.get("label"))
        # Where nothing differs, a picture is black.
        differ = np.abs(found.x - x) - 1.0 if spec.kind == "image" else found.x - x
        write_grid(path, np.stack([x, found.x, differ]), saved)
        self._write_arrays(path.with_suffix(".npz"), found)
        train = spec.to_float(jnp.asarray(dataset.materialize("train").x))
        told = [f"the mean of the train split {_error(np.asarray(train.mean(0))[None], x):.4g}"]
        if code is not None:
            own = {"z": code, "label": columns.get("label")}
            told.insert(0, f"the encoder's codes {_error(self._able(saved, 'decode', own), x):.4g}")
        print(
            f"mean squared error a sub-pixel, in [-1, 1]: {found.error.mean():.4g} "
            f"({', '.join(told)})"
        )

    def _able(self, saved: SavedRun, what: Any, given: dict[str, Any]) -> np.ndarray:
        """What the model's ability makes of given arrays."""
        mesh, key = make_mesh(), jax.random.key(self.seed)
        num = len(next(iter(given.values())))
        return joined(saved.model, what, mesh, key, put(mesh, WHOLE, saved.state), num, given)

    def _codes(self, saved: SavedRun, columns: dict[str, np.ndarray]) -> np.ndarray | None:
        """The codes [n z], of a model that encodes."""
        if not isinstance(saved.model, Encodes):
            return None
        return self._able(saved, "encode", columns)

    def _starts(self, saved: SavedRun, code: np.ndarray | None, num: int) -> np.ndarray:
        """Where the searches begin, [starts num z]: around the codes of a model without a prior."""
        model: Any = saved.model
        size = (self.starts, sum(model.groups))
        keys = example_keys(jax.random.fold_in(jax.random.key(self.seed), 1), jnp.arange(num))
        draws = jax.vmap(lambda key: jax.random.normal(key, size), out_axes=1)(keys)
        starts = np.array(draws)
        if code is not None:
            starts = starts if isinstance(model, Generates) else starts + code[None]
            starts[0] = code
        return starts

    def _found(
        self, saved: SavedRun, x: np.ndarray, code: np.ndarray | None, label: np.ndarray | None
    ) -> Projection:
        """What is found for all images, so many at a time that memory is bounded."""
        model: Any = saved.model
        starts, size, parts = self._starts(saved, code, len(x)), max(1, CHUNK // self.starts), []
        for first in range(0, len(x), size):
            some = slice(first, first + size)
            part = None if label is None else jnp.asarray(label[some])
            given = jnp.asarray(x[some]), jnp.asarray(starts[:, some]), part, jnp.int32(first)
            how = {"steps": self.steps, "rate": self.rate, "prior": self.prior}
            key = jax.random.key(self.seed)
            parts.append(jax.device_get(project(model, key, saved.state, *given, **how)))
        return jax.tree.map(lambda *some: np.concatenate(some), *parts)

    def _write_arrays(self, path: Any, found: Projection) -> None:
        file = io.BytesIO()
        np.savez(file, z=found.z, error=found.error)
        with writing(path):
            write_atomic(path, file.getvalue())
        print(f"{found.z.shape[1]} latents of each written to {path}")


def _error(found: np.ndarray, x: np.ndarray) -> float:
    """The mean squared error a sub-pixel."""
    return float(((found - x) ** 2).mean())
