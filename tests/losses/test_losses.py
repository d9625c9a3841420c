"""Divergences, bounds and adversarial losses against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgen.distributions.normal import kl_normal, kl_standard_normal, normal_log_prob
from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES, SMOOTHED, smoothed
from jaxgen.losses.bounds import importance_weighted_bound
from jaxgen.losses.penalties import gradient_penalty, gradient_penalty_r1
from jaxgen.spec import bits_per_dim

LOG_PROB = jax.jit(normal_log_prob)
KL, KL_OF_TWO = jax.jit(kl_standard_normal), jax.jit(kl_normal)
KL_SLOPES = jax.jit(jax.value_and_grad(kl_standard_normal, (0, 1)))
KL_OF_TWO_SLOPES = jax.jit(jax.value_and_grad(kl_normal, (0, 1, 2, 3)))

NORMALS = [(0.0, 0.0), (1.3, -0.7), (-2.0, 1.1), (0.4, -4.0)]


def test_bits_per_dim():
    # 64 sub-pixels of a uniform 256-level image: 8 bits each.
    np.testing.assert_allclose(bits_per_dim(64 * np.log(256), 64), 8.0, rtol=1e-12)


@pytest.mark.parametrize("mean, logvar", NORMALS)
def test_kl_against_quadrature_and_monte_carlo(mean, logvar):
    found = float(KL(np.float32(mean), np.float32(logvar)))
    q = scipy.stats.norm(mean, np.exp(logvar / 2))
    p = scipy.stats.norm(0, 1)
    expected, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), *q.interval(1 - 1e-15)
    )
    np.testing.assert_allclose(found, expected, atol=2e-6)
    noise = np.random.default_rng(0).normal(size=50_000)
    z = np.float32(mean + np.exp(logvar / 2) * noise)
    ratio = np.float64(LOG_PROB(z, mean, logvar)) - np.float64(LOG_PROB(z, 0.0, 0.0))
    assert abs(ratio.mean() - found) <= 4 * ratio.std() / len(ratio) ** 0.5 + 1e-6


@settings(max_examples=50, deadline=None, derandomize=True)
@given(*(st.floats(-a, a, width=32, allow_subnormal=False) for a in (30, 15)))
def test_kl_is_not_negative_and_its_gradient_is_the_closed_form(mean, logvar):
    at = (np.float32(mean), np.float32(logvar))
    value, (by_mean, by_logvar) = KL_SLOPES(*at)
    assert float(value) >= -1e-6
    np.testing.assert_allclose(by_mean, at[0], rtol=1e-5)
    np.testing.assert_allclose(by_logvar, 0.5 * np.expm1(np.float64(at[1])), rtol=1e-4, atol=1e-6)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(*(st.floats(-9, 9, width=32, allow_subnormal=False) for _ in range(4)))
def test_kl_of_two_normals_is_not_negative_and_zero_where_they_are_equal(a, b, c, d):
    q, p = (np.float32(a), np.float32(b)), (np.float32(c), np.float32(d))
    value, slopes = KL_OF_TWO_SLOPES(*q, *p)
    m, v, n, w = np.float64([*q, *p])
    assert float(value) >= -1e-5 * max(1.0, np.exp(v - w))
    by_mean, by_logvar = (m - n) / np.exp(w), 0.5 * np.expm1(v - w)
    by_prior = 0.5 - 0.5 * (np.exp(v) + (m - n) ** 2) / np.exp(w)
    expected = [by_mean, by_logvar, -by_mean, by_prior]
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(KL_OF_TWO(*q, *q), 0.0, atol=1e-6)
    zero = np.float32(0)
    np.testing.assert_allclose(KL_OF_TWO(*q, zero, zero), KL(*q), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mean, logvar", NORMALS)
def test_normal_log_prob_against_scipy(mean, logvar):
    z = np.linspace(-5, 5, 41).astype(np.float32)
    expected = scipy.stats.norm(mean, np.exp(logvar / 2)).logpdf(z)
    np.testing.assert_allclose(LOG_PROB(z, mean, logvar), expected, rtol=2e-5)


class LinearGaussian:
    """x = W z + b + sigma e: log p(x) and p(z | x) are known."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.w, self.b, self.sigma = rng.normal(size=(8, 3)) * 0.4, rng.normal(size=8), 0.5
        self.x = self.w @ rng.normal(size=3) + self.b + self.sigma * rng.normal(size=8)
        cov = self.w @ self.w.T + self.sigma**2 * np.eye(8)
        self.log_px = scipy.stats.multivariate_normal(self.b, cov).logpdf(self.x)
        self.precision = np.eye(3) + self.w.T @ self.w / self.sigma**2
        self.mean = np.linalg.solve(self.precision, self.w.T @ (self.x - self.b)) / self.sigma**2

    def log_weight(self, replicates, mean, root):
        """log p(x, z) - log q(z) for q = N(mean, root root'), [replicates], once per key."""
        mean, root = (x if isinstance(x, jax.Array) else np.float32(x) for x in (mean, root))
        log_det = jnp.log(jnp.abs(jnp.diagonal(root))).sum()

        def draw(key):
            noise = jax.random.normal(key, (replicates, 3))
            z = mean[None] + noise @ root.T
            expected = z @ jnp.float32(self.w).T + jnp.float32(self.b)[None]
            log_px = normal_log_prob(jnp.float32(self.x)[None], expected, 2 * np.log(self.sigma))
            log_pz = normal_log_prob(z, 0.0, 0.0).sum(-1)
            log_q = normal_log_prob(noise, 0.0, 0.0).sum(-1) - log_det
            return log_px.sum(-1) + log_pz - log_q

        return draw


