"""The trained model that is measured and looked at, with what measures and pictures share."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgen.abilities import Encodes, Samples
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import Split
from jaxgen.evaluation import scores
from jaxgen.media.kinds import ONE, ROOM
from jaxgen.model import Inspection, Metric, Model
from jaxgen.parallel import inference
from jaxgen.parallel.inference import CHUNK, Ability, first_batch
from jaxgen.parallel.mesh import SPLIT, WHOLE, put
from jaxgen.runs.config import Run
from jaxgen.runs.state import Keys, keys_of

INSPECTED = CHUNK
"""Examples of the validation split that a model is inspected on: one chunk, so that memory is
bounded as elsewhere."""
ENCODED = 500
"""Examples of the validation split whose latents are looked at."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model, its data and its run's directory. Properties are computed once, when they
    are first needed."""

    run: Run
    model: Model
    """What made the checkpoint's last step (`Model.at`)."""
    dataset: Dataset
    mesh: Mesh
    state: Any
    """The model's state, on every device of the mesh."""
    step: int
    """The step of the checkpoint."""
    directory: Path
    """The run's; what is fitted to the data is kept in it."""
    split: str
    """What is measured on."""
    keys: Keys
    draws: int
    """Draws of an importance-weighted bound."""
    last: "Subject | None" = None
    """The same run's last checkpoint, perhaps this one itself, where it is to be measured too."""

    @classmethod
    def of(
        cls,
        run: Run,
        dataset: Dataset,
        mesh: Mesh,
        state: Any,
        step: int,
        directory: Path,
        split: str = "test",
        draws: int | None = None,
    ) -> Self:
        """The subject whose state is that of the checkpoint of `step`; `draws` are the run's
        unless they are given."""
        model, keys = run.model.at(max(step - 1, 0)), keys_of(run.train.seed)
        draws = run.train.draws if draws is None else draws
        whole = put(mesh, WHOLE, state)
        return cls(run, model, dataset, mesh, whole, step, Path(directory), split, keys, draws)

    @functools.cached_property
    def metrics(self) -> dict[str, Metric]:
        """What the run's metrics are: those that the model declares, "per image" being per clip or
        per point where the data are such, and the scores of samples."""
        one = ONE[self.model.spec.kind]
        named = {
            name: metric._replace(unit=metric.unit.replace("per image", f"per {one}"))
            for name, metric in self.model.metrics.items()
        }
        return {**scores.METRICS, **named}

    @functools.cached_property
    def data(self) -> Split:
        """The split that is measured on."""
        return self.dataset.materialize(self.split)

    @functools.cached_property
    def values(self) -> dict[str, np.ndarray]:
        """The model's evaluation metrics for every example of the split, float64 [n]."""
        size = self.run.train.batch_size
        return inference.per_example(
            self.model, self.mesh, self.keys.evaluate, self.state, self.data, size
        )

    @functools.cached_property
    def samples(self) -> np.ndarray | None:
        """Samples [num h w c], as many as are scored and at least as many as are shown; None from
        a model that cannot sample. They are not those that the checkpoint may have been chosen
        by."""
        if not isinstance(self.model, Samples):
            return None
        num = max(ROOM[self.model.spec.kind], self.run.train.samples)
        key = jax.random.fold_in(self.keys.sample, 1)
        return inference.draw(self.model, self.mesh, key, self.state, num)

    @functools.cached_property
    def codes(self) -> np.ndarray | None:
        """The latents [n z] of the first validation examples; None from a model that encodes
        nothing."""
        if not isinstance(self.model, Encodes):
            return None
        split = self.dataset.materialize("validation")
        given = inference.examples(split, self.model.spec, slice(ENCODED))
        return self.able("encode", len(given["x"]), given)

    def able(
        self,
        what: Ability,
        num: int,
        given: Mapping[str, np.ndarray | None] | None = None,
        way: str = "forth",
    ) -> np.ndarray:
        """What the model's ability makes of `num` examples (see `inference.mapped`)."""
        return inference.joined(
            self.model, what, self.mesh, self.keys.sample, self.state, num, given, way=way
        )

    @functools.cached_property
    def inspection(self) -> Inspection:
        """What the model shows of itself on the first validation examples, on the host."""
        batch = first_batch(self.dataset.materialize("validation"), self.model.spec, INSPECTED)
        even = len(batch["x"]) % self.mesh.size == 0
        batch = put(self.mesh, SPLIT if even else WHOLE, batch)
        return jax.device_get(jax.jit(self.model.inspect)(self.keys.sample, self.state, batch))
