"""Classifiers on features: what they must find, and what they must not."""

import numpy as np
import pytest

from jaxgen.evaluation import probe as probing
from jaxgen.evaluation.probe import DRAWS, Parts, components, probe, sizes_of, table

RNG = np.random.default_rng(0)
SIZES = (300, 200, 400)


def parts(make):
    return Parts(*(make(size) for size in SIZES))


@pytest.fixture
def task():
    """Features of two numbers on very different scales, the sign of the small one being the label,
    and a third that is constant."""
    x = parts(lambda n: np.column_stack([1e4 * RNG.normal(size=n), 1e-3 * RNG.normal(size=n),
                                         np.full(n, 7.0)]))  # fmt: skip
    return x, Parts(*((part[:, 1] > 0).astype(int) for part in x))


def test_what_is_linear_is_found(task):
    x, label = task
    found = probe(x, label, 300)
    assert len(found.values) == 1 and found.mean > 0.97 and found.deviation == 0.0
    few = probe(x, label, 100)
    assert len(few.values) == DRAWS and len(set(few.values)) > 1 and few.mean > 0.9
    assert few.deviation == pytest.approx(np.std(few.values, ddof=1))
    assert probe(x, label, 100).values == few.values != probe(x, label, 100, seed=1).values


def test_labels_that_are_not_in_the_features_are_not_found(task):
    x, _ = task
    label = parts(lambda n: RNG.integers(2, size=n))
    assert abs(probe(x, label, 300).mean - 0.5) < 5 * (0.25 / SIZES[2]) ** 0.5


def test_features_that_are_constant_tell_the_commonest_class():
    x, label = parts(lambda n: np.ones((n, 2))), parts(lambda n: (np.arange(n) % 3 > 0).astype(int))
    assert probe(x, label, 300).mean == pytest.approx((label.test == 1).mean())


def test_the_penalty_is_chosen_on_validation(task, monkeypatch):
    """The test split has no say: with its labels turned around, the same classifier is tested."""
    x, label = task
    turned = label._replace(test=1 - label.test)
    found, other = probe(x, label, 300).mean, probe(x, turned, 300).mean
    assert found + other == pytest.approx(1.0)
    # Noise in many features: a strong penalty is the best one, and is what validation takes.
    wide = Parts(*(np.concatenate([p[:, 1:2] * 1e3, RNG.normal(size=(len(p), 80))], 1) for p in x))
    chosen = probe(wide, label, 100).mean
    monkeypatch.setattr(probing, "STRENGTHS", (1e5,))
    assert chosen > probe(wide, label, 100).mean


def test_the_nearest_example_is_asked(task):
    """Whatever the scales: on the large one there is nothing, and alone the small one has all."""
    x, label = task
    assert abs(probe(x, label, 300, classifier="nearest").mean - 0.5) < 0.13
    small = Parts(*(part[:, 1:] for part in x))
    found = probe(small, label, 300, classifier="nearest")
    distance = np.abs(small.test[:, None, 0] - small.train[None, :, 0])
    expected = label.train[distance.argmin(1)]
    assert found.values == (float((expected == label.test).mean()),) and found.mean > 0.97
    few = probe(small, label, 100, classifier="nearest").values
    ids = [np.random.default_rng((0, i)).permutation(300)[:100] for i in range(DRAWS)]
    naive = [label.train[i][distance[:, i].argmin(1)] == label.test for i in ids]
    assert few == tuple(float(right.mean()) for right in naive)


def test_components_are_those_of_the_training_data():
    x = parts(lambda n: RNG.normal(size=(n, 5)) * [5, 3, 2, 1, 0.1] + 10)
    found = components(x, 2)
    centred = x.train - x.train.mean(0)
    basis = np.linalg.svd(centred, full_matrices=False)[2][:2]
    expected = (x.test - x.train.mean(0)) @ basis.T
    np.testing.assert_allclose(np.abs(found.test), np.abs(expected), rtol=1e-6, atol=1e-9)
    assert components(x, 9).train.shape == (300, 5)


def test_sizes_and_their_table():
    assert sizes_of(50) == (50,) and sizes_of(1000) == (100, 1000)
    assert sizes_of(50_000) == (100, 1000, 50_000)
    few = probing.Accuracy(100, (0.5, 0.7))
    shown = table({"ours": [few, probing.Accuracy(1000, (0.9,))]}, "how")
    assert shown.columns == ("features", "100 labels", "1,000 labels")
    assert shown.rows == (("ours", "60.0 ± 14.1", "90.0"),)
