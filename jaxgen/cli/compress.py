"""The commands `compress` and `decompress`."""

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from jaxgen.cli.command import OF_A_SPLIT, Command, data_of
from jaxgen.cli.output import images_path, write_images, writing
from jaxgen.compression import codec, file_format
from jaxgen.data.splits import Split
from jaxgen.errors import UserError
from jaxgen.files import user_path, write_atomic
from jaxgen.media.kinds import ONE, load_images
from jaxgen.media.pictures import grid, png_bytes
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.parallel import inference
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun
from jaxgen.spec import DataSpec


@dataclass(frozen=True)
class Compress(Command):
    """Write images as a file of as many bits as the model's NLL; lossless."""

    needs: ClassVar = (Autoregressive,)
    does: ClassVar = "compress images without loss"
    only: ClassVar = {"split": OF_A_SPLIT, "data_dir": OF_A_SPLIT}

    out: str = "images.jxg"
    """File to write; one that exists is not overwritten."""
    images: tuple[str, ...] = ()
    """PNG files of the model's size and levels; default: a whole split of the run's data set."""
    split: Literal["train", "validation", "test"] = "test"
    """Without --images: what to compress."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""
    verify: bool = True
    """Decode the file before it is written, and compare."""

    def check(self) -> None:
        _new(user_path(self.out, "--out"))

    def act(self, saved: SavedRun) -> None:
        path, model = user_path(self.out, "--out"), saved.model
        assert isinstance(model, Autoregressive)
        given = self._given(saved)
        images = np.asarray(given.x)
        label = given.label if model.spec.num_classes else None
        one = ONE[model.spec.kind]
        with _bar(len(images) * (2 if self.verify else 1), one) as tell:
            data = codec.compress(model, saved.state, images, label, tell)
            if self.verify:
                codec.verify(model, saved.state, data, images, label, tell)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        how = "decoded again and found the same" if self.verify else "not verified"
        print(f"{len(images):,} {one}s written to {path}, {how}")
        print(_sizes(saved, Split.of(images, given.label), data))

    def _given(self, saved: SavedRun) -> Split:
        spec = saved.model.spec
        if not self.images:
            return data_of(self.run, saved, self.data_dir).materialize(self.split)
        if spec.rate:
            raise UserError(
                "--images: a .wav file holds more than mu-law levels, and could not be given back "
                f"exactly; leave --images out to compress the levels of the {self.split} split"
            )
        if spec.num_classes:
            raise UserError(
                "--images have no labels and the run is conditional: leave --images out to use "
                f"the {self.split} split"
            )
        paths = [user_path(image, "--images") for image in self.images]
        background = saved.run.data.background
        images = load_images(paths, spec, background)
        exact = load_images(paths, dataclasses.replace(spec, levels=256), background)
        for name, image, same in zip(paths, images, exact, strict=True):
            if not np.array_equal(_picture(image, spec), same):
                raise UserError(
                    f"{name} has values between the model's {spec.levels} levels and could not be "
                    "given back exactly; reduce it to them first"
                )
        return Split.of(images, None)


@dataclass(frozen=True)
class Decompress(Command):
    """Get back the images of a file that `jaxgen compress` wrote with the same run."""

    needs: ClassVar = (Autoregressive,)
    does: ClassVar = "give back the images of a compressed file"

    file: str = "images.jxg"
    """The file."""
    out: str = "images.npz"
    """FILE.npz: arrays x [n h w c], label and others (see `jaxgen sample`); FILE.png: one grid;
    else a folder of PNGs, or of .wav files. What exists is not overwritten."""

    def check(self) -> None:
        _new(user_path(self.out, "--out"))

    def act(self, saved: SavedRun) -> None:
        path, model = images_path(self.out, saved.model.spec), saved.model
        assert isinstance(model, Autoregressive)
        try:
            data = user_path(self.file, "--file").read_bytes()
        except OSError as error:
            raise UserError(f"--file={self.file} cannot be read ({error})") from error
        try:
            with _bar(file_format.unpack(data)[0].num, ONE[model.spec.kind]) as tell:
                images, label = codec.decompress(model, saved.state, data, tell)
        except UserError as error:
            raise UserError(f"--file={self.file}: {error}") from error
        write_images(path, images, label, saved)


def _new(path: Path) -> None:
    """Raises UserError if something would be overwritten."""
    if path.is_file() or (path.is_dir() and (path.suffix or any(path.iterdir()))):
        raise UserError(f"--out={path} exists; choose another name, or delete it")


@contextmanager
def _bar(total: int, one: str) -> Iterator[Callable[[int], Any]]:
    """A progress bar of so many, where there is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit=one, disable=None, leave=False) as bar:
        yield bar.update


def _picture(image: np.ndarray, spec: DataSpec) -> np.ndarray:
    """One image as bytes, uint8 [h w c], as a PNG holds it."""
    return grid(image[None], spec.levels, pad=0, scale=1)


def _sizes(saved: SavedRun, given: Split, data: bytes) -> str:
    """The file's size beside the model's NLL, and beside what general formats make of it."""
    spec, num = saved.model.spec, len(given.x)
    mesh = make_mesh()
    state = put(mesh, WHOLE, saved.state)
    batch = saved.run.train.batch_size
    values = inference.per_example(saved.model, mesh, jax.random.key(0), state, given, batch)
    nats = float(values[saved.model.monitor].sum())
    labels = num * np.log2(spec.num_classes) / 8 if spec.num_classes else 0.0
    ideal, size = nats / np.log(2) / 8 + labels, len(data)
    header = codec.header_size(data)
    # A density may leave nothing to tell: then there is nothing to be over.
    over = f"{(size - header) / ideal - 1:+.2%} over the NLL, " if ideal else ""
    one = ONE[spec.kind]
    rows: list[tuple[str, float, str]] = [("file", size, f"{over}of it {header} bytes of header")]
    rows += [("NLL", ideal, f"{nats / num:.2f} nats per {one}" + " and the labels" * bool(labels))]
    if labels:
        rows += [("of it labels", labels, f"log2({spec.num_classes}) bits each")]
    rows += [("zip", len(zlib.compress(given.x.tobytes(), 9)), f"of all {one}s together")]
    if spec.channels in (1, 3):
        pngs = sum(len(png_bytes(_picture(image, spec))) for image in given.x)
        rows += [("PNG", pngs, "a file each")]
    unit = 8 / (num * spec.dims)
    return "\n".join(
        f"  {name:12s} {amount:12,.0f} bytes  {amount * unit:7.4f} bits/dim  {note}"
        for name, amount, note in rows
    )
