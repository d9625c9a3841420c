"""Whether the samples of each class are of that class, and as good as real ones to learn from."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxgen.evaluation.features import fit_features
from jaxgen.evaluation.fitted import features_of
from jaxgen.evaluation.sections import About, Headline, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.media.kinds import scored, scored_spec
from jaxgen.model import Metric

METRICS: dict[str, Metric] = {
    "test": Metric("recognized as their class by a classifier of real data", "share", "higher"),
    "train": Metric("accuracy on real data of a classifier of samples", "share", "higher"),
}
"""What the numbers of `Labels` are."""


@dataclass(frozen=True)
class Accuracies:
    """Two ways in which labelled data are those that they claim to be."""

    test: float
    """The share that a classifier fitted on the train split gives their own label."""
    train: float | None
    """The accuracy, on the held-out split, of a classifier fitted on them; None where they have
    too few of some class."""


@dataclass(frozen=True)
class Labels(Section):
    """Samples of every class in turn, and as many real examples."""

    name: ClassVar = "labels"

    samples: int
    """Examples that the classifiers of either kind are fitted on."""
    model: Accuracies
    real: Accuracies
    """test: of the held-out split; train: of a classifier of as many examples of the train
    split."""

    def tables(self, about: About) -> tuple[Table, ...]:
        rows = tuple(
            (str(metric), getattr(self.model, n), getattr(self.real, n), metric.better)
            for n, metric in METRICS.items()
            if getattr(self.model, n) is not None and getattr(self.real, n) is not None
        )
        note = (
            "The two measures of Shmelkov et al. 2018: the first falls when samples are "
            "poor, the second also when they vary too little. Classifiers as for the scores; "
            f"real: of the {about.split} split, and of one fitted on as many train {about.datum}s."
        )
        title = f"Are {self.samples} samples, of every class in turn, what they are asked to be?"
        return (Table(title, ("measure", about.model, "real", "better"), rows, note),)

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return (Headline(self.model.test, f"of their class; real: {self.real.test:.3g}"),)

    def numbers(self) -> dict[str, Number]:
        return {n: Number(m, getattr(self.model, n)) for n, m in METRICS.items()}


def labels(subject: Subject) -> Labels | None:
    """GAN-test and GAN-train (Shmelkov, Schmid & Alahari 2018, arXiv:1807.09499) of a model that
    is told labels."""
    dataset, spec = subject.dataset, subject.dataset.spec
    if not spec.num_classes or subject.samples is None or subject.split == "train":
        return None
    drawn = subject.samples[: subject.run.train.samples]
    asked = np.arange(len(drawn)) % spec.num_classes
    sound = np.isfinite(drawn).all((1, 2, 3))
    features = features_of(dataset, subject.directory)
    train = dataset.materialize("train")
    assert train.label is not None and subject.data.label is not None
    if features.head is None or not sound.any():
        return None
    samples, asked = scored(drawn[sound], spec), asked[sound]
    held_out = scored(subject.data.x, spec), subject.data.label
    size = min(len(samples), len(train))
    some = np.sort(np.random.default_rng(0).choice(len(train), size, replace=False))
    levels = scored_spec(spec)[1]

    def learnt(x: np.ndarray, label: np.ndarray) -> float | None:
        return fit_features(x, label, levels).accuracy(*held_out)

    def recognized(x: np.ndarray, label: np.ndarray) -> float:
        seen = features.predict(x)
        assert seen is not None
        return float(np.mean(seen == label))

    model = Accuracies(recognized(samples, asked), learnt(samples[:size], asked[:size]))
    real = learnt(scored(train.x[some], spec), train.label[some])
    return Labels(size, model, Accuracies(recognized(*held_out), real))
