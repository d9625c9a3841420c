"""How samples compare with held-out data: scores beside their floors, and classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxgen.abilities import Samples
from jaxgen.evaluation import scores
from jaxgen.evaluation.features import Features
from jaxgen.evaluation.fitted import features_of
from jaxgen.evaluation.sections import About, Headline, Number, Section, Table, shown
from jaxgen.evaluation.subject import Subject
from jaxgen.media.kinds import scored
from jaxgen.model import Metric

FIRST = ("frechet", "coverage")
"""The scores to read first."""


@dataclass(frozen=True)
class Classes:
    """The share of each class, as the features' classifier sees it."""

    names: tuple[str, ...]
    real: tuple[float, ...]
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Scores(Section):
    """Scores of samples, and the same scores of as many real training examples; none where there
    are too few, as the protocol then says."""

    name: ClassVar = "scores"

    samples: int
    model: Mapping[str, float | None]
    floor: Mapping[str, float | None]
    protocol: str
    classes: Classes | None
    """None where the features were fitted without labels."""

    def tables(self, about: About) -> tuple[Table, ...]:
        rows = tuple(
            (str(_metric(n)), x, self.floor[n], _metric(n).better) for n, x in self.model.items()
        )
        train = f"train {about.datum}s"
        if not rows:
            return (Table("Scores of samples", ("score", about.model), (), self.protocol),)
        return (
            Table(
                f"{self.samples} samples against the {about.split} split",
                ("score", about.model, train, "better"),
                rows,
                f"{train}: the same scores of real {about.datum}s, the floor. A model that copies "
                "its training set reaches it: that shows in the distance to the nearest one alone. "
                f"{self.protocol}",
            ),
        )

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return tuple(
            Headline(self.model[n], f"{_metric(n).label}; train {about.datum}s: {shown(floor)}")
            for n in FIRST
            if (floor := self.floor.get(n)) is not None
        )

    def numbers(self) -> Mapping[str, Number]:
        return {name: Number(_metric(name), value) for name, value in self.model.items()}


def _metric(name: str) -> Metric:
    return scores.METRICS.get(name, Metric(name))


def sample_scores(subject: Subject) -> Scores | None:
    """The panel of scores and the class histogram, or why there is none: where there are too few
    examples for its neighbours, and on the train split, which is the floor itself."""
    dataset, spec, split = subject.dataset, subject.dataset.spec, subject.split
    if not isinstance(subject.model, Samples):
        return None
    if split == "train":
        why = "left out: the train split is what they compare with; --split=test has them"
        return Scores(0, {}, {}, why, None)
    assert subject.samples is not None
    drawn = subject.samples[: subject.run.train.samples]
    sound = np.isfinite(drawn).all((1, 2, 3))
    train = np.asarray(dataset.materialize("train").x)
    few = len(subject.data), len(train), int(sound.sum())
    if min(few) <= scores.NEIGHBOURS:
        why = (
            f"left out: they need more than {scores.NEIGHBOURS} of each, and there are {few[0]} "
            f"{split} examples, {few[1]} train examples and {few[2]} samples that are finite"
        )
        return Scores(0, {}, {}, why, None)
    features = features_of(dataset, subject.directory)
    reference, fake, train = (
        scored(x, spec) for x in (np.asarray(subject.data.x), drawn[sound], train)
    )
    panel = scores.panel(features, reference, fake, train, split)
    protocol = panel.protocol
    protocol += "; samples of every class in turn" if subject.model.spec.num_classes else ""
    if not sound.all():
        protocol += f"; {(~sound).sum()} samples that are not finite are left out"
    classes = _classes(features, dataset.class_names, reference, fake)
    return Scores(len(fake), panel.values, panel.floor, protocol, classes)


def _classes(
    features: Features, names: tuple[str, ...], real: np.ndarray, fake: np.ndarray
) -> Classes | None:
    both = [features.predict(x) for x in (real, fake)]
    shares = [
        tuple(scores.class_histogram(seen, len(names)).tolist())
        for seen in both
        if seen is not None
    ]
    return Classes(tuple(map(str, names)), *shares) if shares else None
