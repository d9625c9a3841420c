"""Every autoregressive model: causal, normalized by enumeration, sampled exactly as it scores."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import some

from jaxgen.causal import pyramid
from jaxgen.causal.check import check_autoregressive
from jaxgen.causal.condition import NOTHING
from jaxgen.causal.streamed_layers import shift_down, shift_right
from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.autoregressive import (
    gated_pixelcnn,
    made,
    nade,
    pixelcnn,
    pixelrnn,
    pixelsnail,
    wavenet,
)
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from jaxgen.models.autoregressive.made import MADE
from jaxgen.models.autoregressive.nade import NADE
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.models.autoregressive.pixelcnnpp import PixelCNNPP
from jaxgen.models.autoregressive.pixelrnn import DiagonalBiLSTM, RowLSTM
from jaxgen.models.autoregressive.pixelsnail import PixelSNAIL
from jaxgen.models.autoregressive.wavenet import WaveNet
from jaxgen.nn.layers import concat_elu
from jaxgen.registry import MODELS
from jaxgen.spec import DataSpec

SMALL = {
    "pixelcnn": (PixelCNN, {"features": 6, "blocks": 1, "head": 6, "first_kernel": 3}),
    "gated": (GatedPixelCNN, {"features": 4, "blocks": 3, "head": 6, "first_kernel": 3}),
    "pixelsnail": (
        PixelSNAIL,
        {"features": 4, "blocks": 1, "layers": 1, "attention": 4, "head": 6},
    ),
    "nade": (NADE, {"features": 8}),
    "made": (MADE, {"hidden": (96, 96)}),
    "rowlstm": (RowLSTM, {"features": 4, "blocks": 2, "head": 6, "first_kernel": 3}),
    "diagonal": (DiagonalBiLSTM, {"features": 4, "blocks": 2, "head": 6, "first_kernel": 3}),
    "pixelcnnpp": (PixelCNNPP, {"features": 4, "components": 5}),
    "wavenet": (
        WaveNet,
        {"features": 4, "skips": 4, "head": 6, "kernel": 3, "layers": 4, "stacks": 1},
    ),
}
FEW = ["pixelcnn", "gated", "made"]
"""A network of masked convolutions, one of streams and one of masked layers; tests of the others
that take longer are slow."""
"""Every autoregressive model, small."""

BLIND = {"pixelcnn", "rowlstm"}
"""Those that do not see every earlier pixel of a small image; see their own tests."""

ONE_ROW = {"wavenet"}
"""Those of sounds: a row of one channel."""

TWO_ROWS = [name for name in SMALL if name not in ONE_ROW]


def _laid(name, spec):
    """Images as the model takes them: in one row, where it takes no other."""
    if name not in ONE_ROW:
        return spec
    return DataSpec(1, spec.dims, 1, spec.levels, spec.num_classes)


SPECS = {
    "binary": DataSpec(4, 5, 1, 2),
    "rgb": DataSpec(3, 3, 3, 4),
    "conditional": DataSpec(5, 3, 1, 3, 3),
}


def _model(name, spec, **fields):
    cls, small = SMALL[name]
    return cls(spec, **{"dropout": 0.0, **small, **fields})


@pytest.fixture(scope="module")
def make_state(random_state):
    """model -> random parameters, of which the average is a copy."""

    def make(model):
        state = random_state(model)
        return state.replace(ema=state.net.variables)

    return make


def _label(spec, num):
    return np.arange(num) % spec.num_classes if spec.num_classes else None


def _nll(model, state, images, label=None):
    batch = {"x": np.asarray(images, np.uint8), "index": np.arange(len(images))}
    batch |= {} if label is None else {"label": label}
    found = jax.jit(model.eval_step)(jax.random.key(0), state, batch)["nll"]
    return np.asarray(found, np.float64)


IDLE = {
    "pixelcnn": ({"blocks": 2}, {"blocks": 1}, ["stack_1/up/"]),
    "gated": ({"blocks": 2}, {"blocks": 1}, ["stack_2/out/"]),
    "rowlstm": ({"blocks": 2}, {"blocks": 1}, ["stack_1/up/"]),
    "diagonal": ({"blocks": 2}, {"blocks": 1}, ["stack_1/up/"]),
    "pixelsnail": ({"blocks": 2}, {"blocks": 1}, ["stack_1/", "/second/"]),
    "pixelcnnpp": ({"scales": 1}, None, ["/second/"]),
}
"""Fields; fields of a network without the last block; and what the names of that block's last
layers have, by which it adds to its input."""


@pytest.mark.parametrize("name", some(IDLE, ["pixelcnn", "gated"]))
def test_a_block_that_adds_nothing_changes_nothing(name, make_state):
    """Each adds to its input, which reaches the next one unchanged."""
    fields, fewer, parts = IDLE[name]
    spec = DataSpec(4, 5, 1, 3)
    model = _model(name, spec, **fields)
    x = np.random.default_rng(0).uniform(-1, 1, (3, *spec.shape)).astype(np.float32)

    def silent(path, leaf):
        where = "/".join(key.key for key in path) + "/"
        return np.zeros_like(leaf) if all(part in where for part in parts) else leaf

    variables = jax.device_get(make_state(model).ema)
    idle = jax.tree_util.tree_map_with_path(silent, variables)
    see = jax.jit(lambda net, v: net.apply(v, x, NOTHING, method="features"), static_argnums=0)
    found = see(model.network, idle)
    assert np.abs(found - see(model.network, variables)).max() > 1e-3
    if fewer is None:  # nothing but the first layers, and the last nonlinearity
        marked = jnp.concatenate([x, jnp.ones_like(x)], -1)
        first = lambda net: concat_elu(net.row_to_left(shift_down(marked))  # noqa: E731
                                       + net.pixel_to_left(shift_right(marked)))  # fmt: skip
        expected = model.network.apply(idle, method=first)
    else:
        expected = see(_model(name, spec, **fewer).network, idle)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


DROPPED = {
    "pixelcnn": (pixelcnn, {"blocks": 2}, 2),
    "gated": (gated_pixelcnn, {"blocks": 2}, 3),
    "rowlstm": (pixelrnn, {}, 2),
    "diagonal": (pixelrnn, {}, 2),
    "pixelsnail": (pixelsnail, {"blocks": 2}, 4),
    "pixelcnnpp": (pyramid, {"scales": 2}, 10),
    "nade": (nade, {}, 1),
    "made": (made, {}, 2),
    "wavenet": (wavenet, {}, 4),
}
"""Where each network's dropout is called, and how often."""


