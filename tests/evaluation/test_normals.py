"""Baselines of real numbers against their closed forms."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from jaxgen.evaluation import normals
from jaxgen.evaluation.normals import Normals, fit_normals

CENTRES = np.array([[-0.6, -0.5], [0.5, 0.6], [0.6, -0.6]])


def draw(seed, num=3000):
    rng = np.random.default_rng(seed)
    x = CENTRES[rng.integers(3, size=num)] + rng.normal(0, 0.1, (num, 2))
    return x.astype(np.float32)[:, None, None]


@pytest.fixture(scope="module")
def fitted():
    return fit_normals(draw(0), draw(1))


def test_one_normal_has_the_moments_of_the_data(fitted):
    train, test = (draw(seed).reshape(-1, 2).astype(np.float64) for seed in (0, 2))
    nll = -multivariate_normal(train.mean(0), np.cov(train.T, bias=True)).logpdf(test)
    np.testing.assert_allclose(fitted.nll(draw(2))["normal"], nll, rtol=1e-4)


def test_the_mixture_comes_near_the_truth(fitted):
    test = draw(2).reshape(-1, 2)
    each = [multivariate_normal(c, 0.01 * np.eye(2)).logpdf(test) for c in CENTRES]
    truth = -(logsumexp(each, axis=0) - np.log(3)).mean()
    nll = fitted.nll(draw(2))
    assert truth - 0.05 < nll["mixture"].mean() < truth + 0.05 < nll["normal"].mean() - 0.5
    assert "train 3000 of 3000, chosen on validation 3000 of 3000" in fitted.protocol


def test_save_load(fitted, tmp_path):
    fitted.save(tmp_path / "x.npz")
    loaded = Normals.load(tmp_path / "x.npz")
    assert loaded.protocol == fitted.protocol
    for name, nll in fitted.nll(draw(2)).items():
        np.testing.assert_array_equal(loaded.nll(draw(2))[name], nll)


def test_many_dimensions_have_diagonal_covariances_and_many_numbers_are_drawn(monkeypatch):
    monkeypatch.setattr(normals, "MAX_VALUES", 4000)
    x = np.random.default_rng(0).normal(size=(300, 5, 8, 1))
    fitted = fit_normals(x, x)
    assert "diag" in fitted.protocol and "train 100 of 300" in fitted.protocol
    assert fitted.normal.covariances_.shape == (1, 40)
