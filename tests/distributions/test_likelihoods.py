"""Every likelihood: proper, exact against float64, finite at any scale, sampled as it scores."""

import functools

import jax
import numpy as np
import pytest
from scipy import special

from jaxgen.distributions.likelihoods import (
    LOG_SCALE_RANGE,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Gaussian,
    log1mexp,
)
from jaxgen.errors import UserError

LEVELS = [2, 3, 17, 256]
LOCATIONS = np.array([-1.5, -1.0, -0.73, -0.1, 0.0, 1 / 3, 0.999, 1.0, 1.4], np.float32)
LOG_SCALES = np.array([-1e3, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 4, 7, 1e3], np.float32)
GRID = np.stack(np.meshgrid(LOCATIONS, LOG_SCALES, indexing="ij"), -1).reshape(-1, 2)


def _all_levels(likelihood, params):
    """log p of every level, [params level]; images arrive as uint8."""
    params = np.asarray(params, np.float32)
    x = np.tile(np.arange(likelihood.levels, dtype=np.uint8), (len(params), 1))
    wide = np.broadcast_to(params[:, None], (*x.shape, params.shape[-1]))
    return np.asarray(_log_prob(likelihood, wide, x))


@functools.partial(jax.jit, static_argnums=0)
def _log_prob(likelihood, params, x):
    return likelihood.log_prob(params, x)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(likelihood, params, x):
    """Of the sum of all log masses, after it."""
    return jax.value_and_grad(lambda p: likelihood.log_prob(p, x).sum())(params)


@functools.partial(jax.jit, static_argnums=0)
def _sample(likelihood, key, params, temperature):
    return likelihood.sample(key, params, temperature)


def _edges64(levels):
    """The bins' standardized edges for GRID, and the scale, in float64."""
    params = GRID.astype(np.float64)
    scale = np.exp(np.clip(params[:, 1:], *LOG_SCALE_RANGE))
    half = 1 / (levels - 1)
    centred = np.arange(levels) * 2 * half - 1 - params[:, :1]
    return (centred - half) / scale, (centred + half) / scale, scale


def _log_diff(log_big, log_small):
    return log_big + np.log(-np.expm1(log_small - log_big))


def _logistic64(levels):
    low, high, _ = _edges64(levels)
    # In the upper tail by the survival function: σ(b) - σ(a) = σ(-a) - σ(-b).
    up = low + high > 0
    inside = _log_diff(
        special.log_expit(np.where(up, -low, high)), special.log_expit(np.where(up, -high, low))
    )
    inside[:, 0], inside[:, -1] = special.log_expit(high[:, 0]), special.log_expit(-low[:, -1])
    return inside


def _gaussian64(levels):
    low, high, _ = _edges64(levels)
    up = low + high > 0
    inside = _log_diff(
        special.log_ndtr(np.where(up, -low, high)), special.log_ndtr(np.where(up, -high, low))
    )
    inside[:, 0], inside[:, -1] = special.log_ndtr(high[:, 0]), special.log_ndtr(-low[:, -1])
    return inside


FAMILIES = {DiscretizedLogistic: _logistic64, Gaussian: _gaussian64}


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_location_scale_against_float64_at_every_level(family, levels):
    found = np.asarray(_all_levels(family(levels), GRID), np.float64)
    expected = FAMILIES[family](levels)
    assert np.isfinite(expected).all()
    # float32 rounds the level's place by 1e-7, which the scale magnifies: where the log mass is
    # steep, the rounding of its argument is the error.
    low, high, scale = _edges64(levels)
    steep = 2.0 if family is DiscretizedLogistic else 1 + np.maximum(np.abs(low), np.abs(high))
    bound = 2.5e-7 / scale * steep + 3e-6 * np.abs(expected) + 2e-5
    assert (np.abs(found - expected) < bound).all()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("family", [DiscretizedLogistic, Gaussian, Categorical, Bernoulli])
def test_masses_sum_to_one(family, levels):
    params = GRID
    if family is Bernoulli:
        levels, params = 2, np.array([[0], [3], [-20], [88], [-104], [1e4]], np.float32)
    if family is Categorical:
        rng = np.random.default_rng(0)
        scales = np.array([0, 1, 10, 1e4], np.float32)[:, None]
        params = scales * rng.normal(size=(4, levels)).astype(np.float32)
    log_p = np.asarray(_all_levels(family(levels), params), np.float64)
    assert np.isfinite(log_p).all() and (log_p <= 1e-6).all()
    # Rounding: 1.5e-5 at most, with JAX 0.12.
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, atol=2e-5)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_finite_at_any_scale(family, levels):
    wild = np.concatenate([GRID, GRID * np.float32([1e4, 1.0])])
    x = np.tile(np.arange(levels), (len(wild), 1))
    wide = np.broadcast_to(wild[:, None], (*x.shape, 2))
    value, gradient = map(np.asarray, _gradient(family(levels), wide, x))
    assert np.isfinite(float(value)) and np.isfinite(gradient).all()
    outside = (wild[:, 1] < LOG_SCALE_RANGE[0]) | (wild[:, 1] > LOG_SCALE_RANGE[1])
    np.testing.assert_array_equal(gradient[outside, :, 1], 0.0)  # the log scale is clipped


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_in_the_location_is_the_closed_form(family, levels):
    # The grid twice: of this size `test_gradients_are_finite` has the program.
    x = np.tile(np.arange(levels), (2 * len(GRID), 1))
    wide = np.broadcast_to(np.tile(GRID, (2, 1))[:, None], (*x.shape, 2))
    found = np.asarray(_gradient(family(levels), wide, x)[1], np.float64)[: len(GRID), :, 0]
    low, high, scale = _edges64(levels)
    low[:, 0], high[:, -1] = -np.inf, np.inf
    if family is DiscretizedLogistic:
        expected = (special.expit(low) + special.expit(high) - 1) / scale
    else:
        density = lambda z: np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - FAMILIES[family](levels))  # noqa: E731, E501
        expected = (density(low) - density(high)) / scale
    moderate = (np.abs(GRID[:, 1]) <= 4)[:, None] & (FAMILIES[family](levels) > -50)
    np.testing.assert_allclose(
        np.where(moderate, found * scale, 0), np.where(moderate, expected * scale, 0), atol=2e-3
    )


