"""The command `sample`."""

from dataclasses import dataclass

import jax
import numpy as np

from jaxgen.cli.command import Command, check_label
from jaxgen.cli.output import images_path, progress, write_images
from jaxgen.errors import UserError
from jaxgen.parallel import inference
from jaxgen.parallel.mesh import WHOLE, make_mesh, put


@dataclass(frozen=True)
class Sample(Command):
    """Draw new images or sounds from a run: a grid, a folder of PNGs or .wav files, or a .npz."""

    out: str = "samples.png"
    """FILE.png: one grid, of sounds their spectrograms; FILE.npz: arrays image [n h w c] and
    label; FILE.wav: sounds one after another; else a folder of PNGs, or of .wav files."""
    num: int = 100
    """How many images."""
    label: int | None = None
    """Class to draw (conditional models; default: every class in turn)."""
    temperature: float = 1.0
    """Below 1: likelier, less varied images."""
    seed: int = 0
    """Names the samples; image i depends on (seed, i) alone."""

    def __call__(self) -> None:
        if self.num < 1 or not 0 < self.temperature < float("inf"):
            raise UserError("--num must be at least 1 and --temperature above 0")
        saved = self.load()
        path = images_path(self.out, saved.model.spec)
        classes = saved.model.spec.num_classes
        label = None
        if self.label is not None:
            check_label(self.label, classes)
            label = np.full(self.num, self.label, np.int32)
        mesh = make_mesh()
        key = jax.random.key(self.seed)
        state = put(mesh, WHOLE, saved.state)
        chunks = inference.samples(saved.model, mesh, key, state, self.num, label, self.temperature)
        images = np.concatenate(list(progress(chunks, self.num)))
        if label is None and classes:
            label = np.arange(self.num, dtype=np.int32) % classes
        write_images(path, images, label, saved)
