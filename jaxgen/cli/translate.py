"""The command `translate`."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Translates
from jaxgen.cli.command import Command, at_least, data_of
from jaxgen.cli.output import grid_path, write_grid
from jaxgen.errors import UserError
from jaxgen.parallel.inference import examples, joined
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.runs.saved import SavedRun


@dataclass(frozen=True)
class Translate(Command):
    """Turn the first test data of one domain into the other: given above, translated below."""

    needs: ClassVar = (Translates,)
    does: ClassVar = "translate data of one domain into the other"

    way: str = "forth"
    """forth: from the source to what was modelled; back: the other way, where the model has it."""
    count: int = 16
    """How many test data."""
    out: str = "translations.png"
    """PNG file to write, or a .wav of sounds."""
    seed: int = 0
    """Names what is drawn on the way."""
    data_dir: str | None = None
    """Where the data set is now, if it has moved since training."""

    def check(self) -> None:
        at_least(1, count=self.count)

    def act(self, saved: SavedRun) -> None:
        model: Translates = saved.model  # type: ignore[assignment]
        if self.way not in model.ways:
            raise UserError(f"--way={self.way}: {saved.run.name} has {', '.join(model.ways)}")
        spec, mesh = saved.model.spec, make_mesh()
        path = grid_path(self.out, spec)
        given = examples(
            data_of(self.run, saved, self.data_dir).splits["test"], spec, slice(self.count)
        )
        source = given["x" if self.way == "back" else "source"]
        made = joined(
            model, "translate", mesh, jax.random.key(self.seed), put(mesh, WHOLE, saved.state),
            len(source), {"source": source, "label": given.get("label")}, way=self.way,
        )  # fmt: skip
        assert spec.source is not None
        ends = (spec, spec.source) if self.way == "back" else (spec.source, spec)
        floats = [
            np.asarray(s.to_float(jnp.asarray(x)))
            for s, x in zip(ends, (source, made), strict=True)
        ]
        if floats[0].shape != floats[1].shape:
            floats = floats[1:]
        write_grid(path, np.stack(floats), saved)
