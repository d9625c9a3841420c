"""The command `translate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Translates
from jaxgen.cli.command import OF_A_SPLIT, Command, at_least, data_of
from jaxgen.cli.output import grid_path, images_path, write_grid, writing
from jaxgen.data.sources.folder import SUFFIXES
from jaxgen.data.sources.tree import natural
from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.media.kinds import ONE, load_images, save_one
from jaxgen.parallel.inference import examples, joined
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun
from jaxgen.spec import DataSpec


@dataclass(frozen=True)
class Translate(Command):
    """Turn data of one domain into the other: given above, translated below; or a file for each."""

    needs: ClassVar = (Translates,)
    does: ClassVar = "translate data of one domain into the other"
    only: ClassVar = {"count": OF_A_SPLIT, "data_dir": OF_A_SPLIT}

    images: tuple[str, ...] = ()
    """Image files, or folders of them, of the size that is translated; default: the first data of
    the test split."""
    way: str = "forth"
    """forth: from the source to what was modelled; back: the other way, where the model has it."""
    count: int = 16
    """Without --images: how many test data."""
    out: str = "translations.png"
    """PNG file to write, or a .wav of sounds; or a new folder, for a file of each translation, with
    the names of those given."""
    seed: int = 0
    """Names what is drawn on the way."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""

    def check(self) -> None:
        at_least(1, count=self.count)

    def act(self, saved: SavedRun) -> None:
        model: Translates = saved.model  # type: ignore[assignment]
        if self.way not in model.ways:
            raise UserError(f"--way={self.way}: {saved.run.name} has {' and '.join(model.ways)}")
        spec, mesh = saved.model.spec, make_mesh()
        assert spec.source is not None, "a model that translates has a source"
        start, end = (spec, spec.source) if self.way == "back" else (spec.source, spec)
        folder = not user_path(self.out, "--out").suffix
        path = images_path(self.out, end) if folder else grid_path(self.out, end)
        source, label, names = self._given(saved, start)
        made = joined(
            model, "translate", mesh, jax.random.key(self.seed), put(mesh, WHOLE, saved.state),
            len(source), {"source": source, "label": label}, way=self.way,
        )  # fmt: skip
        if folder:
            _write_each(path, names, made, end)
            return
        rows = [np.asarray(start.to_float(jnp.asarray(source)))] * (start.shape == end.shape)
        rows.append(np.asarray(end.to_float(jnp.asarray(made))))
        write_grid(path, np.stack(rows), saved)

    def _given(
        self, saved: SavedRun, start: DataSpec
    ) -> tuple[np.ndarray, np.ndarray | None, Sequence[str]]:
        """What is translated, its labels where the model is told them, and its names."""
        spec = saved.model.spec
        if not self.images:
            test = data_of(self.run, saved, self.data_dir).splits["test"]
            given = examples(test, spec, slice(self.count))
            source = given["x" if self.way == "back" else "source"]
            return source, given.get("label"), [f"{i:06d}" for i in range(len(source))]
        if spec.num_classes:
            raise UserError(
                "--images have no labels and the run is conditional: leave --images out to use "
                "the test split"
            )
        files = [file for path in self.images for file in _files(path)]
        return load_images(files, start, saved.run.data.background), None, _names(files)


def _files(path: str) -> list[Path]:
    """The file of that path, or the images that lie in that folder, in natural order."""
    place = user_path(path, "--images")
    if not place.is_dir():
        return [place]
    inside = [f for f in place.iterdir() if f.suffix.lower() in SUFFIXES and f.name[0] != "."]
    if not inside:
        raise UserError(
            f"--images={path} is a folder without images in it (of folders below it, name each); "
            f"they end in {' '.join(SUFFIXES)}"
        )
    return sorted(inside, key=natural)


def _names(files: list[Path]) -> list[str]:
    """What the translation of each file is called."""
    names = [file.stem for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--images has two files called {twice}: translate them one at a time")
    return names


def _write_each(path: Path, names: Sequence[str], x: np.ndarray, spec: DataSpec) -> None:
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        for name, one in zip(names, x, strict=True):
            # A name may have a dot in it, behind which an ending would be taken for one.
            save_one(path / f"{name}.png", one, spec)
    print(f"{len(x)} {ONE[spec.kind]}s written to {path}")
