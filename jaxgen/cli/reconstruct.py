"""The command `reconstruct`."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxgen.cli.command import Command, given_images
from jaxgen.cli.output import write_grid
from jaxgen.errors import UserError
from jaxgen.model import Reconstructs


@dataclass(frozen=True)
class Reconstruct(Command):
    """Encode images and decode them again (VAE): given above, reconstructed below."""

    images: tuple[str, ...] = ()
    """PNG files of the model's size; default: the first images of the test split."""
    count: int = 16
    """Without --images: how many test images."""
    out: str = "reconstructions.png"
    """PNG file to write."""

    def __call__(self) -> None:
        if self.count < 1:
            raise UserError("--count must be at least 1")
        saved = self.load()
        model = saved.model
        if not isinstance(model, Reconstructs):
            raise UserError(f"{saved.run.name} cannot reconstruct images: use a VAE")
        batch = given_images(saved, self.images, self.count)
        decoded = jax.jit(model.reconstruct)(jax.random.key(0), saved.state, batch)
        write_grid(Path(self.out), np.stack([batch["image"], decoded]), saved)
