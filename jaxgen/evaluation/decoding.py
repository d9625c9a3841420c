"""How well codes decode to the data, beside the best linear code of the same size."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Encodes
from jaxgen.evaluation.components import fitted
from jaxgen.evaluation.sections import About, Headline, Mean, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.media.kinds import ONE
from jaxgen.model import Metric
from jaxgen.parallel.inference import examples, mean_and_error
from jaxgen.spec import DataSpec

MAX_VALUES = 2**24
"""Principal components are fitted on as many train examples as have so many numbers, 128 MiB, drawn
by a seed."""


@dataclass(frozen=True)
class Decoded(Section):
    """The squared error of what codes decode to, floats in [-1, 1], summed over sub-pixels."""

    name: ClassVar = "decoded"

    size: int
    """Numbers of a code."""
    model: Mean
    components: int
    """How many there are, at most `size`."""
    by_components: Mean
    by_mean: Mean
    """That of the mean of the training data, for every example."""
    protocol: str

    def tables(self, about: About) -> tuple[Table, ...]:
        rows = (
            (f"{about.model} ({self.size} numbers)", self.model),
            (f"principal components ({self.components})", self.by_components),
            ("the mean of the training data (0)", self.by_mean),
        )
        title = f"What codes decode to, on the {about.split} split, {about.counted}"
        columns = ("code", f"squared error per {about.datum}; lower is better")
        return (Table(title, columns, rows, self.protocol, ranked=True),)

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return (
            Headline(self.model, f"squared error per {about.datum}, decoded"),
            Headline(self.by_components, f"of {self.components} principal components"),
        )

    def numbers(self) -> dict[str, Number]:
        metric = Metric("squared error of what codes decode to", "", "lower")
        return {"decoded_error": Number(metric, self.model.mean)}


def decoding(subject: Subject) -> Decoded | None:
    """The error of a model that encodes and has no likelihood, on the whole split."""
    model, spec = subject.model, subject.model.spec
    if not isinstance(model, Encodes) or any(m.likelihood for m in model.metrics.values()):
        return None
    given = examples(subject.data, spec, slice(None))
    num = len(given["x"])
    z = subject.able("encode", num, given)
    back = subject.able("decode", num, {"z": z, "label": given.get("label")})
    x, train = _flat(given["x"], spec), np.asarray(subject.dataset.materialize("train").x)
    seen = _flat(train[_drawn(train)], spec)
    pca = fitted(seen, z.shape[1])
    linear = pca.inverse_transform(pca.transform(x))
    one = f"{ONE[spec.kind]}s"
    return Decoded(
        size=z.shape[1],
        model=_error(x, back.reshape(num, -1)),
        components=int(pca.n_components_),
        by_components=_error(x, linear),
        by_mean=_error(x, seen.mean(0)[None]),
        protocol=(
            "Squared error summed over sub-pixels, as floats in [-1, 1]; ± one standard error of "
            f"the mean. Components and mean are fitted on {len(seen)} of {len(train)} train {one}."
        ),
    )


def _flat(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Data as rows of floats in [-1, 1], float64."""
    floats = np.asarray(spec.to_float(jnp.asarray(x)))
    return floats.reshape(len(x), -1).astype(np.float64)


def _drawn(x: np.ndarray) -> np.ndarray:
    """The numbers of the examples [n h w c] that components are fitted on, ascending."""
    size = max(MAX_VALUES // math.prod(x.shape[1:]), 2)
    if len(x) <= size:
        return np.arange(len(x))
    return np.sort(np.random.default_rng(0).choice(len(x), size, replace=False))


def _error(x: np.ndarray, other: np.ndarray) -> Mean:
    measured = mean_and_error({"error": ((x - other) ** 2).sum(1)})
    return Mean(measured["error"], measured["error_se"])
