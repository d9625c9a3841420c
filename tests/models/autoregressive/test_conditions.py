"""Vectors and maps beside x: networks stay causal, every sampler exact, in any dtype and order."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import FEW, ONE_ROW, SMALL, TWO_ROWS
from tiny import some

from jaxgen.causal import orders
from jaxgen.causal.check import check_autoregressive
from jaxgen.causal.condition import Condition
from jaxgen.causal.samplers import Draw, draw_from, run_cached
from jaxgen.compression import codec
from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.autoregressive.chain import SAMPLERS
from jaxgen.models.autoregressive.made import MADE
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

GREY, RGB, ROW = DataSpec(4, 5, 1, 3), DataSpec(3, 4, 3, 4), DataSpec(1, 9, 1, 3)
CASES = {
    **{name: (name, ROW if name in ONE_ROW else GREY, {}) for name in SMALL},
    **{f"{name}, rgb": (name, RGB, {}) for name in SMALL if name not in ONE_ROW},
    "pixelcnn, plain": ("pixelcnn", GREY, {"block": "plain", "blocks": 2}),
    "pixelcnnpp, three scales": ("pixelcnnpp", DataSpec(6, 7, 1, 9), {"scales": 3}),
    "made, deep": ("made", GREY, {"hidden": (17, 40)}),
}
by_case = pytest.mark.parametrize("name", some(CASES, FEW))
"""The others, and those in colour and with other fields, are slow tests."""
EACH_KIND = ["pixelcnn", "made"]
"""A network of causal convolutions and one of masked layers."""
TRIALS, NUM = 16, 8
WIDTHS = (4, 2)
"""Numbers of the vector, and of the maps at each place."""


def _case(name, order="raster"):
    """A model, a chain of its network with random variables, and three conditions for it."""
    kind, spec, fields = CASES[name]
    cls, small = SMALL[kind]
    model = cls(spec, **{"dropout": 0.0, **small, **fields}, order=order)
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(NUM, spec.height, spec.width, WIDTHS[1]))
    # Large enough that other conditions are seen in a few samples.
    condition = Condition(3 * rng.normal(size=(NUM, WIDTHS[0])), 3 * maps).astype(np.float32)

    def init():
        x = jnp.zeros((NUM, *model.arranged.shape))
        laid = orders.arrange_condition(order, condition)
        return model.network.init(jax.random.key(0), x, laid)

    shapes = jax.eval_shape(init)

    def fill(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 9.0
        values = rng.normal(size=leaf.shape) * (1.5 / fan_in**0.5)
        return jax.device_put(values.astype(leaf.dtype))

    return model, model.chain(jax.tree.map(fill, shapes)), condition


def _images(spec, num=NUM):
    levels = np.random.default_rng(1).integers(spec.levels, size=(num, *spec.shape))
    return jax.device_put(levels.astype(np.uint8))


@by_case
def test_no_future_is_seen_and_every_place_sees_its_condition(name):
    _, chain, condition = _case(name)
    one = jax.tree.map(lambda c: c[:1], condition)

    @jax.jit
    def see(x):
        many = jax.tree.map(lambda c: jnp.repeat(c, len(x), 0), one)
        return chain.bound(x, many)

    report = check_autoregressive(see, chain.spec.shape)
    assert report.is_autoregressive and report.nan_outputs == 0, report
    images, at = chain.spec.to_float(_images(chain.spec, TRIALS)), chain.spec.shape[:2]

    @jax.jit
    @jax.vmap
    def slopes(x, factor):
        """Slopes of one number a sub-pixel: with random weights, no parameters cancel."""

        def params(one):
            found = chain.bound(x[None], jax.tree.map(lambda c: factor * c, one))[0]
            return found @ jax.random.normal(jax.random.key(2), found.shape[-1:])

        return jax.jacrev(params)(one)

    # A few images and conditions: units that are off for one of them, are on for another.
    factors = np.linspace(-1.0, 1.0, TRIALS, dtype=np.float32)
    by_vector, by_maps = (np.abs(np.asarray(s)).max(0) for s in slopes(images, factors))
    assert (by_vector.max(-1) > 0).all()
    for row, column in itertools.product(*map(range, at)):
        assert (by_maps[row, column, :, 0, row, column].max(-1) > 0).all(), (row, column)


# What the gated network streams is what it computes: quick tests have that in float64.
@pytest.mark.parametrize("name", some(CASES, EACH_KIND))
@pytest.mark.parametrize("order", ["raster", pytest.param("columns", marks=pytest.mark.slow)])
def test_samplers_equal_the_naive_one_bit_for_bit(name, order):
    if order == "columns" and CASES[name][0] in ONE_ROW:
        order = "reversed"
    model, chain, condition = _case(name, order)
    x, rng = _images(chain.spec), np.random.default_rng(2)
    some = rng.random(x.shape) < 0.3
    kinds = [n for n in SAMPLERS if n != "wavefront" or isinstance(model, PixelCNN)]

    def filler(sampler):
        @jax.jit
        def fill(known, condition):
            draw = draw_from(chain.likelihood, jax.random.split(jax.random.key(1), NUM), 1.5)
            return chain.fill(draw, x, known, condition, sampler)

        return fill

    fillers = [filler(sampler) for sampler in kinds]
    other_maps = condition.having(condition.maps[::-1])
    other_vector = condition._replace(vector=condition.vector[::-1])
    drawn = []
    for known, given in [
        (np.zeros(x.shape, bool), condition),
        (some, condition),
        (some, other_maps),
        (some, other_vector),
    ]:
        first, *others = (np.asarray(fill(known, given)) for fill in fillers)
        for other in others:
            np.testing.assert_array_equal(other, first)
        np.testing.assert_array_equal(first[known], np.asarray(x)[known])
        drawn.append(first)
    assert (drawn[1] != drawn[2]).any() and (drawn[1] != drawn[3]).any()


def _recorded(chain, x, condition):
    """The parameters of every sub-pixel, as the cached sampler has them, and by one whole pass."""
    pick = lambda state, noise, params: (state, jnp.zeros(len(x), jnp.int32), params)  # noqa: E731
    draw = Draw(lambda positions: jnp.zeros((len(positions), len(x), 1)), pick)

    @jax.jit
    def run(variables, x, condition):
        bound, known = chain._replace(variables=variables).bound, jnp.ones(x.shape, bool)
        _, _, params = run_cached(bound, chain.spec, draw, x, known, condition)
        floats = chain.spec.to_float(x).astype(condition.vector.dtype)
        return params.transpose(3, 0, 1, 2, 4), bound(floats, condition)

    return run(chain.variables, x, condition)


@by_case
def test_in_float64_what_is_streamed_is_the_whole_pass(name):
    _, chain, condition = _case(name)
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda p: np.asarray(p, np.float64), tree)  # noqa: E731
        chain = chain._replace(variables=wide(chain.variables))
        recorded = _recorded(chain, _images(chain.spec), wide(condition))
    streamed, whole = map(np.asarray, recorded)
    assert streamed.dtype == whole.dtype == np.float64
    assert np.std(whole) > 0.05
    np.testing.assert_allclose(streamed, whole, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", some(SMALL, EACH_KIND))
def test_in_bfloat16_networks_and_samplers_compute_in_it(name):
    _, chain, condition = _case(name)
    narrow = lambda tree: jax.tree.map(lambda p: np.asarray(p).astype(jnp.bfloat16), tree)  # noqa: E731
    chain = chain._replace(variables=narrow(chain.variables))
    streamed, whole = _recorded(chain, _images(chain.spec), narrow(condition))
    # The masses of a mixture are float32 at least.
    expected = jnp.float32 if name == "pixelcnnpp" else jnp.bfloat16
    assert streamed.dtype == whole.dtype == expected
    scale = float(np.abs(np.asarray(whole, np.float32)).max())
    np.testing.assert_allclose(
        np.asarray(streamed, np.float32), np.asarray(whole, np.float32), atol=0.05 * scale
    )


@pytest.mark.parametrize("name", some(TWO_ROWS, EACH_KIND))
def test_orders_turn_the_maps_with_x(name):
    model, chain, condition = _case(name, "columns")
    turned = dataclasses.replace(chain.spec, height=chain.spec.width, width=chain.spec.height)
    raster = dataclasses.replace(model, spec=turned, order="raster").chain(chain.variables)
    x = np.asarray(_images(chain.spec))
    told = condition.having(condition.maps.swapaxes(1, 2))
    log_prob = jax.jit(raster.log_prob)
    found = np.asarray(jax.jit(chain.log_prob)(x, condition))
    expected = log_prob(x.swapaxes(1, 2), told)
    np.testing.assert_allclose(found.swapaxes(1, 2), expected, rtol=1e-5, atol=1e-6)
    back = chain._replace(order="reversed", spec=turned)
    found = np.asarray(jax.jit(back.log_prob)(x.swapaxes(1, 2), told))
    flip = lambda a: a[:, ::-1, ::-1]  # noqa: E731
    expected = log_prob(flip(x.swapaxes(1, 2)), told.having(flip(told.maps)))
    np.testing.assert_allclose(flip(found), expected, rtol=1e-5, atol=1e-6)


# Models of pairs


PAIRS = DataSpec(2, 2, 1, 3, num_classes=2, source=DataSpec(2, 2, 3, 256))


def _pairs(num):
    rng = np.random.default_rng(0)
    source = rng.integers(256, size=(num, *PAIRS.source.shape))
    return {
        "x": _images(PAIRS, num),
        "source": jax.device_put(source.astype(np.uint8)),
        "label": np.arange(num) % 2,
        "index": np.arange(num),
    }


def _model(name, spec=PAIRS, **fields):
    cls, small = SMALL[name]
    return cls(spec, **{"dropout": 0.0, **small, **fields})


@pytest.mark.parametrize("name", some(TWO_ROWS, ["pixelcnn"]))
def test_a_step_learns_from_the_source(name):
    model = _model(name, optimizer=Optimizer("sgd", 0.1, b1=0.0))
    batch = _pairs(6)
    state = jax.jit(model.init)(jax.random.key(0), batch)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)
    assert all(np.isfinite(value) for value in metrics.values())
    places = jax.tree_util.tree_leaves_with_path(new.net.params)
    of_maps = [leaf for path, leaf in places if jax.tree_util.keystr(path[-1:]) == "['maps']"]
    # Zero before; some depend on nothing but what is zero yet.
    assert of_maps and max(np.abs(leaf).max() for leaf in of_maps) > 1e-5


@pytest.mark.parametrize("fields", [
    {},
    pytest.param({"random_orders": 1}, marks=pytest.mark.slow),  # an ensemble has such orders
    {"random_orders": 2, "masks": 2, "hidden": (9, 14)},
], ids=["one", "random order", "ensemble"])  # fmt: skip
def test_density_given_a_source_sums_to_one_and_is_what_is_drawn(fields, random_state):
    model = MADE(PAIRS, dropout=0.0, **{"hidden": (9,), **fields})
    state = random_state(model)
    levels = list(itertools.product(range(3), repeat=4))
    every = np.array(levels, np.uint8).reshape(-1, 2, 2, 1)
    evaluate = jax.jit(model.eval_step)

    def given(i, num):
        pair = {name: np.asarray(column)[i : i + 1] for name, column in _pairs(6).items()}
        return {name: np.repeat(column, num, 0) for name, column in pair.items()}

    log_p = []
    for i in range(3):
        batch = {**given(i, 81), "x": every}
        nll = evaluate(jax.random.key(0), state, batch)["nll"]
        log_p.append(-np.asarray(nll, np.float64))
        assert abs(np.exp(log_p[i]).sum() - 1) < 1e-5
    assert np.abs(log_p[0] - log_p[2]).mean() > 0.1  # another source of the same class
    num, p = 6000, np.exp(log_p[2])
    draw = jax.jit(lambda b: model.translate(jax.random.key(3), state, b["source"], b["label"]))
    drawn = np.asarray(draw(given(2, num))).reshape(num, -1).astype(int)
    counts = np.bincount(drawn @ 3 ** np.arange(4)[::-1], minlength=81)
    statistic = ((counts - num * p) ** 2 / (num * p)).sum()
    variance = 2 * 80 + ((1 / p).sum() - 81**2 - 2 * 81 + 2) / num
    assert abs(statistic - 80) < 5 * variance**0.5


@pytest.mark.parametrize("name", some(TWO_ROWS, ["made"]))
def test_translations_are_of_their_number_alone_and_of_any_sampler(name, random_state):
    model, batch = _model(name, order="columns"), _pairs(6)
    state = random_state(model)

    def translator(sampler, num):
        chosen = dataclasses.replace(model, sampler=sampler)

        @jax.jit
        def translate(start):
            source = jax.lax.dynamic_slice_in_dim(batch["source"], start, num)
            return chosen.translate(jax.random.key(4), state, source, start=start)

        return translate

    whole = np.asarray(translator("naive", 6)(0))
    part = translator("cached", 2)
    np.testing.assert_array_equal(np.concatenate([part(i) for i in (0, 2, 4)]), whole)


def test_what_a_model_of_pairs_cannot_do_is_told(random_state):
    model, batch = _model("pixelcnn"), _pairs(2)
    state, key = random_state(model), jax.random.key(0)
    with pytest.raises(UserError, match="let it translate"):
        model.sample(key, state, 2)
    with pytest.raises(UserError, match="let it translate"):
        model.complete(key, state, batch["x"], batch["x"] > 0, Request())
    with pytest.raises(UserError, match="which a file does not hold"):
        codec.compress(model, state, np.asarray(batch["x"]), np.zeros(2, int))
    with pytest.raises(UserError, match="from no source"):
        plain = _model("pixelcnn", DataSpec(2, 2, 1, 3))
        plain.translate(key, random_state(plain), batch["source"])
    with pytest.raises(UserError, match="from no source"):
        model.translate(key, state, batch["source"], way="back")
    with pytest.raises(UserError, match="2x4 and 2x2 places"):
        _model("pixelcnn", DataSpec(2, 2, 1, 3, source=DataSpec(2, 4)))
