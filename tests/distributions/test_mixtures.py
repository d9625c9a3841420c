"""The logistic mixture: exact against float64, sampled as it scores, channels coupled exactly."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tiny import some

from jaxgen.distributions.likelihoods import DiscretizedLogistic
from jaxgen.distributions.mixtures import LogisticMixture, couple, num_coupled_params
from jaxgen.errors import UserError

K = 3
LEVELS = [2, 17, 256]


def _random_params(shape, seed=0):
    """Logits, locations (beyond the range, too) and log scales -7..7, [*shape 3K]."""
    rng = np.random.default_rng(seed)
    extremes = rng.random((*shape, K)) < 0.3
    locations = rng.uniform(-1.3, 1.3, (*shape, K))
    locations = np.where(extremes, np.sign(locations) * 2.5, locations)
    log_scales = rng.choice(np.arange(-7, 8), (*shape, K))
    logits = rng.normal(size=(*shape, K)) * 3
    return np.concatenate([logits, locations, log_scales], -1).astype(np.float32)


def _component64(params, x, levels):
    """log mass of x [*s] under each component [*s k], and a bound on its float32 error."""
    _, location, log_scale = np.split(params.astype(np.float64), 3, -1)
    half, scale, x = 1 / (levels - 1), np.exp(log_scale), x[..., None]
    low = (x * 2 * half - 1 - half - location) / scale
    high = (x * 2 * half - 1 + half - location) / scale
    # In the upper tail by the survival function: σ(b) - σ(a) = σ(-a) - σ(-b).
    up = low + high > 0
    big = special.log_expit(np.where(up, -low, high))
    small = special.log_expit(np.where(up, -high, low))
    inside = big + np.log(-np.expm1(small - big))
    edge = np.where(x == 0, special.log_expit(high), special.log_expit(-low))
    log_p = np.where((x == 0) | (x == levels - 1), edge, inside)
    # float32 rounds the level's place by 1e-7, which the scale magnifies.
    return log_p, 5e-7 / scale + 3e-6 * np.abs(log_p) + 2e-5


def _mixture64(params, x, levels):
    """log mass of x [*s], and a bound on its float32 error."""
    log_p, bound = _component64(params, x, levels)
    parts = special.log_softmax(params[..., :K].astype(np.float64), -1) + log_p
    return special.logsumexp(parts, -1), (special.softmax(parts, -1) * bound).sum(-1) * 1.1 + 2e-5


def _wide(params, levels):
    """Every level beside all params: params [n levels 3k], x [n levels]."""
    x = np.tile(np.arange(levels), (len(params), 1))
    return np.broadcast_to(params[:, None], (*x.shape, params.shape[-1])), x


def _close(found, expected, bound):
    assert np.isfinite(expected).all()
    difference = np.abs(np.asarray(found, np.float64) - expected)
    assert (difference < bound).all(), (difference - bound).max()


@pytest.mark.parametrize("levels", LEVELS)
def test_every_level_against_float64_and_the_sum_of_masses(levels):
    params, x = _wide(_random_params((300,)), levels)
    found = jax.jit(LogisticMixture(levels, K).log_prob)(params, x)
    _close(found, *_mixture64(params, x, levels))
    np.testing.assert_allclose(np.exp(np.asarray(found, np.float64)).sum(1), 1, atol=1e-5)


def test_one_component_is_a_discretized_logistic():
    params = _random_params((50,))[:, [0, K, 2 * K]]
    params, x = _wide(params, 17)
    expected = jax.jit(DiscretizedLogistic(17).log_prob)(params[..., 1:], x)
    found = jax.jit(LogisticMixture(17, 1).log_prob)(params, x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


SAMPLED = np.float32([0.5, -0.3, 1.0, -0.8, 0.4, 1.3, -2.0, -1.0, -3.0])
"""Three components, one of them beyond the range."""


def _frequencies_match(drawn, p):
    num = len(drawn)
    found = np.bincount(drawn, minlength=len(p)) / num
    assert len(found) == len(p)
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / num) + 1e-9).all()


@functools.partial(jax.jit, static_argnums=(0, 1))
def _draws(mixture, num, key, params, temperature):
    return mixture.pick(mixture.noise(key, (num,)), params, temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draws_have_the_masses_of_log_prob(temperature):
    mixture, num = LogisticMixture(9, K), 40_000
    wide = np.broadcast_to(SAMPLED, (num, 3 * K))
    drawn = np.asarray(_draws(mixture, num, jax.random.key(0), wide, temperature))
    assert drawn.dtype == np.int32
    at = SAMPLED.copy()
    at[:K] /= temperature
    at[-K:] += np.float32(np.log(temperature))
    log_p, _ = _mixture64(*_wide(at[None], 9), 9)
    _frequencies_match(drawn, np.exp(log_p[0]))


def test_noise_of_each_draw_is_its_own():
    mixture = LogisticMixture(256, K)
    noise = np.asarray(jax.jit(lambda key: mixture.noise(key, (2000,)))(jax.random.key(1)))
    assert noise.shape == (2000, K + 1)
    correlation = np.corrcoef(noise.T) - np.eye(K + 1)
    assert (np.abs(correlation) < 5 / 2000**0.5).all()
    # The mean of a standard Gumbel is Euler's constant, of a standard logistic 0.
    expected, deviation = [np.euler_gamma] * K + [0], np.pi / np.sqrt([6] * K + [3])
    assert (np.abs(noise.mean(0) - expected) < 5 * deviation / 2000**0.5).all()


def test_mean_is_that_of_the_locations():
    weights = special.softmax(SAMPLED[:K].astype(np.float64))
    places = np.clip((SAMPLED[K : 2 * K] + 1) * 4, 0, 8)  # in levels 0..8
    found = jax.jit(LogisticMixture(9, K).mean)(SAMPLED[None])
    np.testing.assert_allclose(found, [weights @ places], rtol=1e-6)


# Channels


def _raw(n, channels, seed=0):
    """Random params for `couple`, [n P], moderate enough that no joint mass underflows."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(n, num_coupled_params(K, channels))).astype(np.float32)
    raw[:, K * (1 + channels) : K * (1 + 2 * channels)] -= 1
    return raw