@pytest.fixture(scope="module")
def rig():
    return LinearGaussian()


@pytest.mark.parametrize("k", [1, 2, 7, 50])
def test_exact_posterior_gives_log_p_without_variance(rig, k, key):
    root = np.linalg.cholesky(np.linalg.inv(rig.precision))
    draw = rig.log_weight(500, rig.mean, root)
    bound = jax.jit(lambda key: importance_weighted_bound(draw, key, k))(key)
    np.testing.assert_allclose(bound, rig.log_px, atol=1e-4)


def test_bound_rises_with_k_to_log_p(rig):
    # Mean-field q: the gap at k = 1 is KL(q || posterior), in closed form.
    scale = 1 / np.sqrt(np.diag(rig.precision))
    draw = rig.log_weight(4000, rig.mean, np.diag(scale))
    gap = -0.5 * (np.linalg.slogdet(rig.precision)[1] + 2 * np.log(scale).sum())
    assert gap > 0.05
    # The same key at every k: the first draws are common to all.
    bound = jax.jit(lambda key, k: importance_weighted_bound(draw, key, k), static_argnums=1)
    bounds = [np.asarray(bound(jax.random.key(1), k), np.float64) for k in (1, 3, 10, 40, 400)]
    error = lambda v: v.std() / len(v) ** 0.5  # noqa: E731
    assert abs(bounds[0].mean() - (rig.log_px - gap)) < 4 * error(bounds[0])
    for fewer, more in zip(bounds, bounds[1:], strict=False):
        assert (more - fewer).mean() > 4 * error(more - fewer)
    # At large k the bias is half the variance (the delta method), and is small.
    bias = bounds[-1].var() / 2
    assert bias < 0.01
    assert abs(bounds[-1].mean() + bias - rig.log_px) < 4 * error(bounds[-1])


@pytest.mark.parametrize("k", [5])
def test_bound_is_the_log_mean_of_its_weights_and_so_is_its_gradient(rig, k):
    scale = np.diag([0.3, 0.5, 0.4])

    def by_scan(shift):
        draw = rig.log_weight(6, shift, scale)
        return importance_weighted_bound(draw, jax.random.key(0), k)

    def weights(shift):
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(np.arange(k))
        return jax.vmap(rig.log_weight(6, shift, scale))(keys)

    @jax.jit
    def values_and_slopes(shift):
        ours = by_scan(shift), jax.jacrev(by_scan)(shift)
        return ours, (weights(shift), jax.jacfwd(weights)(shift))

    found, naive = values_and_slopes(jnp.array([0.1, -0.2, 0.3]))
    log_w, each = (np.asarray(x, np.float64) for x in naive)
    expected = np.log(np.exp(log_w - log_w.max(0)).mean(0)) + log_w.max(0)
    np.testing.assert_allclose(found[0], expected, rtol=2e-6)
    # sum_i w~_i grad log w_i (Burda et al. 2016, eq. 14).
    normalized = np.exp(log_w - log_w.max(0)) / np.exp(log_w - log_w.max(0)).sum(0)
    np.testing.assert_allclose(
        found[1], (normalized[..., None] * each).sum(0), rtol=1e-4, atol=1e-4
    )


