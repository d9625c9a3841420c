"""RealNVP: its layers can be undone, and its density is one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tiny import some

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.evaluation.likelihood import bounded
from jaxgen.losses.bounds import importance_weighted_bound
from jaxgen.models.latent.realnvp import RealNVP
from jaxgen.nn.flow import ActNorm, squeeze, unsqueeze
from jaxgen.spec import DataSpec

POINTS = DataSpec(1, 1, 2, 0, ranges=((-1.0, 1.0),) * 2)
SIZES = {"couplings": 2, "width": 6, "depth": 1}
MODELS = {
    "points": RealNVP(POINTS, scales=1, couplings=4, width=6, depth=1),
    "levels": RealNVP(DataSpec(2, 3, 1, 5, 3), architecture="mlp", scales=1, **SIZES),
    "conv": RealNVP(DataSpec(4, 8, 1, 7), scales=3, **SIZES),
    "conv, colour": RealNVP(DataSpec(4, 2, 3, 7, 2), scales=2, **SIZES),
}


@pytest.fixture(scope="module")
def made(random_state):
    """name -> (model, variables with random numbers in every layer, real y, label)."""

    def made(name):
        model, rng = MODELS[name], np.random.default_rng(0)
        quiet = lambda p: np.float32(0.4) * p  # noqa: E731
        variables = jax.tree.map(quiet, jax.device_get(random_state(model).ema))
        y = rng.normal(size=(5, *model.spec.shape)).astype(np.float32)
        classes = model.spec.num_classes
        label = np.arange(5) % classes if classes else None
        return model, variables, y, label

    return made


@pytest.mark.parametrize("name", some(MODELS, ["points", "levels"]))
def test_what_is_noise_is_x_again(made, name):
    model, variables, y, label = made(name)

    @jax.jit
    def there_and_back(y):
        z, _ = model.network.apply(variables, y, label)
        return z, model.network.apply(variables, z, label, model.shapes, method="invert")

    z, back = there_and_back(y)
    assert z.shape == (5, sum(model.groups)) and sum(model.groups) == model.spec.dims
    assert np.abs(np.asarray(z).reshape(y.shape) - y).max() > 0.3
    np.testing.assert_allclose(back, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", some(MODELS, ["points", "levels"]))
def test_log_determinant_is_that_of_the_jacobian(made, name):
    model, variables, y, label = made(name)

    def one(y, label):
        z, log_det = model.network.apply(variables, y[None], None if label is None else label[None])
        return z[0], log_det[0]

    axes = (0, None if label is None else 0)
    jacobian, log_det = jax.jit(jax.vmap(jax.jacobian(one, has_aux=True), axes))(y, label)
    matrices = np.asarray(jacobian, np.float64).reshape(5, model.spec.dims, model.spec.dims)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrices)[1], rtol=1e-3, atol=1e-3)
    assert np.abs(np.asarray(log_det)).min() > 0.05


def test_the_density_of_points_is_one(made):
    model, variables, _, _ = made("points")
    side = np.linspace(-60, 60, 1201)
    x = np.stack(np.meshgrid(side, side), -1).reshape(-1, 1, 1, 2)
    batch = {"x": x.astype(np.float32), "index": np.zeros(len(x), np.int32)}
    log_p = jax.jit(model.log_prob)(jax.random.key(0), variables, batch)
    assert abs(np.exp(np.asarray(log_p, np.float64)).sum() * (side[1] - side[0]) ** 2 - 1) < 1e-3


def test_the_mass_of_levels_is_one_and_bounded(random_state):
    """P(x) is the density's integral over the bin: it sums to one over all x, is what samples
    follow, is at least the mean of the bound, and is what L_k rises to."""
    model = RealNVP(
        DataSpec(1, 2, 1, 3), architecture="mlp", scales=1, couplings=3, width=6, depth=1
    )
    state = jax.device_get(random_state(model))
    state = state.replace(ema=jax.tree.map(lambda p: np.float32(0.5) * p, state.ema))
    every = np.array(list(itertools.product(range(3), repeat=2)), np.uint8).reshape(-1, 1, 2, 1)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    at = np.stack(np.meshgrid((nodes + 1) / 2, (nodes + 1) / 2), -1).reshape(-1, 1, 2, 1)
    weights = np.outer(weights, weights).ravel() / 4
    x, noise = np.repeat(every, len(at), 0), np.tile(at, (len(every), 1, 1, 1))

    @jax.jit
    def log_density(x, noise):
        y, by_logits = model.to_real(x, noise)
        z, log_det = model.network.apply(state.ema, y)
        return -0.5 * (z**2 + jnp.log(2 * jnp.pi)).sum(-1) + log_det + by_logits

    log_p = np.asarray(log_density(x, noise.astype(np.float32)), np.float64)
    exact = special.logsumexp(log_p.reshape(len(every), -1), b=weights, axis=1)
    # What lies beyond the first and the last bin is clipped into them when it is drawn.
    beyond = 1 - np.exp(exact).sum()
    assert -1e-4 < beyond < 0.3
    batch = {"x": jax.device_put(np.repeat(every, 3000, 0)), "index": np.arange(len(every) * 3000)}

    @jax.jit
    def bounds(key):
        a, b = jax.random.split(key)
        log_weight = lambda key: model.log_weight(key, state, batch)  # noqa: E731
        one = -model.eval_step(a, state, batch)["nll"]
        return one, importance_weighted_bound(log_weight, b, 50)

    one, many = (np.asarray(v, np.float64).reshape(9, -1) for v in bounds(jax.random.key(1)))
    error = one.std(1) / one.shape[1] ** 0.5
    assert (one.mean(1) < exact + 4.5 * error).all() and (one.mean(1) < exact - 0.01).any()
    bias = many.var(1) / 2
    slack = 4.5 * many.std(1) / many.shape[1] ** 0.5 + 0.2 * bias + 1e-4
    assert (np.abs(many.mean(1) + bias - exact) < slack).all()
    num = 20_000
    drawn = np.asarray(jax.jit(lambda: model.sample(jax.random.key(2), state, num))())
    inner = drawn.reshape(num, 2)
    # The middle level of both takes nothing from beyond.
    p = np.exp(exact[4])
    assert abs((inner == 1).all(1).mean() - p) < 5 * np.sqrt(p * (1 - p) / num)


def test_levels_are_the_middles_of_their_bins(random_state):
    """An encoded x decodes to itself, and is drawn again."""
    model = MODELS["levels"]
    state = jax.device_get(random_state(model))
    state = state.replace(ema=jax.tree.map(lambda p: np.float32(0.4) * p, state.ema))
    x = np.random.default_rng(0).integers(5, size=(6, 2, 3, 1)).astype(np.uint8)
    batch = {"x": x, "index": np.arange(6), "label": np.arange(6) % 3}

    @jax.jit
    def decoded(state):
        z = model.encode(jax.random.key(0), state, batch)
        y = model.decode(jax.random.key(0), state, z, batch["label"])
        return y, model.spec.from_float(y)

    y, again = decoded(state)
    np.testing.assert_allclose(y, x / 2 - 1, atol=2e-3)
    np.testing.assert_array_equal(again, x)


def test_the_first_examples_are_normalized():
    x = np.random.default_rng(0).normal(3, 5, (50, 3, 4, 2)).astype(np.float32)
    layer = ActNorm()

    @jax.jit
    def there_and_back(x):
        y, log_det = layer.apply(variables := layer.init(jax.random.key(0), x), x)
        return y, log_det, layer.apply(variables, y, inverse=True)[0]

    y, log_det, back = jax.device_get(there_and_back(x))
    np.testing.assert_allclose(y.mean((0, 1, 2)), np.zeros(2), atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), np.ones(2), rtol=1e-5)
    np.testing.assert_allclose(log_det, -12 * np.log(x.std((0, 1, 2))).sum(), rtol=1e-5)
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-4)
    flat = jax.jit(layer.init)(jax.random.key(0), np.ones((4, 1, 1, 1), np.float32))["params"]
    assert np.isfinite(flat["log_scale"]).all()


def test_squeezing_keeps_blocks_together():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    small = np.asarray(squeeze(jax.device_put(x)))
    np.testing.assert_array_equal(
        small[1, 1, 2], [*x[1, 2, 4], *x[1, 2, 5], *x[1, 3, 4], *x[1, 3, 5]]
    )
    np.testing.assert_array_equal(unsqueeze(small), x)


def test_convolutions_where_x_halves():
    assert [MODELS[name].convolutional for name in MODELS] == [False, False, True, True]
    assert RealNVP(DataSpec(8, 8)).groups == (32, 32) and RealNVP(DataSpec(7, 7)).groups == (49,)
    # An mlp has as many couplings as the convolutions at all scales.
    assert RealNVP(POINTS, scales=3, couplings=2).network.couplings == 10


def test_exact_on_points_and_a_bound_on_levels():
    assert MODELS["points"].settled and MODELS["points"].kind == "exact"
    assert not bounded(MODELS["points"]) and bounded(MODELS["levels"])


@pytest.mark.slow
def test_it_learns_the_moons():
    """Within 0.05 nats of the true entropy (see RESULTS.md for three seeds)."""
    from jaxgen import Optimizer

    data = load(DataConfig(dataset="moons"))
    model = RealNVP(data.spec, optimizer=Optimizer(learning_rate=2e-3))
    x = jax.device_put(data.splits["train"].x)
    state = model.init(jax.random.key(0), {"x": x[:200], "index": np.arange(200)})

    @jax.jit
    def train(state):
        def step(t, state):
            rows = jax.random.randint(jax.random.fold_in(jax.random.key(1), t), (200,), 0, len(x))
            return model.train_step(
                jax.random.key(2), state, {"x": x[rows], "index": np.arange(200)}, t
            )[0]

        return jax.lax.fori_loop(0, 6000, step, state)

    test = {"x": jax.device_put(data.splits["test"].x), "index": np.arange(10_000)}
    nll = model.eval_step(jax.random.key(0), train(state), test)["nll"].mean()
    from jaxgen.media.points import in_units

    truth = -data.density(in_units(test["x"], data.spec)).mean() - data.spec.log_volume
    assert -0.01 < float(nll) - truth < 0.05


@pytest.mark.parametrize("spec, fields, match", [
    (DataSpec(1, 1, 1, 0, ranges=((0.0, 1.0),)), {}, "x is one number"),
    (DataSpec(6, 6, 1, 2), {"architecture": "conv", "scales": 3}, "6x6 does not halve evenly"),
    (POINTS, {"couplings": 0}, "must be at least 1"),
])  # fmt: skip
def test_refuses_impossible_fields(spec, fields, match):
    with pytest.raises(UserError, match=match):
        RealNVP(spec, **fields)
