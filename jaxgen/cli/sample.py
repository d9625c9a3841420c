"""The command `sample`."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np

from jaxgen.abilities import Samples
from jaxgen.cli.command import Command, at_least, check_temperature, label_of
from jaxgen.cli.output import images_path, progress, write_images
from jaxgen.parallel.inference import mapped
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Sample(Command):
    """Draw new images or sounds from a run: a grid, a folder of PNGs or .wav files, or a .npz."""

    needs: ClassVar = (Samples,)
    does: ClassVar = "draw new data: a grid, a folder of PNGs, .npz (sounds: .wav)"

    out: str = "samples.png"
    """FILE.png: one grid, of sounds their spectrograms; FILE.npz: arr_0, bytes
    0..255 as tools for FID read them, and x, levels and label, as --dataset=arrays does; FILE.wav:
    sounds one after another; else a folder of PNGs, or of .wav files."""
    num: int = 100
    """How many of them."""
    label: str | None = None
    """Class to draw, by name or number (conditional models; default: every class in turn)."""
    temperature: float = 1.0
    """Below 1: likelier, less varied samples."""
    seed: int = 0
    """Names the samples; number i depends on (seed, i) alone."""

    def check(self) -> None:
        at_least(1, num=self.num)
        check_temperature(self.temperature)

    def act(self, saved: SavedRun) -> None:
        spec = saved.model.spec
        path, classes, label = images_path(self.out, spec), spec.num_classes, None
        if self.label is not None:
            label = np.full(self.num, label_of(self.label, saved), np.int32)
        mesh = make_mesh()
        chunks = mapped(
            saved.model, "sample", mesh, jax.random.key(self.seed), put(mesh, WHOLE, saved.state),
            self.num, {"label": label}, self.temperature,
        )  # fmt: skip
        images = np.concatenate(list(progress(chunks, self.num, spec)))
        if label is None and classes:
            label = np.arange(self.num, dtype=np.int32) % classes
        write_images(path, images, label, saved)
