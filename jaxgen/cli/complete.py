"""The command `complete`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.cli.command import Command, given_images
from jaxgen.cli.output import progress, write_grid
from jaxgen.errors import UserError
from jaxgen.media.kinds import load_images
from jaxgen.model import Completes
from jaxgen.parallel import inference
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun
from jaxgen.spec import ImageSpec


@dataclass(frozen=True)
class Complete(Command):
    """Fill in the missing part of images (autoregressive models): a row for each image, the
    given part first."""

    images: tuple[str, ...] = ()
    """PNG files of the model's size; default: the first images of the test split."""
    mask: str = "bottom"
    """What to fill in: bottom, top, left, right (that half), or a PNG whose white is missing."""
    num: int = 8
    """Completions of each image."""
    count: int = 8
    """Without --images: how many test images."""
    temperature: float = 1.0
    """Below 1: likelier, less varied completions."""
    out: str = "completions.png"
    """PNG file to write."""
    seed: int = 0
    """Names the completions."""

    def __call__(self) -> None:
        if self.num < 1 or self.count < 1 or not 0 < self.temperature < float("inf"):
            raise UserError("--num and --count must be at least 1 and --temperature above 0")
        saved = self.load()
        model = saved.model
        if not isinstance(model, Completes):
            raise UserError(
                f"{saved.run.name} cannot complete images: use a PixelCNN or one of its family"
            )
        batch = given_images(saved, self.images, self.count)
        known = _known(self.mask, saved)
        given = np.asarray(batch["image"])
        image = given.repeat(self.num, 0)
        label = np.repeat(batch["label"], self.num) if "label" in batch else None
        keep = np.broadcast_to(known, image.shape)
        mesh, key = make_mesh(), jax.random.key(self.seed)
        state = put(mesh, WHOLE, saved.state)
        chunks = inference.completions(
            model, mesh, key, state, image, keep, label, self.temperature
        )
        filled = np.concatenate(list(progress(chunks, len(image))))
        rows = filled.reshape(len(given), self.num, *model.spec.shape)
        shown = np.where(known, given, 0)[:, None]
        write_grid(Path(self.out), np.concatenate([given[:, None], shown, rows], 1), saved)


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
    if not Path(mask).exists():
        raise UserError(f"--mask={mask}: give {', '.join(halves)}, or a PNG file that exists")
    grey = ImageSpec(h, w)
    return np.broadcast_to(load_images([mask], grey)[0] < 128, (h, w, c))
