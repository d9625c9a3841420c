"""PixelCNN: causal by its Jacobian, normalized by enumeration, sampled exactly as it scores."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tiny import some

from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec


def _model(height, width, channels=1, levels=2, num_classes=0, **fields):
    spec = DataSpec(height, width, channels, levels, num_classes)
    small = {"features": 6, "blocks": 1, "head": 6, "first_kernel": 3, "dropout": 0.0}
    return PixelCNN(spec, **{**small, **fields})


def _sampler(model, name):
    return dataclasses.replace(model, sampler=name)


@pytest.fixture(scope="module")
def make_state(random_state):
    """model -> random parameters, of which the average is a copy."""

    def make(model):
        state = random_state(model)
        return state.replace(ema=state.net.variables)

    return make


def _batch(images, label=None):
    batch = {"x": np.asarray(images, np.uint8), "index": np.arange(len(images))}
    return batch if label is None else {**batch, "label": np.asarray(label)}


def _nll(model, state, batch):
    eval_step = jax.jit(model.eval_step)
    return np.asarray(eval_step(jax.random.key(0), state, batch)["nll"], np.float64)


def _every_image(spec):
    levels = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(levels), np.uint8).reshape(-1, *spec.shape)


# Causality


def _reach(model):
    """bool [output input]: what can be seen, by following every live tap of every layer."""
    height, width, channels = model.spec.shape
    places = list(itertools.product(range(height), range(width), range(channels)))

    def layer(kernel, kind):
        r, seen = kernel // 2, np.zeros((len(places),) * 2, bool)
        for (o, (y, x, c)), (i, (v, u, b)) in itertools.product(
            enumerate(places), enumerate(places)
        ):
            above = 1 <= y - v <= r and abs(u - x) <= r
            left = v == y and 1 <= x - u <= r
            itself = (v, u) == (y, x) and (b < c or (kind == "B" and b == c))
            seen[o, i] = above or left or itself
        return seen

    path = layer(model.first_kernel, "A")
    for _ in range(model.blocks):
        path = (
            path @ np.eye(len(places), dtype=bool)
            | layer(1, "B") @ layer(model.kernel, "B") @ layer(1, "B") @ path
        )
    return layer(1, "B") @ path


JACOBIANS = {
    "one block": {"height": 5, "width": 5, "blocks": 1},
    "two": {"height": 4, "width": 5, "blocks": 2, "first_kernel": 5, "levels": 4},
    "rgb": {"height": 3, "width": 3, "channels": 3, "levels": 4, "features": 9, "head": 9},
    "uneven": {"height": 3, "width": 3, "channels": 2, "blocks": 1, "kernel": 5, "features": 5,
               "head": 7},
}  # fmt: skip


@pytest.mark.parametrize("name", some(JACOBIANS, ["two", "rgb"]))
def test_jacobian_is_zero_from_the_diagonal_on_and_the_blind_spot_is_the_predicted(
    name, make_state
):
    model = _model(**JACOBIANS[name])
    variables = make_state(model).ema
    dims = model.spec.dims

    def absolute_jacobian(x):
        out = lambda x: model.network.apply(variables, x[None])[0]  # noqa: E731
        jacobian = jax.jacrev(out)(x).reshape(dims, -1, dims)
        return jnp.abs(jacobian).sum(1)

    # ReLUs are dead at some images: what is ever seen is the sum over several.
    size = (32, *model.spec.shape)
    images = np.random.default_rng(1).uniform(-1, 1, size).astype(np.float32)
    jacobian = np.asarray(jax.jit(jax.vmap(absolute_jacobian))(images)).sum(0)
    assert (np.triu(jacobian) == 0.0).all()
    predicted = _reach(model)
    assert not np.triu(predicted).any()
    np.testing.assert_array_equal(jacobian > 0, predicted)


def test_blind_spot_by_hand():
    # 3x3 kernels alone move at most one column right per row up, however many there are.
    model = _model(5, 5, blocks=5)
    seen = _reach(model)
    for (o, (y, x)), (i, (v, u)) in itertools.product(
        enumerate(itertools.product(range(5), repeat=2)), repeat=2
    ):
        assert seen[o, i] == ((v == y and u < x) or (v < y and u - x <= y - v))


# Density


ENUMERATED = [
    {"height": 3, "width": 3},
    {"height": 2, "width": 1, "channels": 3, "levels": 3},
    {"height": 2, "width": 2, "levels": 4, "num_classes": 3},
]


@pytest.fixture(scope="module", params=ENUMERATED, ids=["binary", "rgb", "conditional"])
def enumerated(request, make_state):
    """A model, its state, every image there is, and log p of each."""
    model = _model(**request.param)
    state = make_state(model)
    images = _every_image(model.spec)
    labels = np.full(len(images), 1) if model.spec.num_classes else None
    return model, state, images, -_nll(model, state, _batch(images, labels))


def test_density_sums_to_one_over_every_image(enumerated):
    model, _, images, log_p = enumerated
    assert len(images) == model.spec.levels**model.spec.dims
    assert log_p.std() > 0.5  # far from uniform
    assert abs(np.exp(log_p).sum() - 1) < 1e-5


def test_samples_have_the_density_of_the_exact_table(enumerated):
    model, state, images, log_p = enumerated
    num, p = 20_000, np.exp(log_p)
    label = np.ones(num, np.int32) if model.spec.num_classes else None
    sample = jax.jit(lambda key, state: model.sample(key, state, num, Request(label)))
    drawn = np.asarray(sample(jax.random.key(3), state)).reshape(num, -1).astype(int)
    place = drawn @ model.spec.levels ** np.arange(model.spec.dims)[::-1]
    counts = np.bincount(place, minlength=len(images))
    # Pearson's statistic, with its exact variance: expected counts may be small.
    statistic = ((counts - num * p) ** 2 / (num * p)).sum()
    cells = len(p)
    variance = 2 * (cells - 1) + ((1 / p).sum() - cells**2 - 2 * cells + 2) / num
    assert abs(statistic - (cells - 1)) < 5 * variance**0.5
    # The mean surprise of samples is the entropy.
    entropy = -(p * log_p).sum()
    error = (p * (log_p + entropy) ** 2).sum() ** 0.5 / num**0.5
    assert abs(-log_p[place].mean() - entropy) < 5 * error


def test_nll_is_the_chain_rule(make_state):
    model = _model(3, 2, 3, levels=4)
    state = make_state(model)
    images = np.random.default_rng(0).integers(4, size=(5, 3, 2, 3))
    network = jax.jit(lambda x: model.network.apply(state.ema, x))
    total = np.zeros(5)
    x = np.zeros((5, 3, 2, 3), np.float32)  # what is still to come is not needed
    for y, u, c in itertools.product(range(3), range(2), range(3)):
        logits = np.asarray(network(x), np.float64)[:, y, u, c]
        level = images[:, y, u, c]
        total += special.log_softmax(logits, -1)[np.arange(5), level]
        x[:, y, u, c] = level * 2 / 3 - 1
    np.testing.assert_allclose(_nll(model, state, _batch(images)), -total, rtol=1e-5)


@pytest.mark.parametrize("levels", [2, 17])
def test_zero_parameters_are_uniform(levels, make_state):
    model = _model(2, 3, levels=levels)
    state = make_state(model)
    state = state.replace(ema=jax.tree.map(np.zeros_like, jax.device_get(state.ema)))
    nll = _nll(model, state, _batch(np.ones((2, 2, 3, 1))))
    np.testing.assert_allclose(nll, 6 * np.log(levels), rtol=1e-6)


# Sampling


SAMPLERS = {
    "binary": {"height": 4, "width": 5},
    "17 levels": {"height": 4, "width": 3, "levels": 17, "first_kernel": 7, "blocks": 2},
    "rgb": {"height": 3, "width": 4, "channels": 3, "levels": 5, "kernel": 5},
    "rgb, uneven groups": {"height": 5, "width": 3, "channels": 3, "features": 4, "head": 5},
    "conditional": {"height": 3, "width": 3, "levels": 3, "num_classes": 3},
    "plain": {"height": 4, "width": 4, "levels": 3, "block": "plain", "blocks": 2},
}


@pytest.mark.parametrize("name", some(SAMPLERS, ["rgb, uneven groups"]))
def test_samplers_equal_the_naive_one_bit_for_bit(name, make_state):
    model = _model(**SAMPLERS[name])
    # Quiet logits: no two images are alike.
    state = make_state(model)
    params = state.ema["params"]
    quiet = {**params, "out": jax.tree.map(lambda p: p / 8, jax.device_get(params["out"]))}
    state = state.replace(ema={"params": quiet})
    shape = (6, *model.spec.shape)
    rng = np.random.default_rng(0)
    image = rng.integers(model.spec.levels, size=shape).astype(np.uint8)
    label = jnp.array([2, 0, 1, 1, 2, 0]) if model.spec.num_classes else None

    def compiled(model):
        @jax.jit
        def complete(seed, known, temperature, start):
            key = jax.random.key(seed)
            some = None if label is None else label[: len(known)]
            request = Request(some, temperature, start)
            return model.complete(key, state, image[: len(known)], known, request)

        return complete

    cached, reference = compiled(model), compiled(_sampler(model, "naive"))
    wavefront = compiled(_sampler(model, "wavefront"))
    nothing = np.zeros(shape, bool)
    for seed, temperature in [(0, 1.0), (1, 0.7), (2, 1.3)]:
        for known in (nothing, rng.random(shape) < 0.4):
            fast = np.asarray(cached(seed, known, temperature, 0))
            assert len(np.unique(fast, axis=0)) == 6
            np.testing.assert_array_equal(fast, reference(seed, known, temperature, 0))
            np.testing.assert_array_equal(fast, wavefront(seed, known, temperature, 0))
            np.testing.assert_array_equal(fast[known], image[known])
            assert (fast[~known] != image[~known]).any()
    if name not in ("binary", "conditional"):
        return
    # Image i depends on (key, i) alone: in chunks, and in smaller batches.
    whole = np.asarray(cached(3, nothing, 1.0, 0))
    if label is None:
        parts = [cached(3, nothing[:2], 1.0, start) for start in (0, 2, 4)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    else:
        key = jax.random.key(3)
        sample = jax.jit(lambda start: model.sample(key, state, 2, Request(start=start)))
        parts = np.concatenate([sample(start) for start in (0, 2, 4)])
        every_class_in_turn = jnp.arange(6) % 3
        whole = jax.jit(lambda: model.sample(key, state, 6, Request(every_class_in_turn)))
        np.testing.assert_array_equal(parts, whole())


def test_given_pixels_bind_only_what_comes_after_them(make_state):
    model = _model(4, 4, levels=4)
    state = make_state(model)
    image = jax.device_put(np.full((5, 4, 4, 1), 3, np.uint8))
    complete = jax.jit(lambda known: model.complete(jax.random.key(0), state, image, known))

    def given(rows):
        known = np.zeros(image.shape, bool)
        known[:, rows] = True
        return np.asarray(complete(known))

    free, below, above = given(slice(0)), given(slice(2, None)), given(slice(2))
    np.testing.assert_array_equal(below[:, :2], free[:, :2])
    assert (above[:, 2:] != free[:, 2:]).any()


def test_low_temperature_is_the_greedy_image(make_state):
    model = _model(3, 3, levels=5)
    state = make_state(model)
    network = jax.jit(lambda x: model.network.apply(state.ema, x))
    x, greedy = np.zeros((1, 3, 3, 1), np.float32), np.zeros((3, 3, 1), int)
    for y, u in itertools.product(range(3), range(3)):
        greedy[y, u, 0] = np.asarray(network(x))[0, y, u, 0].argmax()
        x[0, y, u, 0] = greedy[y, u, 0] / 2 - 1
    cold = Request(temperature=1e-4)
    drawn = jax.jit(lambda: model.sample(jax.random.key(0), state, 3, cold))()
    np.testing.assert_array_equal(drawn, np.broadcast_to(greedy, (3, 3, 3, 1)))


def test_label_changes_density_and_samples(make_state):
    model = _model(3, 3, levels=4, num_classes=3)
    state = make_state(model)
    images = np.random.default_rng(0).integers(4, size=(4, 3, 3, 1))
    nll = [_nll(model, state, _batch(images, np.full(4, c))) for c in range(3)]
    sample = jax.jit(lambda label: model.sample(jax.random.key(0), state, 8, Request(label)))
    drawn = [np.asarray(sample(np.full(8, c))) for c in range(3)]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert (np.abs(nll[a] - nll[b]) > 1e-3).all()
        assert (drawn[a] != drawn[b]).any()
    with pytest.raises(UserError, match="--conditional"):
        unconditional = _model(3, 3)
        unconditional.sample(
            jax.random.key(0), make_state(unconditional), 2, Request(np.zeros(2, np.int32))
        )


# Training


def test_train_step_is_gradient_descent_on_the_mean_nll_with_an_average(make_state):
    model = _model(3, 4, levels=3, optimizer=Optimizer("sgd", 0.01, b1=0.0), ema=0.3)
    state = jax.device_get(make_state(model))
    state = state.replace(ema=jax.tree.map(lambda p: p + 1, state.net.variables))
    batch = _batch(np.random.default_rng(1).integers(3, size=(5, 3, 4, 1)))
    new, metrics = jax.jit(model.train_step)(jax.random.key(0), state, batch, 5)

    def mean_nll(params):
        logits = model.network.apply({"params": params}, np.float32(batch["x"]) - 1)
        log_p = jax.nn.log_softmax(logits)
        picked = jnp.take_along_axis(log_p, batch["x"].astype(np.int32)[..., None], -1)
        return -picked.sum() / 5

    value, grads = jax.device_get(jax.jit(jax.value_and_grad(mean_nll))(state.net.params))
    np.testing.assert_allclose(metrics["nll"], value, rtol=1e-5)
    # Nats per image is what is descended; the average's decay at step 5 is min(0.3, 6/15).
    expected = jax.tree.map(lambda p, g: p - 0.01 * g, state.net.params, grads)
    average = jax.tree.map(lambda e, p: 0.3 * e + 0.7 * p, state.ema, {"params": expected})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new.net.params, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new.ema, average)


def test_dropout_is_of_the_example_and_of_training_alone(make_state):
    model = _model(3, 3, dropout=0.5)
    state = make_state(model)
    images = np.tile(np.random.default_rng(2).integers(2, size=(1, 3, 3, 1)), (6, 1, 1, 1))
    batch = _batch(images)

    @jax.jit
    def log_prob(index):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), index)
        return model.log_prob(state.ema, {**batch, "index": index}, keys).sum((1, 2, 3))

    noisy = np.asarray(log_prob(np.arange(6)))
    assert len(np.unique(noisy)) > 3
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(log_prob(order), noisy[order], rtol=1e-6)
    assert len(np.unique(_nll(model, state, batch))) == 1


@pytest.mark.parametrize("fields, message", [
    ({"first_kernel": 4}, "`first_kernel` must be odd"),
    ({"kernel": 1}, "`kernel` must be odd"),
    ({"channels": 3, "features": 2}, "3 channels"),
    ({"dropout": 1.0}, "`dropout` must lie"),
])  # fmt: skip
def test_refuses_impossible_fields(fields, message):
    with pytest.raises(UserError, match=message):
        _model(3, 3, **fields)
