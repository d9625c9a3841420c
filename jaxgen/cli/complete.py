"""The command `complete`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from jaxgen.abilities import Completes
from jaxgen.cli.command import (
    OF_A_SPLIT,
    Command,
    at_least,
    check_temperature,
    given_images,
    repeated,
    rows_of,
)
from jaxgen.cli.output import grid_path, progress, write_grid
from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.media.kinds import load_images, missing
from jaxgen.parallel.inference import mapped
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun
from jaxgen.spec import DataSpec


@dataclass(frozen=True)
class Complete(Command):
    """Fill in the missing part of images or sounds: a row for each, the whole and the given part
    first."""

    needs: ClassVar = (Completes,)
    does: ClassVar = "fill in missing parts"
    only: ClassVar = {"count": OF_A_SPLIT, "data_dir": OF_A_SPLIT}

    images: tuple[str, ...] = ()
    """PNG or .wav files of the model's size; default: the first images of the test split."""
    mask: str = "bottom"
    """What to fill in: bottom, top, left, right (that half), or a PNG whose white is missing."""
    num: int = 8
    """Completions of each image."""
    count: int = 8
    """Without --images: how many test images."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    temperature: float = 1.0
    """Below 1: likelier, less varied completions."""
    out: str = "completions.png"
    """PNG file to write, of sounds their spectrograms; or a .wav, which has the sounds."""
    seed: int = 0
    """Names the completions."""

    def check(self) -> None:
        at_least(1, num=self.num, count=self.count)
        check_temperature(self.temperature)

    def act(self, saved: SavedRun) -> None:
        model, mesh, known = saved.model, make_mesh(), _known(self.mask, saved)
        path = grid_path(self.out, model.spec)
        batch = given_images(self.run, saved, self.images, self.count, self.data_dir)
        given, each = np.asarray(batch["x"]), repeated(batch, self.num)
        each["known"] = np.broadcast_to(known, each["x"].shape)
        key, state = jax.random.key(self.seed), put(mesh, WHOLE, saved.state)
        num = len(each["x"])
        chunks = mapped(model, "complete", mesh, key, state, num, each, self.temperature)
        rows = rows_of(progress(chunks, num, model.spec), len(given))
        shown = np.where(known, given, missing(model.spec)).astype(given.dtype)[:, None]
        write_grid(path, np.concatenate([given[:, None], shown, rows], 1), saved)


def _known(mask: str, saved: SavedRun) -> np.ndarray:
    """[h w c] of bool: True where the given image is kept."""
    h, w, c = saved.model.spec.shape
    known = np.ones((h, w, c), bool)
    halves: dict[str, Any] = {
        "bottom": np.s_[h // 2 :],
        "top": np.s_[: h // 2],
        "right": np.s_[:, w // 2 :],
        "left": np.s_[:, : w // 2],
    }
    if mask in halves:
        known[halves[mask]] = False
        return known
    path = user_path(mask, "--mask")
    if not path.exists():
        raise UserError(f"--mask={mask}: give {', '.join(halves)}, or a PNG file that exists")
    grey = DataSpec(h, w)
    return np.broadcast_to(load_images([path], grey)[0] < 128, (h, w, c))
