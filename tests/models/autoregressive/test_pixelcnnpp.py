"""PixelCNN++: causal at any size and depth, cached by rows, of the paper's size, stable."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.causal import samplers
from jaxgen.causal.condition import NOTHING
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.distributions.likelihoods import Bernoulli, Categorical
from jaxgen.distributions.mixtures import LogisticMixture
from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.autoregressive.pixelcnnpp import PixelCNNPP
from jaxgen.spec import DataSpec


def _model(spec, **fields):
    return PixelCNNPP(spec, **{"features": 3, "components": 3, "dropout": 0.0, **fields})


@pytest.fixture(scope="module")
def make_state(random_state):
    """model -> random parameters, of which the average is a copy."""

    def make(model):
        state = random_state(model)
        return state.replace(ema=state.net.variables)

    return make


@pytest.mark.parametrize("height, width, scales", [
    pytest.param(7, 5, 3, marks=pytest.mark.slow),
    (5, 4, 2),
    pytest.param(6, 9, 2, marks=pytest.mark.slow),
    pytest.param(1, 6, 2, marks=pytest.mark.slow),
])  # fmt: skip
def test_jacobian_is_zero_from_the_diagonal_on_and_not_where_the_past_is_in_reach(
    height, width, scales, make_state
):
    model = _model(DataSpec(height, width, 1, 5), scales=scales)
    variables = make_state(model).ema
    dims = model.spec.dims

    # One number for each sub-pixel: with random weights, none of its parameters cancel.
    rng = np.random.default_rng(2)
    mix = rng.normal(size=model.likelihood.num_params).astype(np.float32)

    def absolute_jacobian(x):
        out = lambda x: model.network.apply(variables, x[None])[0] @ mix  # noqa: E731
        return jnp.abs(jax.jacrev(out)(x)).reshape(dims, dims)

    # Features underflow at some images: what is ever seen is the sum over several.
    images = rng.uniform(-1, 1, (4, *model.spec.shape)).astype(np.float32)
    jacobian = np.asarray(jax.jit(jax.vmap(absolute_jacobian))(images)).sum(0)
    assert (np.triu(jacobian) == 0.0).all()
    # At half the resolution, a pixel of an odd row knows nothing of that row, and of the one above
    # what is to the left; the convolutions at the whole, 1 + 2 + 1 + 2 of them by way of the
    # short-cut, reach as many columns.
    rows, columns = np.divmod(np.arange(dims), width)
    up, left = rows[:, None] - rows, columns[:, None] - columns
    predicted = (rows[:, None] % 2 == 0) | (up > 1) | (np.abs(left) <= 6) | (up == 1) & (left > 0)
    np.testing.assert_array_equal(jacobian > 0.0, np.tril(predicted, -1))
    assert "at least 6 columns" in model.facts()["sees"]


@pytest.mark.parametrize("spec, scales", [
    pytest.param(DataSpec(6, 7, 1, 17), 3, marks=pytest.mark.slow),
    pytest.param(DataSpec(5, 6, 2, 3, 2), 2, marks=pytest.mark.slow),
    (DataSpec(3, 4, 2, 3, 2), 2),
], ids=str)  # fmt: skip
def test_cached_sampler_equals_the_naive_one_at_several_resolutions(spec, scales, make_state):
    model = _model(spec, scales=scales)
    state, label = make_state(model), jnp.array([0, 1, 1]) if spec.num_classes else None
    naive, request = dataclasses.replace(model, sampler="naive"), Request(label, 5.0)
    drawn = [
        np.asarray(jax.jit(lambda m=m: m.sample(jax.random.key(0), state, 3, request))())
        for m in (model, naive)
    ]
    assert len(np.unique(drawn[0], axis=0)) == 3
    np.testing.assert_array_equal(*drawn)


def _states(height, make_state):
    """Shapes of what the sampler carries from row to row."""
    spec = DataSpec(height, 5, 1, 3)
    # The parameters fit any height.
    variables = make_state(_model(DataSpec(4, 5, 1, 3), scales=2)).ema
    network = _model(spec, scales=2).chain(variables).bound
    draw = samplers.Draw(lambda positions: positions, lambda state, noise, params: params)
    return jax.eval_shape(lambda: network.stepper(spec, draw, NOTHING).start(2))


def test_the_sampler_remembers_rows_and_not_the_image(make_state):
    few, many = (_states(height, make_state) for height in (4, 100))
    assert few == many
    sizes = [leaf.size for leaf in jax.tree.leaves(few)]
    assert max(sizes) == 2 * 5 * 6  # a row of 5 places, of twice 3 features after concat-ELU


def test_parameters_of_the_papers_network():
    """53.6 million, as of the released code at 160 filters, 5 blocks, 3 resolutions, 10 logistics:
    within a half percent, since that has weight normalization, and other first kernels."""
    model = PixelCNNPP(DataSpec(32, 32, 3, 256), features=160, blocks=5, scales=3, components=10)
    params = jax.eval_shape(model.init, jax.random.key(0), model.spec.example(1)).net.params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == pytest.approx(53.6e6, rel=5e-3)
    for pyramid, up in [(params["left"], 6), (params["left"]["smaller"]["smaller"], 5)]:
        assert [name for name in pyramid if name.startswith("down_")] == [
            f"down_{i}" for i in range(5)
        ]
        assert sum(name.startswith("up_") for name in pyramid) == up


@pytest.mark.slow
def test_features_at_depth_start_at_order_one():
    network = PixelCNNPP(DataSpec(8, 8, 1, 17), features=8, blocks=4, scales=3).network
    x = jax.random.uniform(jax.random.key(1), (10, 8, 8, 1), minval=-1)

    @jax.jit
    def features_of(key):
        return network.init_with_output(key, x, method="features")[0]

    features = features_of(jax.random.key(0))
    assert 0.2 < float(jnp.std(features)) < 5.0


@pytest.mark.slow
def test_learns_the_digits():
    """The first loss is near that of uniform; training stays finite, and descends."""
    images = load(DataConfig()).splits["train"].x
    model = PixelCNNPP(DataSpec(8, 8, 1, 17), features=8)
    state = model.init(jax.random.key(0), model.spec.example(1))
    step, metrics = jax.jit(model.train_step), []
    for i in range(40):
        at = np.arange(25 * i, 25 * i + 25)
        batch = {"x": jax.device_put(images[at]), "index": jax.device_put(at)}
        state, now = step(jax.random.fold_in(jax.random.key(1), i), state, batch, i)
        metrics.append(now)
    nll, norm = (np.array([m[name] for m in metrics]) for name in ("nll", "grad_norm"))
    assert np.isfinite(nll).all() and np.isfinite(norm).all()
    uniform = 64 * np.log(17)
    assert 0.7 * uniform < nll[0] < 1.3 * uniform and 10 < norm[0] < 1000
    assert nll[-5:].mean() < 125


def test_likelihood_follows_the_levels_and_the_flag():
    grey = DataSpec(8, 8, 1, 17)
    assert _model(grey).likelihood == LogisticMixture(17, 3)
    assert PixelCNNPP(grey, output="categorical").likelihood == Categorical(17)
    assert PixelCNNPP(DataSpec(8, 8, 1, 2)).likelihood == Bernoulli()


@pytest.mark.parametrize("field", ["features", "blocks", "scales", "components"])
def test_refuses_impossible_fields(field):
    with pytest.raises(UserError, match=f"`{field}` must be at least 1"):
        _model(DataSpec(3, 3), **{field: 0})
