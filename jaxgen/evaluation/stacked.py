"""Which combinations of classes samples reach, where every channel is a picture by itself."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxgen.evaluation.features import fit_features
from jaxgen.evaluation.scores import class_histogram, histogram_kl
from jaxgen.evaluation.sections import About, Headline, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.model import Metric

METRICS: dict[str, Metric] = {
    "reached": Metric("combinations of classes that occur", "", "higher"),
    "histogram_kl": Metric("KL of the shares of the combinations", "nats", "lower"),
}
"""What the numbers of `Stacked` are."""


@dataclass(frozen=True)
class Spread:
    """How images are spread over the combinations."""

    reached: int
    """Combinations that occur at all."""
    histogram_kl: float
    """KL, in nats, of their shares and those of channels that are independent of each other."""


@dataclass(frozen=True)
class Stacked(Section):
    """The combinations that samples have, and the same of as many real training images."""

    name: ClassVar = "stacked"

    modes: int
    """How many combinations there are."""
    samples: int
    model: Spread
    floor: Spread
    accuracy: float
    """The share of single channels of the held-out split that the classifier is right of."""

    def tables(self, about: About) -> tuple[Table, ...]:
        rows = tuple(
            (str(metric), getattr(self.model, n), getattr(self.floor, n), metric.better)
            for n, metric in METRICS.items()
        )
        title = f"{self.samples} samples over the {self.modes} combinations of classes"
        note = (
            "By a classifier of single channels, fitted on the train split, which is right of "
            f"{self.accuracy:.1%} of the {about.split} split. So few samples miss some "
            f"combinations by chance: the train {about.datum}s, as many, show how many."
        )
        return (
            Table(title, ("measure", about.model, f"train {about.datum}s", "better"), rows, note),
        )

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return (Headline(f"{self.model.reached} of {self.modes}", "combinations of classes"),)

    def numbers(self) -> dict[str, Number]:
        return {n: Number(m, getattr(self.model, n)) for n, m in METRICS.items()}


def stacked(subject: Subject) -> Stacked | None:
    """The spread of samples (Metz et al. 2017, arXiv:1611.02163; Lin et al. 2018,
    arXiv:1712.04086, section 4.2), where the data set says that each channel has a class of its
    own."""
    dataset, classes = subject.dataset, subject.dataset.channel_classes
    if not classes or subject.samples is None:
        return None
    drawn = subject.samples[: subject.run.train.samples]
    train = dataset.materialize("train")
    assert train.label is not None and subject.data.label is not None
    channels = train.x.shape[-1]
    places = (classes,) * channels
    single, label = _single(train.x, train.label, places)
    # The same picture comes in many combinations.
    single, first = np.unique(single, axis=0, return_index=True)
    features = fit_features(single, label[first], dataset.spec.levels)
    shares = class_histogram(label, classes)
    independent = shares
    for _ in range(channels - 1):
        independent = np.multiply.outer(independent, shares)

    def spread(x: np.ndarray) -> Spread:
        seen = features.predict(np.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3], 1))
        assert seen is not None, "each class has ten pictures or more"
        number = np.ravel_multi_index(tuple(seen.reshape(-1, channels).T), places)
        histogram = class_histogram(number, classes**channels)
        return Spread(int((histogram > 0).sum()), histogram_kl(histogram, independent.ravel()))

    some = np.random.default_rng(0).choice(len(train), min(len(drawn), len(train)), replace=False)
    accuracy = features.accuracy(*_single(subject.data.x, subject.data.label, places))
    assert accuracy is not None
    return Stacked(
        classes**channels, len(drawn), spread(drawn), spread(train.x[np.sort(some)]), accuracy
    )


def _single(
    x: np.ndarray, label: np.ndarray, places: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Every channel as an image of its own [n*c h w 1], and its class [n*c]."""
    classes = np.stack(np.unravel_index(label, places), -1).reshape(-1)
    return np.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3], 1), classes
