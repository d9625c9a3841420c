"""Which of the known modes of a density the samples reach, and how many samples are near one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxgen.evaluation.scores import class_histogram, histogram_kl
from jaxgen.evaluation.sections import About, Headline, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.media.points import in_units
from jaxgen.model import Metric

NEAR = 0.999
"""The share of real points that counts as near its mode."""

METRICS: dict[str, Metric] = {
    "reached": Metric("modes reached", "", "higher"),
    "near": Metric("samples near a mode", "share", "higher"),
    "histogram_kl": Metric("KL of the shares of the modes", "nats", "lower"),
}
"""What the numbers of `Modes` are."""


@dataclass(frozen=True)
class Reach:
    """How a set of points lies about the modes."""

    reached: int
    """Modes that have at least a quarter of their share of the points near them."""
    near: float
    """The share of points that are as near to a mode as nearly all real ones."""
    histogram_kl: float | None
    """KL, in nats, of the modes' shares of these near points and of real ones."""


@dataclass(frozen=True)
class Modes(Section):
    """The modes that samples reach, and the same of real training points."""

    name: ClassVar = "modes"

    modes: int
    """How many there are."""
    samples: int
    radius: float
    """What near is, in the data's own units."""
    model: Reach
    floor: Reach

    def tables(self, about: About) -> tuple[Table, ...]:
        rows = tuple(
            (str(metric), getattr(self.model, n), getattr(self.floor, n), metric.better)
            for n, metric in METRICS.items()
        )
        title = f"{self.samples} samples about the {self.modes} modes of the true density"
        note = (
            f"near: within {self.radius:.3g} of a mode, as {NEAR:.1%} of the {about.split} split "
            "are; reached: with a quarter of its share of the points, or more."
        )
        return (
            Table(title, ("measure", about.model, f"train {about.datum}s", "better"), rows, note),
        )

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return (Headline(f"{self.model.reached} of {self.modes}", "modes reached"),)

    def numbers(self) -> dict[str, Number]:
        return {n: Number(m, getattr(self.model, n)) for n, m in METRICS.items()}


def modes(subject: Subject) -> Modes | None:
    """The reach of samples, where the data set knows its modes."""
    centres, spec = subject.dataset.modes, subject.dataset.spec
    if centres is None or subject.samples is None:
        return None
    drawn = subject.samples[: subject.run.train.samples]
    drawn = drawn[np.isfinite(drawn).all((1, 2, 3))]
    if not len(drawn):
        return None
    train = subject.dataset.materialize("train").x
    some = np.random.default_rng(0).choice(len(train), min(len(drawn), len(train)), replace=False)
    train = train[np.sort(some)]
    real = _nearest(in_units(subject.data.x, spec), centres)
    radius = float(np.quantile(real[1], NEAR))
    shares = class_histogram(real[0], len(centres))
    model, floor = (
        _reach(*_nearest(in_units(x, spec), centres), radius, shares) for x in (drawn, train)
    )
    return Modes(len(centres), len(drawn), radius, model, floor)


def _nearest(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each point [n d], and how far it is: [n] each."""
    from scipy.spatial import cKDTree

    distance, place = cKDTree(centres).query(points)
    return place, distance


def _reach(place: np.ndarray, distance: np.ndarray, radius: float, shares: np.ndarray) -> Reach:
    near = place[distance <= radius]
    ours = np.bincount(near, minlength=len(shares)) / len(place)
    kl = histogram_kl(class_histogram(near, len(shares)), shares) if len(near) else None
    return Reach(int(np.sum((shares > 0) & (ours >= shares / 4))), len(near) / len(place), kl)
