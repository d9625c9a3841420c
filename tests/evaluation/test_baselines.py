"""Baselines: exact, normalized, monotone EM, and the published anchors of the digits."""

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.datasets import load_digits

from jaxgen.errors import UserError
from jaxgen.evaluation import baselines
from jaxgen.evaluation.baselines import Baselines, Mixture, fit_baselines


@pytest.fixture(scope="module")
def digits():
    images = load_digits().images.astype(np.uint8)[..., None]
    return images[:1000], images[1000:1350], images[1350:]


@pytest.fixture(scope="module")
def fitted(digits):
    return fit_baselines(*digits[:2], levels=17)


def _draw(rng, n, levels=3, dims=4, k=2):
    """Images [n 2 2 1] of a known mixture, and that mixture."""
    probs = rng.dirichlet(np.ones(levels) * 0.5, (k, dims))
    weights = np.full(k, 1 / k)
    component = rng.integers(k, size=n)
    u = rng.random((n, dims, 1))
    x = (u > probs[component].cumsum(-1)).sum(-1).clip(0, levels - 1).astype(np.uint8)
    mixture = Mixture(np.log(weights), np.log(probs).transpose(2, 1, 0))
    return x.reshape(n, 2, -1, 1), mixture


def _prior(x, levels, strength):
    fit = baselines.maximize_factorized(baselines.histogram(x, levels), 0.1)
    return np.float32(strength) * np.exp(fit.log_probs)


def test_digits_anchors(digits, fitted):
    nll = {name: nats.mean() for name, nats in fitted.nll(digits[2]).items()}
    assert nll["uniform"] == pytest.approx(181.326, abs=1e-3)
    assert nll["factorized"] == pytest.approx(106.31, abs=0.1)
    assert nll["mixture"] < 99.0
    fixed = baselines.maximize_factorized(baselines.histogram(_flat(digits[0]), 17), 0.1)
    assert baselines.mixture_nll(fixed, _flat(digits[2])).mean() == pytest.approx(106.306, abs=1e-3)
    assert baselines.mixture_nll(fixed, _flat(digits[1])).mean() == pytest.approx(110.531, abs=1e-3)


def _flat(images):
    return images.reshape(len(images), -1)


def test_uniform_is_exact():
    assert baselines.uniform(2, 784) == pytest.approx(784 * np.log(2), rel=1e-15)


@pytest.mark.parametrize("levels", [2, 3])
def test_every_baseline_normalizes(levels):
    # The probabilities of all levels^4 images of 2x2 sum to one.
    rng = np.random.default_rng(0)
    images, _ = _draw(rng, 600, levels=levels, k=3)
    fitted = fit_baselines(images[:400], images[400:], levels)
    everything = np.array(list(itertools.product(range(levels), repeat=4)), np.uint8)
    for name, nats in fitted.nll(everything.reshape(-1, 2, 2, 1)).items():
        assert logsumexp(-nats) == pytest.approx(0, abs=1e-6), name
    assert len(fitted.mixture.log_weights) >= 5