@pytest.mark.parametrize("logit", [0.0, 20.0, 88.0, 104.0, 1e4])
def test_bernoulli_at_large_logits(logit):
    params = np.float32([[logit], [-logit]])
    for level, sign in ((1, 1.0), (0, -1.0)):
        x = np.full(2, level)
        found = _log_prob(Bernoulli(), params, x)
        expected = special.log_expit(sign * np.float64([logit, -logit]))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
        gradient = np.asarray(_gradient(Bernoulli(), params, x)[1])
        p = special.expit(np.float64([logit, -logit]))
        np.testing.assert_allclose(gradient[:, 0], level - p, atol=1e-7)


@pytest.mark.parametrize("levels", LEVELS)
def test_categorical_is_log_softmax_and_uniform_is_log_k(levels):
    logits = np.random.default_rng(1).normal(size=(5, levels)) * 3
    found = _all_levels(Categorical(levels), logits)
    np.testing.assert_allclose(found, special.log_softmax(logits, -1), atol=2e-6)
    uniform = _all_levels(Categorical(levels), np.full((1, levels), 7.0))
    np.testing.assert_allclose(uniform, -np.log(levels), rtol=1e-6)


SAMPLED = [
    (Bernoulli(), [0.8]),
    (Categorical(5), [0.3, -1.0, 2.0, 0.0, -3.0]),
    (DiscretizedLogistic(9), [-0.4, -1.2]),
    (DiscretizedLogistic(3), [1.5, 0.5]),
    (Gaussian(9), [0.35, -1.0]),
    (Gaussian(2), [-0.6, 0.2]),
]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("likelihood, params", SAMPLED)
def test_samples_have_the_masses_of_log_prob(likelihood, params, temperature):
    num = 40_000
    wide = np.tile(np.float32(params), (num, 1))
    draw = _sample(likelihood, jax.random.key(2), wide, temperature)
    found = np.bincount(np.asarray(draw), minlength=likelihood.levels) / num
    at = np.asarray(params, np.float32)
    if likelihood.num_params == 2 and not isinstance(likelihood, Categorical):
        at = at + np.float32([0, np.log(temperature)])
    else:
        at = at / temperature
    p = np.exp(np.asarray(_all_levels(likelihood, at[None])[0], np.float64))
    assert len(found) == likelihood.levels
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / num) + 1e-9).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_stay_among_the_levels(family):
    wild = np.repeat(GRID * np.float32([1e4, 1.0]), 20, 0)
    draw = np.asarray(_sample(family(17), jax.random.key(3), wild, 1.0))
    assert draw.dtype == np.int32 and draw.min() == 0 and draw.max() == 16
    far, small = wild[:, 0] > 5e3, wild[:, 1] < 4
    assert (draw[far & small] == 16).all()


@pytest.mark.parametrize("likelihood, params", SAMPLED[:2])
def test_mean_is_the_expected_level(likelihood, params):
    params = np.float32(params)[None]
    p = np.exp(_all_levels(likelihood, params)[0])
    expected = (p * np.arange(likelihood.levels)).sum()
    np.testing.assert_allclose(jax.jit(likelihood.mean)(params), [expected], rtol=1e-6)


def test_mean_of_a_location_scale_family_is_its_location():
    params = np.float32([[-1.0, 0], [1.0, 3], [0.0, -7], [-2.0, 0], [9.0, 0], [0.25, 1]])
    np.testing.assert_allclose(jax.jit(Gaussian(17).mean)(params), [0, 16, 8, 0, 16, 10], rtol=1e-6)


def test_log1mexp_against_float64():
    t = np.float32(10.0) ** np.arange(-30, 3, 0.25, dtype=np.float32)
    t64 = t.astype(np.float64)
    expected = np.log(-np.expm1(-t64))
    expected[t64 > 1] = np.log1p(-np.exp(-t64[t64 > 1]))
    np.testing.assert_allclose(jax.jit(log1mexp)(t), expected, rtol=3e-6, atol=1e-37)
    # 1 / (exp(t) - 1), on both branches.
    slope = jax.jit(jax.grad(lambda t: log1mexp(t).sum()))(t[40:])
    np.testing.assert_allclose(
        slope, 1 / np.expm1(np.minimum(t64[40:], 500)), rtol=1e-5, atol=1e-37
    )


def test_bernoulli_refuses_more_levels():
    with pytest.raises(UserError, match="--binarize"):
        Bernoulli(17)