@pytest.mark.parametrize("name", some(SMALL, ["gated"]))
def test_every_dropout_has_noise_of_its_own_and_counts(name, make_state, monkeypatch):
    module, fields, times = DROPPED[name]
    spec = _laid(name, DataSpec(4, 5, 1, 3))
    model = _model(name, spec, dropout=0.25, **fields)
    variables = make_state(model).ema
    x = np.random.default_rng(0).uniform(-1, 1, (2, *spec.shape)).astype(np.float32)
    keys, given = jax.random.split(jax.random.key(0), 2), []

    def run(without=None):
        """The parameters, with zeros in place of what one of the calls is given."""
        given.clear()

        def dropped(keys, x, rate):
            given.append((jax.random.key_data(keys).tobytes(), rate))
            return 0 * x if len(given) - 1 == without else x

        monkeypatch.setattr(module, "dropout", dropped)
        return model.network.apply(variables, x, NOTHING, keys)

    whole = run()
    assert [rate for _, rate in given] == [0.25] * times
    assert len({noise for noise, _ in given}) == times
    for i in range(times):
        assert np.abs(run(without=i) - whole).max() > 1e-4


def test_every_autoregressive_model_is_tested():
    classes = {type(preset.model) for preset in MODELS.values()}
    explicit = {cls for cls in classes if hasattr(cls, "log_prob") and hasattr(cls, "complete")}
    assert explicit == {cls for cls, _ in SMALL.values()}


# The Jacobian of PixelCNN++ is in its own tests.
@pytest.mark.parametrize("kind", some(SPECS, ["rgb"]))
@pytest.mark.parametrize("name", some(SMALL, SMALL.keys() - {"pixelcnnpp"}))
def test_sees_the_whole_past_and_no_future(name, kind, make_state):
    spec = SPECS[kind]
    spec = _laid(name, spec)
    model = _model(name, spec)
    network = model.chain(make_state(model).ema).bound

    @jax.jit
    def see(x):
        return network(x, model.condition(jnp.ones(x.shape[:1], jnp.int32), None))

    report = check_autoregressive(see, spec.shape, trials=4)
    assert report.is_autoregressive, report
    assert report.nan_outputs == 0
    if name not in BLIND:
        assert not report.blind, report


# PixelCNN has its own tests of this, of the same images.
@pytest.mark.parametrize("name", some(SMALL, SMALL.keys() - {"pixelcnn"}))
@pytest.mark.parametrize("spec", [DataSpec(3, 3, 1, 2), DataSpec(2, 1, 3, 3)], ids=str)
def test_density_sums_to_one_over_every_image(name, spec, make_state):
    spec = _laid(name, spec)
    model = _model(name, spec, order="reversed" if name in ONE_ROW else "columns")
    images = itertools.product(range(spec.levels), repeat=spec.dims)
    log_p = -_nll(model, make_state(model), np.array(list(images)).reshape(-1, *spec.shape))
    assert log_p.std() > 0.1  # not uniform
    assert abs(np.exp(log_p).sum() - 1) < 1e-5