def test_factorized_is_the_smoothed_histogram():
    x = np.array([[0, 2], [0, 1], [1, 1]], np.uint8)
    fit = baselines.maximize_factorized(baselines.histogram(x, 3), 0.5)
    expected = np.array([[2.5, 1.5, 0.5], [0.5, 2.5, 1.5]]) / 4.5
    np.testing.assert_allclose(np.exp(fit.log_probs[..., 0]).T, expected, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_em_never_lowers_its_objective(digits, k):
    x = _flat(digits[0])
    prior = _prior(x, 17, 1.0).astype(np.float64)
    _, objective = baselines.fit_mixture(x, 17, k, prior, dtype=np.float64)
    assert np.diff(objective).min() > -1e-6
    assert k == 1 or objective[-1] - objective[0] > 50


def test_em_objective_is_the_penalized_likelihood(digits, monkeypatch):
    monkeypatch.setattr(baselines, "ITERATIONS", 3)
    x = _flat(digits[0])[:200]
    prior = _prior(x, 17, 2.0).astype(np.float64)
    counts, _ = baselines.fit_mixture(x, 17, 4, prior, dtype=np.float64)
    mixture = baselines.maximize(counts, prior)
    monkeypatch.setattr(baselines, "ITERATIONS", 4)
    _, objective = baselines.fit_mixture(x, 17, 4, prior, dtype=np.float64)
    penalty = (prior * mixture.log_probs).sum() + mixture.log_weights.sum()
    expected = penalty - baselines.mixture_nll(mixture, x).sum()
    assert objective[-1] == pytest.approx(expected, rel=1e-10)


def test_mixture_recovers_the_truth():
    images, truth = _draw(np.random.default_rng(1), 6000, dims=12)
    fitted = fit_baselines(images[:4000], images[4000:5000], levels=3)
    test = images[5000:]
    nll = {name: nats.mean() for name, nats in fitted.nll(test).items()}
    entropy = baselines.mixture_nll(truth, _flat(test)).mean()
    assert entropy - 0.05 < nll["mixture"] < entropy + 0.1
    assert nll["factorized"] > entropy + 0.5


def test_sparse_path_equals_dense_path(digits, monkeypatch):
    x = _flat(digits[0])[:300]
    prior = _prior(x, 17, 1.0).astype(np.float64)
    dense, _ = baselines.fit_mixture(x, 17, 6, prior, dtype=np.float64)
    nats = baselines.mixture_nll(baselines.maximize(dense, prior), x)
    monkeypatch.setattr(baselines, "_DENSE", 0)
    assert not isinstance(baselines.encode(x, 17), np.ndarray)
    sparse, _ = baselines.fit_mixture(x, 17, 6, prior, dtype=np.float64)
    np.testing.assert_allclose(sparse.levels, dense.levels, atol=1e-8)
    other = baselines.mixture_nll(baselines.maximize(sparse, prior), x)
    np.testing.assert_allclose(other, nats, rtol=1e-9)


def test_float64_reference(digits, fitted):
    # One image at a time, by indexing: no indicators, no reference level.
    log_weights, log_probs = (a.astype(np.float64) for a in fitted.mixture)
    x = _flat(digits[2])[:50]
    joint = [log_weights + log_probs[image, np.arange(64)].sum(0) for image in x]
    expected = -logsumexp(joint, axis=1)
    np.testing.assert_allclose(fitted.nll(digits[2][:50])["mixture"], expected, rtol=1e-12)
    counts, _ = baselines.fit_mixture(_flat(digits[0]), 17, 10, _prior(_flat(digits[0]), 17, 1.0))
    assert counts.components.sum() == pytest.approx(1000, rel=1e-5)
    np.testing.assert_allclose(
        counts.levels.sum(0), np.broadcast_to(counts.components, (64, 10)), atol=1e-2
    )


def test_save_load(digits, fitted, tmp_path):
    fitted.save(tmp_path / "baselines.npz")
    loaded = Baselines.load(tmp_path / "baselines.npz")
    assert loaded.protocol == fitted.protocol and loaded.levels == 17
    for name, nats in fitted.nll(digits[2]).items():
        np.testing.assert_array_equal(loaded.nll(digits[2])[name], nats)


def test_same_seed_same_bits(digits, fitted):
    again = fit_baselines(*digits[:2], levels=17)
    np.testing.assert_array_equal(again.mixture.log_probs, fitted.mixture.log_probs)
    assert again.protocol == fitted.protocol


def test_large_problems_are_drawn(digits, monkeypatch):
    monkeypatch.setattr(baselines, "_DENSE", 0)
    monkeypatch.setattr(baselines, "_SUBPIXELS", 200 * 64)
    fitted = fit_baselines(*digits[:2], levels=17)
    assert "train 200 of 1000" in fitted.protocol
    assert "validation 200 of 350" in fitted.protocol


def test_levels_out_of_range(digits, fitted):
    with pytest.raises(UserError, match="17 levels"):
        fitted.nll(digits[0] + np.uint8(10))
