"""Importance-weighted bounds against float64 sums over all draws, and against closed forms."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import Linear
from scipy.special import logsumexp

from jaxgen.data.splits import Split
from jaxgen.distributions.normal import normal_like
from jaxgen.evaluation import bounds
from jaxgen.evaluation.bounds import Weights, importance_weighted, ladder, merged
from jaxgen.parallel.mesh import make_mesh
from jaxgen.spec import DataSpec

SPEC = DataSpec(2, 3, levels=0)
NUM = 7


@pytest.fixture(autouse=True)
def keys_name_streams():
    """A key is used on purpose once per block: draw i folds i in."""
    with jax.debug_key_reuse(False):
        yield


@pytest.fixture(scope="module")
def split():
    x = np.random.default_rng(0).normal(size=(NUM, *SPEC.shape)).astype(np.float32)
    return Split.of(x)


def weighted(log_weight):
    """The least that has importance weights."""
    return SimpleNamespace(spec=SPEC, log_weight=log_weight)


class Noisy(SimpleNamespace):
    """Log weights near -10,000, of other values for each draw and example."""

    def log_weight(self, key, state, batch):
        return -10_000.0 + self.spread * normal_like(key, batch["index"], ())

    __hash__ = object.__hash__


def every_weight(model, key, num, draws):
    """All log weights one by one, float64 [n draws]."""
    batch = {"index": np.arange(num)}
    one = lambda i: model.log_weight(jax.random.fold_in(key, i), None, batch)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one))(np.arange(draws)), np.float64).T


def exact_of(model, state, x):
    """log p(x), float64 [n]."""
    batch = {"x": x, "label": np.zeros(len(x), int)}
    return model.log_prob(jax.device_get(state.ema["params"]), batch)


@pytest.mark.parametrize(("spread", "devices"), [
    (0.0, 1), (1.0, 1), pytest.param(3.0, 4, marks=pytest.mark.slow)
])  # fmt: skip
def test_no_term_is_lost_among_fifty_thousand(split, key, spread, devices):
    model, ks = Noisy(spec=SPEC, spread=spread), (1, 5, 50, 777, 50_000)
    bound = importance_weighted(model, make_mesh(devices), key, None, split, 4, ks)
    all_of_them = every_weight(model, key, NUM, 50_000)
    for i, k in enumerate(ks):
        some = all_of_them[:, :k]
        expected = logsumexp(some, axis=1) - np.log(k)
        np.testing.assert_allclose(bound.values[:, i], expected, rtol=0, atol=1e-5)
        squares = logsumexp(2 * some, axis=1)
        effective = np.exp(2 * logsumexp(some, axis=1) - squares)
        np.testing.assert_allclose(bound.effective[:, i], effective, rtol=1e-4)

    def add(total, log_weight):
        return jnp.logaddexp(total, log_weight), None

    # The running sum in float32 stands still: what this test is about.
    start = np.full(NUM, -np.inf, np.float32)
    whole = jax.jit(lambda xs: jax.lax.scan(add, start, xs)[0])(np.float32(all_of_them.T))
    naive = np.asarray(whole) - np.log(50_000)
    assert np.abs(naive - expected).max() > 0.1


def test_a_true_posterior_needs_one_draw(split, key):
    model = Linear(SPEC, latents=3)
    state = jax.jit(model.init)(key, SPEC.example(1))
    bound = importance_weighted(model, make_mesh(4), key, state, split, 4, (1, 5, 200))
    exact = exact_of(model, state, split.x)
    for i, k in enumerate(bound.ks):
        np.testing.assert_allclose(bound.values[:, i], exact, rtol=1e-4)
        np.testing.assert_allclose(bound.effective[:, i], k, rtol=1e-4)


def test_a_loose_bound_rises_to_the_likelihood(key):
    model = Linear(SPEC, latents=3, slack=1.5)
    state = jax.jit(model.init)(key, SPEC.example(1))
    x = np.random.default_rng(1).normal(size=(400, *SPEC.shape)).astype(np.float32)
    ks = ladder(2000)
    bound = importance_weighted(model, make_mesh(1), key, state, Split.of(x), 400, ks)
    exact = exact_of(model, state, x)
    gap = exact.mean() - bound.values.mean(0)
    assert (np.diff(gap) < 0).all() and gap[0] > 0.5
    assert abs(gap[-1]) < 4 * np.std(exact - bound.values[:, -1]) / 20 + 1e-4 < 0.01
    # KL(q || p) of the posterior, in closed form, is the gap of one draw.
    kl = 3 * (0.5 * (1.5**2 - 1) - np.log(1.5))
    one = exact - bound.values[:, 0]
    assert abs(one.mean() - kl) < 4 * one.std() / 20
    assert (bound.effective <= np.array(ks) * (1 + 1e-5)).all()


def test_devices_and_batches_change_nothing_but_rounding(split, key):
    model = Linear(SPEC, slack=1.5)
    state = jax.jit(model.init)(key, SPEC.example(1))
    found = [
        importance_weighted(model, make_mesh(n), key, state, split, size, (1, 130))
        for n, size in ((1, 7), (1, 2), (4, 4), (2, 100))
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.values, found[0].values, rtol=1e-5)
        np.testing.assert_allclose(other.effective, found[0].effective, rtol=1e-3)


def test_the_same_program_adds_any_number_of_draws(split, key):
    model, mesh = Noisy(spec=SPEC, spread=1.0), make_mesh(1)
    for ks in ((1,), (3, 4), (1, 5, 50, 250)):
        importance_weighted(model, mesh, key, None, split, NUM, ks)
    assert bounds._summed(model, mesh)._cache_size() == 1


def test_weights_of_zero_and_no_number(split, key):
    def log_weight(key, state, batch):
        odd = jnp.where(jax.random.bernoulli(key), -jnp.inf, -3.0)  # of all examples alike
        rows = jnp.stack([odd, -jnp.inf, jnp.nan, -3.0])
        return rows[batch["index"] % 4] + 0.0 * batch["index"]

    model = Noisy(spec=SPEC)
    model.log_weight = log_weight
    bound = importance_weighted(model, make_mesh(1), key, None, split, NUM, (1, 300))
    all_of_them = every_weight(model, key, NUM, 300)
    some = np.isfinite(all_of_them[0])
    assert 100 < some.sum() < 200
    last = bound.values[:, 1]
    np.testing.assert_allclose(last[0], -3.0 + np.log(some.mean()), rtol=1e-6)
    assert last[1] == -np.inf and np.isnan(last[2])
    np.testing.assert_allclose(last[3], -3.0, rtol=1e-6)
    np.testing.assert_allclose(bound.effective[[0, 3], 1], [some.sum(), 300], rtol=1e-5)


def test_sums_of_two_parts_are_those_of_the_whole():
    a = Weights(np.array([0.0, -np.inf]), np.array([2.0, 0.0]), np.array([2.0, 0.0]))
    b = Weights(np.array([np.log(4.0), -np.inf]), np.array([1.5, 0.0]), np.array([1.25, 0.0]))
    whole = merged(a, b)  # weights 1, 1 and 4, 2
    np.testing.assert_allclose(whole.total * np.exp(whole.log_largest), [8, 0])
    np.testing.assert_allclose(whole.squares * np.exp(2 * whole.log_largest), [22, 0])


def test_the_ladder_ends_at_the_draws_asked_for():
    assert ladder(1) == (1,) and ladder(3) == (1, 3) and ladder(5) == (1, 5)
    assert ladder(500) == (1, 5, 50, 500) and ladder(5001) == (1, 5, 50, 500, 5000, 5001)
