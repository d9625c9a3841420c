"""What can be done with a run directory: a dataclass of flags each, with `run()`."""

import abc
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import evaluate
from jaxgen.data import load
from jaxgen.errors import UserError
from jaxgen.model import Batch, Completes, Generates, ImageSpec, Reconstructs, interpolate
from jaxgen.parallel import WHOLE, make_mesh, put
from jaxgen.pictures import grid, load_images, picture, save_png, save_wav
from jaxgen.rundir import write_atomic
from jaxgen.saved import SavedRun, load_run


@dataclass(frozen=True)
class Command(abc.ABC):
    """A command on a trained run."""

    run: str
    """The run directory that training made."""
    checkpoint: str = "best"
    """best (by validation), latest, or the step of one."""

    def load(self) -> SavedRun:
        """The run, with that checkpoint; raises UserError if it cannot be used."""
        if self.checkpoint in ("best", "latest"):
            return load_run(self.run, self.checkpoint)  # type: ignore[arg-type]
        if not self.checkpoint.isdigit():
            raise UserError(f"--checkpoint={self.checkpoint}: give best, latest or a step")
        return load_run(self.run, int(self.checkpoint))

    @abc.abstractmethod
    def __call__(self) -> None:
        """Does it."""


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
            _check_label(self.label, classes)
            label = np.full(self.num, self.label, np.int32)
        mesh = make_mesh()
        key = jax.random.key(self.seed)
        state = put(mesh, WHOLE, saved.state)
        chunks = evaluate.samples(saved.model, mesh, key, state, self.num, label, self.temperature)
        images = np.concatenate(list(progress(chunks, self.num)))
        if label is None and classes:
            label = np.arange(self.num, dtype=np.int32) % classes
        write_images(path, images, label, saved)


@dataclass(frozen=True)
class Interpolate(Command):
    """Walk between random latents (VAE, GAN): a grid, one path a row."""

    out: str = "interpolation.png"
    """PNG file to write."""
    pairs: int = 8
    """Rows."""
    steps: int = 11
    """Images a row, both ends included."""
    label: int | None = None
    """Class of all images (conditional models; default: a class a row in turn)."""
    seed: int = 0
    """Names the latents."""

    def __call__(self) -> None:
        if self.pairs < 1 or self.steps < 2:
            raise UserError("--pairs must be at least 1 and --steps at least 2")
        saved = self.load()
        model = saved.model
        if not isinstance(model, Generates):
            raise UserError(f"{saved.run.name} has no latents to interpolate: use a VAE or a GAN")
        ends = model.draw_latents(jax.random.key(self.seed), 2 * self.pairs)
        path = interpolate(ends[: self.pairs], ends[self.pairs :], self.steps)
        label = _row_labels(model.spec.num_classes, self.label, self.pairs, self.steps)
        images = jax.jit(model.generate)(saved.state, path.reshape(-1, path.shape[-1]), label)
        shape = (self.pairs, self.steps, *model.spec.shape)
        _write_grid(Path(self.out), np.asarray(images).reshape(shape), saved)


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
        batch = _images(saved, self.images, self.count)
        known = _known(self.mask, saved)
        given = np.asarray(batch["image"])
        image = given.repeat(self.num, 0)
        label = np.repeat(batch["label"], self.num) if "label" in batch else None
        keep = np.broadcast_to(known, image.shape)
        mesh, key = make_mesh(), jax.random.key(self.seed)
        state = put(mesh, WHOLE, saved.state)
        chunks = evaluate.completions(model, mesh, key, state, image, keep, label, self.temperature)
        filled = np.concatenate(list(progress(chunks, len(image))))
        rows = filled.reshape(len(given), self.num, *model.spec.shape)
        shown = np.where(known, given, 0)[:, None]
        _write_grid(Path(self.out), np.concatenate([given[:, None], shown, rows], 1), saved)


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
        batch = _images(saved, self.images, self.count)
        decoded = jax.jit(model.reconstruct)(jax.random.key(0), saved.state, batch)
        _write_grid(Path(self.out), np.stack([batch["image"], decoded]), saved)


