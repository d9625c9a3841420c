"""NADE: the textbook's loop, its gradient, and ensembles over random orders."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxgen.causal import orders
from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.autoregressive.nade import NADE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec


def _model(spec, **fields):
    return NADE(spec, **{"features": 5, "dropout": 0.0, **fields})


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


def _nll(model, state, images):
    eval_step = jax.jit(model.eval_step)
    found = eval_step(jax.random.key(0), state, _batch(images))["nll"]
    return np.asarray(found, np.float64)


def _every_image(spec):
    levels = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(levels), np.uint8).reshape(-1, *spec.shape)


def _textbook(params, spec, image, label, order):
    """log p of one image, and its gradient, by the loop of Larochelle & Murray's algorithm 1.

    a = c + U_y; for d in the order: h = sigmoid(a), log p += log softmax(V_d' h + b_d)[v_d],
    a = a + W_d v_d; and backwards, the sums of da. A Bernoulli is a softmax over (0, logit).
    """
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    grads = jax.tree.map(np.zeros_like, params)
    shift = params["shift"]["vector"] if spec.num_classes else None
    a = params["hidden_bias"] + (0 if shift is None else shift[label])
    steps = list(itertools.product(order, range(spec.channels)))
    total, units = 0.0, []
    flat = image.reshape(-1, spec.channels)
    for d in steps:
        h, v = special.expit(a), flat[d]
        logits = h @ params["outputs"][d] + params["biases"][d]
        logits = np.append(0.0, logits) if spec.levels == 2 else logits
        total += logits[v] - special.logsumexp(logits)
        error = (np.arange(spec.levels) == v) - special.softmax(logits)
        units.append((h, error[1:] if spec.levels == 2 else error))
        a = a + params["inputs"][d] * (2 * v / (spec.levels - 1) - 1)
    da = np.zeros_like(a)
    for d, (h, error) in reversed(list(zip(steps, units, strict=True))):
        grads["inputs"][d] += da * (2 * flat[d] / (spec.levels - 1) - 1)
        grads["outputs"][d] += np.outer(h, error)
        grads["biases"][d] += error
        da += params["outputs"][d] @ error * h * (1 - h)
    grads["hidden_bias"] += da
    if shift is not None:
        grads["shift"]["vector"][label] += da
    return total, grads


@pytest.mark.parametrize("spec, fields", [
    (DataSpec(3, 4, 1, 2), {"remat": False}),
    (DataSpec(2, 3, 3, 4, 3), {"random_orders": 1, "order_seed": 4}),
], ids=["binary", "rgb, classes, random order"])  # fmt: skip
def test_density_and_gradient_are_the_textbook_loop(spec, fields, make_state):
    model = _model(spec, optimizer=Optimizer("sgd", 1.0, b1=0.0), **fields)
    state, rng = make_state(model), np.random.default_rng(0)
    images = rng.integers(spec.levels, size=(4, *spec.shape))
    labels = np.array([2, 0, 1, 1]) if spec.num_classes else None
    order = np.arange(spec.height * spec.width)
    if model.random_orders:
        order = orders.permutation(len(order), 4, 0)
        assert (order != np.arange(len(order))).any()
    label = lambda i: None if labels is None else labels[i]  # noqa: E731
    loop = [_textbook(state.ema["params"], spec, x, label(i), order) for i, x in enumerate(images)]
    expected = np.array([total for total, _ in loop])
    batch = _batch(images, labels)
    new, metrics = jax.jit(model.train_step)(jax.random.key(0), state, batch, 0)
    log_p = np.asarray(jax.jit(model.log_prob)(state.ema, batch), np.float64)
    np.testing.assert_allclose(log_p.sum((1, 2, 3)), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["nll"], -expected.mean(), rtol=1e-5)
    grad = jax.tree.map(lambda *each: np.mean(each, 0), *[grads for _, grads in loop])
    moved = jax.tree.map(np.subtract, *jax.device_get((new.net.params, state.net.params)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), moved, grad)


def test_an_ensemble_is_the_mean_of_its_orders(make_state):
    """Of every image there is: it sums to one, and each order is the network on laid images."""
    spec = DataSpec(2, 3, 1, 3)
    model = _model(spec, random_orders=3)
    state, images = make_state(model), _every_image(spec)
    raster = jax.jit(_model(spec).log_prob)
    each, weights = [], jax.device_get(state.ema["params"])
    for k in range(3):
        order = orders.permutation(6, 0, k)
        laid = images.reshape(-1, 6)[:, order].reshape(images.shape)
        pixelwise = ("inputs", "outputs", "biases")
        params = {n: p[order] if n in pixelwise else p for n, p in weights.items()}
        each.append(np.asarray(raster({"params": params}, _batch(laid)), np.float64).sum((1, 2, 3)))
    np.testing.assert_allclose(np.exp(each).sum(1), 1, atol=1e-5)
    assert np.abs(np.diff(each, axis=0)).mean(1).min() > 0.1  # no two are the same density
    log_p = -_nll(model, state, images)
    np.testing.assert_allclose(log_p, special.logsumexp(each, 0) - np.log(3), atol=1e-4)
    assert abs(np.exp(log_p).sum() - 1) < 1e-5
    # And it is what samples are of: Pearson's statistic, with its exact variance.
    num, p = 6000, np.exp(log_p)
    drawn = np.asarray(jax.jit(lambda: model.sample(jax.random.key(3), state, num))())
    counts = np.bincount(drawn.reshape(num, -1).astype(int) @ 3 ** np.arange(6)[::-1], None, len(p))
    statistic, cells = ((counts - num * p) ** 2 / (num * p)).sum(), len(p)
    variance = 2 * (cells - 1) + ((1 / p).sum() - cells**2 - 2 * cells + 2) / num
    assert abs(statistic - (cells - 1)) < 4 * variance**0.5


def test_samples_of_an_ensemble_are_of_their_number_alone(make_state):
    spec = DataSpec(3, 3, 1, 4, 2)
    model = _model(spec, random_orders=2)
    state = make_state(model)

    def sample(sampler, num):
        chosen = dataclasses.replace(model, sampler=sampler)
        key = jax.random.key(0)
        return jax.jit(lambda start: chosen.sample(key, state, num, Request(start=start)))

    whole = np.asarray(sample("naive", 6)(0))
    assert len(np.unique(whole, axis=0)) == 6
    part = sample("cached", 2)
    np.testing.assert_array_equal(np.concatenate([part(i) for i in (0, 2, 4)]), whole)


def test_completions_follow_the_first_order(make_state):
    """What comes later in it binds nothing; what comes before does."""
    spec = DataSpec(3, 4, 1, 5)
    model = _model(spec, random_orders=2)
    state, order = make_state(model), orders.permutation(12, 0, 0)
    image = jax.device_put(np.full((8, *spec.shape), 4, np.uint8))
    complete = jax.jit(lambda known: model.complete(jax.random.key(0), state, image, known))

    def given(pixels):
        known = np.zeros((8, 12), bool)
        known[:, pixels] = True
        return np.asarray(complete(known.reshape(image.shape))).reshape(8, 12)

    free, first, last = given(np.array([], int)), given(order[:6]), given(order[6:])
    np.testing.assert_array_equal(last[:, order[:6]], free[:, order[:6]])
    assert (last[:, order[6:]] == 4).all() and (first[:, order[:6]] == 4).all()
    assert (first[:, order[6:]] != free[:, order[6:]]).any()


def test_a_step_trains_one_order_drawn_by_its_key(make_state):
    model = _model(DataSpec(2, 2, 1, 3), random_orders=3)
    state = make_state(model)
    batch = _batch(np.random.default_rng(0).integers(3, size=(5, 2, 2, 1)))
    log_p = jax.jit(model.log_prob)
    each = [
        -np.asarray(log_p(state.ema, batch, component=jnp.int32(k))).sum((1, 2, 3)).mean()
        for k in range(3)
    ]
    step = jax.jit(model.train_step)
    losses = [float(step(jax.random.key(t), state, batch, t)[1]["nll"]) for t in range(12)]
    which = np.abs(np.subtract.outer(losses, each)).argmin(1)
    np.testing.assert_allclose(losses, np.array(each)[which], rtol=1e-5)
    assert set(which) == {0, 1, 2}


def test_orders_are_permutations_that_never_change():
    order = orders.permutation(10, 7, 1)
    np.testing.assert_array_equal(np.sort(order), np.arange(10))
    assert order.tolist() == [9, 8, 5, 6, 2, 3, 7, 0, 1, 4]
    assert (order != orders.permutation(10, 7, 2)).any()
    assert (order != orders.permutation(10, 8, 1)).any()


@pytest.mark.parametrize("fields, message", [
    ({"features": 0}, "`features` must be positive"),
    ({"random_orders": -1}, "`random_orders` and `order_seed`"),
    ({"random_orders": 2, "order": "columns"}, "give one of them"),
])  # fmt: skip
def test_refuses_impossible_fields(fields, message):
    with pytest.raises(UserError, match=message):
        _model(DataSpec(3, 3), **fields)
