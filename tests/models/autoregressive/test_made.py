"""MADE: its masks, its density by a loop over sub-pixels, and ensembles over orders and masks."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxgen.causal import orders
from jaxgen.causal.masked import degrees, layer_masks
from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.autoregressive.made import MADE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec


def _model(spec, **fields):
    return MADE(spec, **{"hidden": (9,), "dropout": 0.0, **fields})


@pytest.fixture(scope="module")
def make_state():
    """model -> parameters of size one, of which the average is a copy."""

    def make(model):
        rng = np.random.default_rng(1)
        state = jax.eval_shape(model.init, jax.random.key(0), model.spec.example(1))
        fill = lambda s: jax.device_put(rng.normal(size=s.shape).astype(s.dtype))  # noqa: E731
        state = jax.tree.map(fill, state)
        return state.replace(ema=state.net.variables)

    return make


def _batch(images, label=None):
    batch = {"x": np.asarray(images, np.uint8), "index": np.arange(len(images))}
    return batch if label is None else {**batch, "label": np.asarray(label)}


def _every_image(spec):
    levels = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(levels), np.uint8).reshape(-1, *spec.shape)


# Masks


@pytest.mark.parametrize("hidden", [(12,), (30,), (12, 12), (25, 40), (13, 50, 31)], ids=str)
def test_paths_through_the_masks_go_from_each_input_to_exactly_what_comes_later(hidden):
    paths = np.eye(12, dtype=int)
    for mask in layer_masks(12, hidden):
        paths = paths @ mask
    np.testing.assert_array_equal(paths > 0, np.triu(np.ones((12, 12), bool), 1))


@pytest.mark.parametrize("hidden", [(5,), (7, 30), (30, 1)], ids=str)
def test_narrow_layers_see_less_but_never_more(hidden):
    paths = np.eye(12, dtype=int)
    for mask in layer_masks(12, hidden):
        paths = paths @ mask
    assert not np.tril(paths).any()
    # The layer of fewest units tells apart as many pasts as it has degrees.
    assert len(np.unique(paths > 0, axis=1).T) == len(np.unique(degrees(min(hidden), 12)))


@pytest.mark.parametrize("hidden", [(9,), (9, 14)], ids=str)
def test_jacobian_is_strictly_lower_triangular_in_each_component_s_order(hidden, make_state):
    """With nothing negative, all units are alive."""
    spec = DataSpec(2, 4, 1, 2)
    model = _model(spec, hidden=hidden, random_orders=2, masks=2)
    state = make_state(model)

    @jax.jit
    def jacobians(component):
        params = model.of_component(jax.tree.map(jnp.abs, state.ema), component)
        out = lambda x: model.network.apply(params, x[None])[0, ..., 0]  # noqa: E731
        return jax.jacrev(out)(jnp.ones(spec.shape)).reshape(8, 8)

    found = [np.asarray(jacobians(jnp.int32(k))) for k in range(4)]
    for jacobian in found:
        np.testing.assert_array_equal(jacobian > 0, np.tril(np.ones((8, 8), bool), -1))
    assert len({float(jacobian.sum()) for jacobian in found}) == 4


# Density


def _by_loop(params, hidden, spec, image, label):
    """log p of one image, float64: each sub-pixel by a net of its own, of the units that may feed
    it alone (unit j of n of a layer may see d's past up to its degree, j * dims // n)."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    dims, total = spec.dims, 0.0
    levels = image.reshape(-1)
    v, inputs = 2 * levels / (spec.levels - 1) - 1, params["inputs"].reshape(dims, -1)
    for d in range(dims):
        below: list = []
        for i, n in enumerate(hidden):
            units = []
            for j in range(n):
                degree = j * dims // n
                if degree > d:
                    break
                a = params[f"bias_{i}"][j]
                if label is not None:
                    a += params[f"shift_{i}"]["vector"][label, j]
                if i == 0:
                    a += v[:degree] @ inputs[:degree, j]
                else:
                    seen = [k for k in range(hidden[i - 1]) if k * dims // hidden[i - 1] <= degree]
                    a += sum(below[k] * params[f"kernel_{i}"][k, j] for k in seen)
                units.append(max(a, 0.0))
            below = units
        outputs = params["outputs"].reshape(dims, hidden[-1], -1)[d]
        logits = np.array(below) @ outputs[: len(below)] + params["biases"].reshape(dims, -1)[d]
        logits = np.append(0.0, logits) if spec.levels == 2 else logits
        total += logits[levels[d]] - special.logsumexp(logits)
    return total


@pytest.mark.parametrize("spec, hidden", [
    (DataSpec(3, 4, 1, 2), (7,)),
    (DataSpec(2, 2, 3, 4, 3), (20, 13)),
], ids=["binary", "rgb, classes"])  # fmt: skip
def test_density_and_gradient_are_those_of_a_loop(spec, hidden, make_state):
    model = _model(spec, hidden=hidden, optimizer=Optimizer("sgd", 1.0, b1=0.0))
    state, rng = make_state(model), np.random.default_rng(0)
    images = rng.integers(spec.levels, size=(3, *spec.shape))
    labels = np.array([2, 0, 1]) if spec.num_classes else None

    def loop(params):
        pairs = zip(images, [None] * 3 if labels is None else labels, strict=True)
        return np.array([_by_loop(params, hidden, spec, x, y) for x, y in pairs])

    batch = _batch(images, labels)
    log_p = np.asarray(jax.jit(model.log_prob)(state.ema, batch), np.float64)
    np.testing.assert_allclose(log_p.sum((1, 2, 3)), loop(state.ema["params"]), rtol=1e-5)
    # The step goes up the loop's mean, by its slope along random directions.
    new, _ = jax.jit(model.train_step)(jax.random.key(0), state, batch, 0)
    wide = lambda tree: jax.tree.map(lambda p: np.asarray(p, np.float64), tree)  # noqa: E731
    old = wide(state.net.params)
    grad = wide(jax.tree.map(np.subtract, *jax.device_get((new.net.params, state.net.params))))
    for _ in range(3):
        way = jax.tree.map(lambda p: rng.normal(size=p.shape), old)
        at = lambda t: loop(jax.tree.map(lambda p, w: p + t * w, old, way)).mean()  # noqa: B023, E731
        dots = jax.tree.map(lambda g, w: (g * w).sum(), grad, way)
        np.testing.assert_allclose(
            sum(jax.tree.leaves(dots)), (at(1e-6) - at(-1e-6)) / 2e-6, rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("fields", [
    pytest.param({"random_orders": 3}, marks=pytest.mark.slow),
    {"random_orders": 2, "masks": 2, "hidden": (9, 14)},
], ids=["orders", "orders and masks"])  # fmt: skip
def test_an_ensemble_is_a_proper_mixture_and_sampled_as_one(fields, make_state):
    spec = DataSpec(2, 3, 1, 3)
    model = _model(spec, **fields)
    state, images = make_state(model), _every_image(spec)
    density = jax.jit(model.log_prob)
    each = [
        np.asarray(density(state.ema, _batch(images), component=jnp.int32(k)), np.float64)
        for k in range(model.num_components)
    ]
    each = np.array(each).sum((2, 3, 4))
    np.testing.assert_allclose(np.exp(each).sum(1), 1, atol=1e-5)
    for a, b in itertools.combinations(each, 2):
        assert np.abs(a - b).mean() > 0.1
    nll = jax.jit(model.eval_step)(jax.random.key(0), state, _batch(images))["nll"]
    log_p = -np.asarray(nll, np.float64)
    np.testing.assert_allclose(log_p, special.logsumexp(each, 0) - np.log(len(each)), atol=1e-4)
    # Samples: Pearson's statistic over the likely images and the rest.
    num, p = 6000, np.exp(log_p)
    drawn = np.asarray(jax.jit(lambda: model.sample(jax.random.key(3), state, num))())
    place = drawn.reshape(num, -1).astype(int) @ 3 ** np.arange(6)[::-1]
    likely = num * p > 5
    pool = lambda x: np.append(x[likely], x[~likely].sum())  # noqa: E731
    expected, counts = num * pool(p), pool(np.bincount(place, None, len(p)))
    statistic, free = ((counts - expected) ** 2 / expected).sum(), likely.sum()
    assert abs(statistic - free) < 4 * (2 * free) ** 0.5


def test_orders_lay_the_pixels_and_masks_move_the_units(make_state):
    spec = DataSpec(2, 3, 1, 3)
    model = _model(spec, random_orders=2, masks=2, hidden=(9, 14))
    state = make_state(model)
    images = np.random.default_rng(0).integers(3, size=(5, *spec.shape))
    order = orders.permutation(6, 0, 1)
    units = [orders.permutation(n, 0, 1, i + 1) for i, n in enumerate((9, 14))]
    p = dict(jax.device_get(state.ema["params"]))
    for name in ("inputs", "outputs", "biases"):
        p[name] = p[name][order]
    p["inputs"], p["bias_0"] = p["inputs"][..., units[0]], p["bias_0"][units[0]]
    p["kernel_1"], p["bias_1"] = p["kernel_1"][units[0]][:, units[1]], p["bias_1"][units[1]]
    p["outputs"] = p["outputs"][:, :, units[1]]
    laid = images.reshape(5, 6)[:, order].reshape(images.shape)
    plain = jax.jit(_model(spec, hidden=(9, 14)).log_prob)({"params": p}, _batch(laid))
    found = jax.jit(model.log_prob)(state.ema, _batch(images), component=jnp.int32(3))
    found, plain = (np.asarray(a).reshape(5, 6) for a in (found, plain))
    np.testing.assert_allclose(found[:, order], plain, rtol=1e-5)


@pytest.mark.parametrize("hidden", [(5, 31, 8)], ids=str)
def test_cached_sampler_is_exact_for_layers_of_any_widths(hidden, make_state):
    """Degrees that several units share, and degrees that no unit has; masks and classes too."""
    spec = DataSpec(3, 3, 1, 4, 2)
    model = _model(spec, hidden=hidden, masks=2)
    state = make_state(model)

    hot = Request(temperature=4.0)

    def sample(sampler):
        chosen = dataclasses.replace(model, sampler=sampler)
        return np.asarray(jax.jit(lambda: chosen.sample(jax.random.key(0), state, 8, hot))())

    cached = sample("cached")
    assert len(np.unique(cached, axis=0)) == 8
    np.testing.assert_array_equal(cached, sample("naive"))


@pytest.mark.parametrize("fields", [{"hidden": ()}, {"hidden": (4, 0)}, {"masks": 0}], ids=str)
def test_refuses_impossible_fields(fields):
    with pytest.raises(UserError, match="`hidden` needs .* `masks` at least 1"):
        _model(DataSpec(3, 3), **fields)