@pytest.mark.parametrize("kind", some(SPECS, ["rgb"]))
@pytest.mark.parametrize("name", some(SMALL, FEW))
def test_samplers_equal_the_naive_one_bit_for_bit(name, kind, make_state):
    spec = SPECS[kind]
    spec = _laid(name, spec)
    model = _model(name, spec)
    state = make_state(model)
    shape, rng = (6, *spec.shape), np.random.default_rng(0)
    image = rng.integers(spec.levels, size=shape).astype(np.uint8)
    label = _label(spec, 6)

    def completer(sampler):
        chosen = dataclasses.replace(model, sampler=sampler)

        @jax.jit
        def complete(seed, known, temperature, start):
            key = jax.random.key(seed)
            return chosen.complete(key, state, image, known, Request(label, temperature, start))

        return complete

    cached, naive = completer("cached"), completer("naive")
    nothing, some = np.zeros(shape, bool), rng.random(shape) < 0.4
    # High temperatures: no two images are alike.
    for seed, temperature, known in [(0, 8.0, nothing), (1, 8.0, some), (2, 5.0, some)]:
        fast = np.asarray(cached(seed, known, temperature, 0))
        np.testing.assert_array_equal(fast, naive(seed, known, temperature, 0))
        assert len(np.unique(fast, axis=0)) == 6
        np.testing.assert_array_equal(fast[known], image[known])
        assert (fast[~known] != image[~known]).any()


@pytest.mark.parametrize("name", some(SMALL, FEW))
def test_samples_score_as_they_were_drawn(name, make_state):
    """Samples are as surprising as the density says that they are, on average."""
    spec = _laid(name, DataSpec(2, 3, 1, 3))
    model = _model(name, spec)
    state, num = make_state(model), 4000
    images = np.array(list(itertools.product(range(3), repeat=6))).reshape(-1, *spec.shape)
    log_p = -_nll(model, state, images)
    p = np.exp(log_p)
    drawn = np.asarray(jax.jit(lambda: model.sample(jax.random.key(3), state, num))())
    place = drawn.reshape(num, -1).astype(int) @ 3 ** np.arange(6)[::-1]
    entropy = -(p * log_p).sum()
    error = ((p * (log_p + entropy) ** 2).sum() / num) ** 0.5
    assert abs(-log_p[place].mean() - entropy) < 5 * error
    # And each image as often: Pearson's statistic, with its exact variance.
    statistic = ((np.bincount(place, minlength=len(p)) - num * p) ** 2 / (num * p)).sum()
    cells = len(p)
    variance = 2 * (cells - 1) + ((1 / p).sum() - cells**2 - 2 * cells + 2) / num
    assert abs(statistic - (cells - 1)) < 5 * variance**0.5


@pytest.mark.parametrize("name", some(SMALL, FEW))
def test_label_changes_every_sub_pixel(name, make_state):
    spec = _laid(name, DataSpec(3, 3, 1, 4, num_classes=3))
    model = _model(name, spec)
    state = make_state(model)
    images = np.random.default_rng(0).integers(4, size=(4, *spec.shape))
    index, label = np.arange(12), np.tile(np.arange(3), 4)
    batch = {"x": images.repeat(3, 0).astype(np.uint8), "index": index, "label": label}
    log_p = np.asarray(jax.jit(model.log_prob)(state.ema, batch)).reshape(4, 3, *spec.shape)
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        # In one of the images at least, well above rounding.
        assert (np.abs(log_p[:, a] - log_p[:, b]).max(0) > 1e-4).all()


@pytest.mark.parametrize("name", some(TWO_ROWS, ["pixelcnn"]))
def test_orders_are_the_network_on_turned_images(name, make_state):
    spec = DataSpec(3, 4, 1, 3)
    images = np.random.default_rng(0).integers(3, size=(5, 3, 4, 1))
    raster = _model(name, DataSpec(4, 3, 1, 3))
    state = make_state(raster)
    columns = _model(name, spec, order="columns")
    turned = images.swapaxes(1, 2)
    np.testing.assert_allclose(_nll(columns, state, images), _nll(raster, state, turned), rtol=1e-5)
    back = _model(name, DataSpec(4, 3, 1, 3), order="reversed")
    given = turned[:, ::-1, ::-1]
    np.testing.assert_allclose(_nll(back, state, given), _nll(raster, state, turned), rtol=1e-5)
    # Samples too, and pixels that come later in the order bind nothing.
    drawn = jax.jit(lambda: columns.sample(jax.random.key(0), state, 4))()
    same = jax.jit(lambda: raster.sample(jax.random.key(0), state, 4))()
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(same).swapaxes(1, 2))


@pytest.mark.parametrize("name", SMALL)
def test_real_numbers_are_refused(name):
    with pytest.raises(UserError, match="quantize them with --levels=N"):
        _model(name, DataSpec(1, 1, 2, levels=0))
