"""How well a classifier by scikit-learn does on features of the data: multinomial logistic
regression on standardized features, or the nearest neighbour."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxgen.evaluation.components import fitted
from jaxgen.evaluation.sections import Table

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1)
"""Inverse strengths of the L2 penalty, of which validation chooses one."""
DRAWS = 5
"""Draws of a small training set."""
Classifier = Literal["linear", "nearest"]
_TITLES = {"linear": "a linear classifier", "nearest": "the nearest neighbour's label"}


class Parts(NamedTuple):
    """One array, features [n f] or labels [n], of each split."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Accuracy(NamedTuple):
    """Test accuracy over draws of the training examples."""

    size: int
    """How many there are."""
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """Over the draws; 0 for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


def sizes_of(num: int) -> tuple[int, ...]:
    """100, 1,000, and all training labels, as far as there are so many."""
    return (*(size for size in (100, 1000) if size < num), num)


def probe(
    features: Parts, label: Parts, size: int, seed: int = 0, classifier: Classifier = "linear"
) -> Accuracy:
    """The accuracy on the whole test split of classifiers that are trained on `size` examples,
    `DRAWS` times, or once on all of them."""
    accuracy = {"linear": _linear, "nearest": _nearest}[classifier]
    num = len(features.train)
    draws = 1 if size >= num else DRAWS
    values = []
    for draw in range(draws):
        ids = np.random.default_rng((seed, draw)).permutation(num)[:size]
        values.append(accuracy(features, label, np.sort(ids)))
    return Accuracy(size, tuple(values))


def _linear(features: Parts, label: Parts, ids: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    mean, std = features.train[ids].mean(0), features.train[ids].std(0)
    live = std > 1e-6 * np.abs(mean)  # what is constant, but for rounding, tells nothing
    if not live.any():
        return float((label.test == np.bincount(label.train[ids]).argmax()).mean())
    x, v, t = ((part[:, live] - mean[live]) / std[live] for part in features)
    best = (-1.0, 0.0)
    with threadpool_limits(1):  # the same on any number of cores
        for strength in STRENGTHS:
            fit = LogisticRegression(C=strength, max_iter=300).fit(x[ids], label.train[ids])
            score = float(fit.score(v, label.validation))
            if score > best[0]:
                best = (score, float(fit.score(t, label.test)))
    return best[1]


def _nearest(features: Parts, label: Parts, ids: np.ndarray) -> float:
    """By the distance of features as they are; of equals, the first."""
    from sklearn.neighbors import KNeighborsClassifier
    from threadpoolctl import threadpool_limits

    nearest = KNeighborsClassifier(1, algorithm="brute").fit(features.train[ids], label.train[ids])
    with threadpool_limits(1):  # the same on any number of cores
        return float(nearest.score(features.test, label.test))


def told(classifier: Classifier, num: int) -> str:
    """What it is, given so many examples of validation."""
    if classifier == "nearest":
        return "The label of the nearest of the labelled examples, by the distance of features"
    return f"Logistic regression on standardized features, its penalty chosen on validation ({num})"


def components(raw: Parts, size: int) -> Parts:
    """The first principal components of raw data [n d], as many as `size`, fitted on train."""
    fit = fitted(raw.train, size)
    return Parts(*(fit.transform(part) for part in raw))


def table(
    rows: Mapping[str, Sequence[Accuracy]], note: str, classifier: Classifier = "linear"
) -> Table:
    """Accuracies in percent, a row for each kind of features."""
    sizes = [accuracy.size for accuracy in next(iter(rows.values()))]
    columns = ("features", *(f"{size:,} labels" for size in sizes))
    shown = tuple(
        (name, *(_percent(accuracy) for accuracy in found)) for name, found in rows.items()
    )
    title = f"Test accuracy of {_TITLES[classifier]}, in percent"
    return Table(title, columns, shown, note, True)


def _percent(accuracy: Accuracy) -> str:
    mean = f"{100 * accuracy.mean:.1f}"
    return f"{mean} ± {100 * accuracy.deviation:.1f}" if len(accuracy.values) > 1 else mean
