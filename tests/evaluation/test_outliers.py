"""Scores of outliers against counting every pair, and what a planted outlier gets."""

import io

import numpy as np
from PIL import Image

from jaxgen.evaluation import outliers
from jaxgen.evaluation.outliers import Scores, derived, found, png_nats


def by_pairs(own, other):
    """How often another is above an own, ties half, by counting."""
    return np.mean([(b > a) + 0.5 * (b == a) for a in own for b in other])


def test_areas_are_counts_of_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    own = np.round(rng.normal(size=60), 1)
    other = np.round(rng.normal(0.7, 1, size=40), 1)  # rounded: there are ties
    validation = np.arange(100.0)
    one = found(Scores(validation, own, other))
    assert abs(one.auroc - by_pairs(own, other)) < 1e-12
    # The threshold that 38 of 40 exceed or meet: the third lowest at most.
    least = np.sort(other)[1]
    assert (other >= least).mean() >= 0.95 and one.fpr95 == (own >= least).mean()
    assert one.caught == (other > np.quantile(validation, 0.95)).mean() == 0.0
    low, high = one.auroc_interval
    assert low < one.auroc < high and high - low < 0.3
    # As many draws of sets as large differ by as much.
    again = [by_pairs(rng.normal(size=60), rng.normal(0.7, 1, size=40)) for _ in range(30)]
    assert 0.4 < (high - low) / (4 * np.std(again)) < 2.5
    monkeypatch.setattr(outliers, "DRAWS", 2)  # of intervals, at which the rest does not look
    turned = found(Scores(-validation, -own, -other))
    assert abs(turned.auroc + one.auroc - 1) < 1e-12
    # Whichever is to be found, a perfect score finds it.
    apart = found(Scores(validation, np.zeros(9), np.ones(5)))
    assert (apart.auroc, apart.auprc, apart.auprc_own, apart.fpr95) == (1.0, 1.0, 1.0, 0.0)
    none = found(Scores(validation, np.zeros(30), np.zeros(10)))
    assert none.auroc == 0.5 and none.fpr95 == 1.0
    assert abs(none.auprc - 0.25) < 1e-12 and abs(none.auprc_own - 0.75) < 1e-12


def test_a_png_is_as_long_as_its_file():
    rng = np.random.default_rng(0)
    images = np.stack([np.full((16, 16, 1), 7), rng.integers(256, size=(16, 16, 1))])
    sizes = png_nats(images.astype(np.uint8))
    file = io.BytesIO()
    Image.fromarray(images[1, ..., 0].astype(np.uint8)).save(file, "PNG", optimize=True)
    assert sizes[1] == len(file.getvalue()) * 8 * np.log(2) and sizes[1] > 2 * sizes[0]
    colour = png_nats(rng.integers(256, size=(2, 4, 4, 3)).astype(np.uint8))
    assert colour.shape == (2,)


def test_untypical_is_far_from_the_mean_on_either_side(monkeypatch):
    """A plain image is too likely, noise too unlikely: both are far, and the NLL alone ranks one of
    them below all data."""
    monkeypatch.setattr(outliers, "DRAWS", 2)
    rng = np.random.default_rng(1)
    nll = Scores(rng.normal(100, 5, 500), rng.normal(100, 5, 300), np.array([20.0, 180.0] * 20))
    png = Scores(*(np.full(len(part), 30.0) for part in nll))
    made = derived(nll, png)
    np.testing.assert_allclose(made["NLL less the PNG's size"].own, nll.own - 30)
    typical = made["untypical: |NLL - its mean|"]
    np.testing.assert_allclose(typical.other, np.abs(nll.other - nll.validation.mean()))
    assert found(nll).auroc == 0.5 and found(typical).auroc == 1.0
    assert found(typical).caught == 1.0 and found(nll).caught == 0.5
    assert set(derived(nll, None)) == {"untypical: |NLL - its mean|"}