@dataclass(frozen=True)
class Evaluate(Command):
    """Measure a run on a whole split of its data set, beside the baselines."""

    split: Literal["train", "validation", "test"] = "test"
    """What to measure on."""
    k: int | None = None
    """VAE: samples of the importance-weighted bound; default: the run's --vae.final_k."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""

    def __call__(self) -> None:
        from jaxgen import results

        saved = self.load()
        run = saved.run
        if self.k is not None:
            if self.k < 1 or "final_k" not in {f.name for f in dataclasses.fields(run.model)}:
                raise UserError(f"--k={self.k}: only a VAE has a bound of k samples, k at least 1")
            model = dataclasses.replace(run.model, final_k=self.k)  # type: ignore[call-arg]
            run = dataclasses.replace(run, model=model)
        if self.data_dir is not None:
            run = dataclasses.replace(
                run, data=dataclasses.replace(run.data, data_dir=self.data_dir)
            )
        dataset = load(run.data)
        if dataset.fingerprint != saved.record["dataset"]["fingerprint"]:
            raise UserError(
                f"--run={self.run} was trained on other data than {dataset.name} is now "
                "(the fingerprints differ); give the original with --data_dir"
            )
        found = results.final_results(
            run, dataset, make_mesh(), saved.state, saved.step, Path(self.run), self.split
        )
        print(results.table(found))
        bound = "" if self.k is None else f"_k{self.k}"
        name = f"results_{self.split}{bound}.json"
        results.write(Path(self.run) / name, found)
        print(f"written to {Path(self.run) / name}")


def progress(chunks, num: int):
    """Passes chunks on, with a progress bar where there is a terminal and more than one."""
    from tqdm import tqdm

    with tqdm(total=num, unit="image", disable=None, leave=False) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def _check_label(label: int, classes: int) -> None:
    if not 0 <= label < classes:
        known = f"0..{classes - 1}" if classes else "none: the run is not --conditional"
        raise UserError(f"--label={label}: the run's classes are {known}")


def _row_labels(classes: int, label: int | None, rows: int, steps: int) -> jax.Array | None:
    if label is not None:
        _check_label(label, classes)
    if not classes:
        return None
    by_row = jnp.arange(rows) % classes if label is None else jnp.full(rows, label)
    return jnp.repeat(by_row, steps)


def _images(saved: SavedRun, paths: tuple[str, ...], count: int) -> Batch:
    """The user's images, or the first of the test split (which needs the data set)."""
    if paths:
        if saved.model.spec.num_classes:
            raise UserError(
                "--images have no labels and the run is conditional: leave --images out to use "
                "the test split"
            )
        images, labels = load_images(paths, saved.model.spec), None
    else:
        split = load(saved.run.data).splits["test"]
        images, labels = np.asarray(split.images[:count]), split.labels
    batch: dict[str, jax.Array] = {"image": jnp.asarray(images), "index": jnp.arange(len(images))}
    if saved.model.spec.num_classes:
        assert labels is not None
        batch["label"] = jnp.asarray(labels[:count])
    return batch


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


def images_path(out: str, spec: ImageSpec) -> Path:
    """Where `write_images` can write such images to, by its name; else a UserError."""
    path, ends = Path(out), (".png", ".npz", ".wav") if spec.rate else (".png", ".npz")
    if path.suffix and path.suffix not in ends:
        listed = f"{', '.join(ends[:-1])} or {ends[-1]}"
        raise UserError(f"--out={path}: give a name that ends in {listed}, or a folder")
    return path


def write_images(path: Path, images: np.ndarray, label: np.ndarray | None, saved: SavedRun) -> None:
    """A picture, arrays, one sound, or a folder of PNGs or sounds, as the path's name says (see
    `images_path`)."""
    spec = saved.model.spec
    if path.suffix == ".png":
        _write_grid(path, images, saved, columns=min(10, len(images)))
        return
    with writing(path):
        if path.suffix == ".npz":
            import io

            file = io.BytesIO()
            named: dict[str, Any] = {} if label is None else {"label": label}
            np.savez(file, image=images, **named)
            write_atomic(path, file.getvalue())
        elif path.suffix == ".wav":
            save_wav(path, images, spec)
        else:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise UserError(f"--out={path} is not empty; choose a new folder")
            for i, image in enumerate(images):
                if spec.rate:
                    save_wav(path / f"{i:06d}.wav", image[None], spec)
                else:
                    save_png(path / f"{i:06d}.png", grid(image[None], spec.levels, pad=0, scale=1))
    print(f"{len(images)} images written to {path}")


def _write_grid(
    path: Path, images: np.ndarray, saved: SavedRun, columns: int | None = None
) -> None:
    if path.suffix != ".png":
        raise UserError(f"--out={path}: give a name that ends in .png")
    with writing(path):
        save_png(path, picture(images, saved.model.spec, columns))
    print(f"written to {path} (run {saved.run.name}, checkpoint of step {saved.step})")


class writing:
    """Turns errors of the file system into UserErrors that name --out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            raise UserError(f"--out={self.path} cannot be written ({error})") from error