def _joint64(raw, x, levels):
    """log mass of pixels x [n c] by the paper's formula, and a bound: a sum over components, in
    each of which the channels are independent but for the shift of their locations."""
    raw, channels = raw.astype(np.float64), x.shape[-1]
    total = special.log_softmax(raw[:, :K], -1)
    error = np.zeros_like(total)
    value = x * 2 / (levels - 1) - 1
    pair = K * (1 + 2 * channels)
    for d in range(channels):
        location = raw[:, K * (1 + d) : K * (2 + d)].copy()
        log_scale = raw[:, K * (1 + channels + d) : K * (2 + channels + d)]
        for e in range(d):
            location += np.tanh(raw[:, pair : pair + K]) * value[:, e : e + 1]
            pair += K
        log_p, bound = _component64(
            np.concatenate([raw[:, :K], location, log_scale], -1), x[:, d], levels
        )
        # The later channels' weights repeat the error of the earlier ones' masses.
        total, error = total + log_p, error + 4 * bound
    assert pair == raw.shape[1]
    return special.logsumexp(total, -1), (special.softmax(total, -1) * error).sum(-1)


def _conditionals(mixture, raw, x):
    """log p of each channel given those before it, [n c]."""
    return jax.jit(lambda raw, x: mixture.log_prob(couple(mixture, raw, x), x))(raw, x)


@pytest.mark.parametrize("channels, levels", [(3, 4), (2, 9), (4, 3)])
def test_conditionals_multiply_to_the_joint_mixture_and_sum_to_one(channels, levels):
    mixture, params = LogisticMixture(levels, K), _raw(6, channels)
    pixels = np.array(list(itertools.product(range(levels), repeat=channels)))
    raw, x = np.repeat(params, len(pixels), 0), np.tile(pixels, (len(params), 1))
    found = np.asarray(_conditionals(mixture, raw, x), np.float64).sum(-1)
    _close(found, *_joint64(raw, x, levels))
    np.testing.assert_allclose(np.exp(found).reshape(len(params), -1).sum(1), 1, atol=2e-5)