@functools.partial(jax.jit, static_argnums=1)
def _bound_of_equals(key, k, value):
    return importance_weighted_bound(lambda key: jnp.full(2, value), key, k)


@pytest.mark.parametrize("k", [1, 3, 64])
@pytest.mark.parametrize("value", [-3e4, 0.0, 700.0])
def test_bound_of_equal_weights_is_the_weight(k, value, key):
    bound = _bound_of_equals(key, k, value)
    np.testing.assert_allclose(bound, value, rtol=1e-6, atol=1e-5)


LN3 = np.log(3.0)
BY_HAND = {
    # At logit 0, ln 3 (D = 3/4), -ln 3 (D = 1/4): loss on real, on fake, of the generator.
    "minimax": ([np.log(2), np.log(4 / 3), np.log(4)], [np.log(2), np.log(4), np.log(4 / 3)],
                [-np.log(2), -np.log(4), -np.log(4 / 3)]),
    "nonsaturating": ([np.log(2), np.log(4 / 3), np.log(4)], [np.log(2), np.log(4), np.log(4 / 3)],
                      [np.log(2), np.log(4 / 3), np.log(4)]),
    "least_squares": ([0.5, (LN3 - 1) ** 2 / 2, (LN3 + 1) ** 2 / 2], [0, LN3**2 / 2, LN3**2 / 2],
              [0.5, (LN3 - 1) ** 2 / 2, (LN3 + 1) ** 2 / 2]),
    "hinge": ([1, 0, 1 + LN3], [1, 1 + LN3, 0], [0, -LN3, LN3]),
    "wasserstein": ([0, -LN3, LN3], [0, LN3, -LN3], [0, -LN3, LN3]),
}  # fmt: skip


def test_no_weight_is_lost_among_many_small_ones(key):
    """Log weights near -10,000 are a thousandth apart in float32: a running log-sum-exp of them
    stands still, and was three nats too low after 50,000."""
    offset = np.float32([-1e4, -2.5e3, 0.0])
    draw = lambda key: offset + jax.random.normal(key, (3,))  # noqa: E731
    one = jax.jit(jax.vmap(lambda i, key: draw(jax.random.fold_in(key, i)), (0, None)))
    each = np.asarray(one(np.arange(50_000), key), np.float64)
    for k in (500, 50_000):
        bound = jax.jit(lambda key, k=k: importance_weighted_bound(draw, key, k))(key)
        expected = scipy.special.logsumexp(each[:k], 0) - np.log(k)
        np.testing.assert_allclose(bound, expected, rtol=2e-7, atol=1e-4)