def test_joint_mass_at_256_levels():
    rng = np.random.default_rng(1)
    raw, x = _raw(2000, 3, seed=2), rng.integers(256, size=(2000, 3))
    found = np.asarray(_conditionals(LogisticMixture(256, K), raw, x), np.float64)
    _close(found.sum(-1), *_joint64(raw, x, 256))


def test_grey_pixels_need_no_coupling():
    mixture, raw = LogisticMixture(17, K), _random_params((5, 4))
    assert num_coupled_params(K, 1) == mixture.num_params
    assert num_coupled_params(10, 3) == 100
    coupled = jax.jit(lambda raw, x: couple(mixture, raw, x))(raw, np.zeros((5, 4, 1), np.int32))
    np.testing.assert_array_equal(np.asarray(coupled)[..., 0, :], raw)


def test_a_channel_depends_on_all_before_it_and_on_none_after():
    mixture, raw = LogisticMixture(17, K), _raw(5, 4)
    rng = np.random.default_rng(3)
    x = rng.integers(17, size=(5, 4))
    coupled = jax.jit(lambda x: couple(mixture, raw, x))
    base = np.asarray(coupled(x))
    for d in range(4):
        changed = x.copy()
        changed[:, d] = (x[:, d] + 5) % 17
        found = np.asarray(coupled(changed))
        np.testing.assert_array_equal(found[:, : d + 1], base[:, : d + 1])
        weights, locations, log_scales = np.split(found != base, 3, -1)
        assert weights[:, d + 1 :].all() and locations[:, d + 1 :].all() and not log_scales.any()


@pytest.mark.parametrize("temperature", some([1.0, 0.5], [0.5]))
def test_channels_drawn_in_turn_have_the_joint_masses(temperature):
    mixture, num, levels = LogisticMixture(4, K), 60_000, 4
    raw = np.broadcast_to(_raw(1, 3, seed=5), (num, num_coupled_params(K, 3)))

    @jax.jit
    def draw(key, raw):
        noise = mixture.noise(key, (num, 3))
        x = jnp.full((num, 3), levels - 1)  # unset channels may hold anything
        for d in range(3):
            params = couple(mixture, raw, x)[:, d]
            x = x.at[:, d].set(mixture.pick(noise[:, d], params, temperature))
        return x

    drawn = np.asarray(draw(jax.random.key(4), raw))
    pixels = np.array(list(itertools.product(range(levels), repeat=3)))
    coupled = jax.jit(lambda raw, x: couple(mixture, raw, x))(raw[: len(pixels)], pixels)
    params = np.array(coupled)
    params[..., :K] /= temperature
    params[..., -K:] += np.log(temperature)
    log_p, _ = _mixture64(params, pixels, levels)
    _frequencies_match(drawn @ [16, 4, 1], np.exp(log_p.sum(-1)))


@pytest.mark.parametrize("levels", LEVELS)
def test_gradients_are_finite_at_any_params(levels):
    mixture, rng = LogisticMixture(levels, K), np.random.default_rng(6)
    scales = np.float32([0, 1, 30, 1e4])[:, None, None]
    raw = rng.normal(size=(4, 200, num_coupled_params(K, 3))).astype(np.float32) * scales
    x = rng.choice([0, levels // 2, levels - 1], (4, 200, 3))
    total = lambda raw: mixture.log_prob(couple(mixture, raw, x), x).sum()  # noqa: E731
    value, gradient = map(np.asarray, jax.jit(jax.value_and_grad(total))(raw))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (np.abs(gradient) > 0).any((1, 2)).all()


def test_refuses_a_mixture_of_nothing():
    with pytest.raises(UserError, match="at least 1 component"):
        LogisticMixture(17, 0)