def test_bound_of_weights_that_are_zero_or_no_number(key):
    """A weight of zero adds nothing, also where it comes first; what is no number stays that."""
    log_w = np.float32([[-np.inf, -1.0, 2.0], [-np.inf] * 3, [1.0, np.nan, 0.0]])

    @jax.jit
    def bound_and_slope(x, key):
        first = jax.random.key_data(jax.random.fold_in(key, 0))

        def draw(key):  # the first one of each, then a weight of zero
            is_first = (jax.random.key_data(key) == first).all()
            return jnp.where(is_first, log_w[:, 0], log_w[:, 1])

        def shifted(x):
            found = importance_weighted_bound(lambda k: draw(k) + x, key, 2)
            return found[0], found

        slope, found = jax.grad(shifted, has_aux=True)(x)
        return found, slope

    found, slope = bound_and_slope(np.zeros(3, np.float32), key)
    np.testing.assert_allclose(found, [-1 - np.log(2), -np.inf, np.nan], rtol=1e-6)
    assert np.asarray(slope)[0] == 1.0


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_adversarial_losses_by_hand(name):
    logits = np.float32([0.0, LN3, -LN3])
    players = ADVERSARIAL_LOSSES[name][:3]  # the encoder's: tests/models/adversarial/test_bigan.py
    for function, expected in zip(players, BY_HAND[name], strict=True):
        np.testing.assert_allclose(jax.jit(function)(logits), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_adversarial_losses_are_finite_at_huge_logits(name):
    logits = np.float32([-1e4, -200.0, 200.0, 1e4])

    @jax.jit
    def values_and_slopes(logits):
        return [
            (function(logits), jax.vmap(jax.grad(function))(logits))
            for function in ADVERSARIAL_LOSSES[name]
        ]

    for found in jax.tree.leaves(values_and_slopes(logits)):
        assert found.shape == (4,) and np.isfinite(found).all()


def test_generator_gradients_of_minimax_and_nonsaturating():
    logits = np.linspace(-8, 8, 33).astype(np.float32)
    d = scipy.special.expit(np.float64(logits))

    def slope(name):
        return jax.jit(jax.vmap(jax.grad(ADVERSARIAL_LOSSES[name].generator)))(logits)

    np.testing.assert_allclose(slope("minimax"), -d, rtol=1e-5)
    np.testing.assert_allclose(slope("nonsaturating"), -(1 - d), rtol=1e-4)


@pytest.mark.parametrize("name, optimum", [
    ("minimax", lambda p, q: np.log(p / q)),
    ("nonsaturating", lambda p, q: np.log(p / q)),
    ("least_squares", lambda p, q: p / (p + q)),
    ("hinge", lambda p, q: np.sign(p - q)),
])  # fmt: skip
def test_optimal_discriminator_and_its_value(name, optimum):
    grid = np.linspace(-9, 11, 4001)
    p, q = scipy.stats.norm(-1, 1).pdf(grid), scipy.stats.norm(1, 1.5).pdf(grid)
    loss = ADVERSARIAL_LOSSES[name]
    both = jax.jit(lambda logits: (loss.real(logits), loss.fake(logits)))

    def pointwise(logits):
        real, fake = map(np.asarray, both(np.float32(logits)))
        return p * real + q * fake

    best = optimum(p, q)
    for shift in (-0.3, -0.01, 0.01, 0.3):
        assert (pointwise(best) <= pointwise(best + shift) + 1e-7).all()
    value = np.trapezoid(pointwise(best), grid)
    m = (p + q) / 2
    jsd = np.trapezoid(p * np.log(p / m) + q * np.log(q / m), grid) / 2
    assert abs(jsd - 0.253193) < 1e-6
    expected = {
        "least_squares": np.trapezoid(0.5 * p * q / (p + q), grid),
        "hinge": 2 * np.trapezoid(np.minimum(p, q), grid),
    }.get(name, np.log(4) - 2 * jsd)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_r1_of_a_linear_critic():
    # |grad w.x|^2 = |w|^2 for each example, wherever it is.
    w = np.float32([[3.0, 4.0]])
    x = np.float32([[0.0, 0.0], [1.0, -2.0], [7.0, 7.0]])
    penalty = jax.jit(lambda x: gradient_penalty_r1(lambda x: (x * w).sum(-1), x))(x)
    np.testing.assert_array_equal(penalty, [25.0, 25.0, 25.0])


def test_r1_of_a_quadratic_critic_and_its_gradient():
    # D = x'Ax/2 with A = s [[2, 1], [1, 3]]: |grad D|^2 = |A x|^2, a function of s^2.
    a = np.float32([[2.0, 1.0], [1.0, 3.0]])
    x = np.float32([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [-1.0, 1.0]])

    def penalty(s):
        critic = lambda x: 0.5 * jnp.einsum("bi,ij,bj->b", x, s * a, x)  # noqa: E731
        return gradient_penalty_r1(critic, x)

    value, slope = jax.jit(lambda s: (penalty(s), jax.jacrev(penalty)(s)))(2.0)
    np.testing.assert_allclose(value, 4 * np.array([5.0, 40.0, 0.0, 5.0]), rtol=1e-6)
    np.testing.assert_allclose(slope, 4 * np.array([5.0, 40.0, 0.0, 5.0]), rtol=1e-6)


def test_r1_of_a_pair_adds_the_squares():
    # D = 3 a.1 + b'b/2: |grad_a|^2 = 9 a numbers, |grad_b|^2 = |b|^2.
    a, b = np.ones((2, 4), np.float32), np.float32([[1.0, 2.0], [0.0, 3.0]])
    critic = lambda pair: 3 * pair[0].sum(-1) + 0.5 * (pair[1] ** 2).sum(-1)  # noqa: E731
    found = jax.jit(lambda pair: gradient_penalty_r1(critic, pair))((a, b))
    np.testing.assert_allclose(found, [36.0 + 5.0, 36.0 + 9.0])


def test_slope_penalty_of_a_linear_critic():
    """A slope of (3, 4) everywhere: (5 - 1)^2 = 16; and that of a pair of arrays adds up."""
    x, w = np.arange(6, dtype=np.float32).reshape(3, 2), np.float32([[3.0, 4.0]])
    share = np.float32([0.0, 0.3, 1.0])

    @jax.jit
    def penalties(x, share):
        pair = lambda xz: 2 * xz[0].sum(-1) + xz[1].sum(-1)  # noqa: E731
        return (
            gradient_penalty(lambda x: (x * w).sum(-1), x, -x, share),
            gradient_penalty(pair, (x, x), (-x, -x), share),
        )

    one, two = penalties(x, share)
    np.testing.assert_allclose(one, 16.0, rtol=1e-6)
    np.testing.assert_allclose(two, (10**0.5 - 1) ** 2, rtol=1e-6)


def test_slope_penalty_is_taken_between_the_two():
    """D = |x|^2 has the slope 2 |x| at the share of the way from fake to real."""
    real, fake = np.float32([[1.0, 2.0], [0.5, 0.0]]), np.float32([[3.0, 0.0], [0.5, 0.0]])
    of = jax.jit(lambda *given: gradient_penalty(lambda x: (x**2).sum(-1), *given))
    found = of(real, fake, np.float32([0.25, 0.9]))
    at = 0.25 * np.array([1, 2]) + 0.75 * np.array([3, 0])
    expected = [(2 * np.linalg.norm(at) - 1) ** 2, 0.0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_slope_penalty_of_a_flat_critic_is_finite():
    slope = jax.jit(jax.grad(
        lambda a: gradient_penalty(
            lambda x: a * x.sum(-1), jnp.ones((2, 3)), jnp.zeros((2, 3)), jnp.full(2, 0.5)
        ).sum()
    ))  # fmt: skip
    assert np.isfinite(slope(0.0)) and slope(2.0) > 0
    # By finite differences, away from zero.
    value = lambda a: 2 * (a * 3**0.5 - 1) ** 2  # noqa: E731
    np.testing.assert_allclose(slope(2.0), (value(2.001) - value(1.999)) / 0.002, rtol=1e-4)


def test_wasserstein_is_the_difference_of_means():
    loss, logits = ADVERSARIAL_LOSSES["wasserstein"], np.float32([-3.0, 0.5])
    np.testing.assert_array_equal(loss.real(logits), [3.0, -0.5])
    np.testing.assert_array_equal(loss.fake(logits), logits)
    np.testing.assert_array_equal(loss.generator(logits), [3.0, -0.5])


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothing_moves_the_target_of_real_examples_alone(name):
    """The loss on real examples is least where D is the target."""
    by, logits = 0.2, np.linspace(-4, 4, 801).astype(np.float32)
    loss, plain = smoothed(name, by), ADVERSARIAL_LOSSES[name]
    players = lambda of: [f(logits) for f in (of.real, of.fake, of.generator)]  # noqa: E731
    ours, theirs = jax.tree.map(np.asarray, jax.jit(lambda: (players(loss), players(plain)))())
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    best = logits[np.argmin(ours[0])]
    target = best if name == "least_squares" else scipy.special.expit(best)
    assert abs(target - 0.8) < 0.01
    assert smoothed(name, 0.0) is plain
    if name != "least_squares":
        d = scipy.special.expit(np.float64(logits))
        expected = -(0.8 * np.log(d) + 0.2 * np.log1p(-d))
        np.testing.assert_allclose(ours[0], expected, rtol=1e-4)
