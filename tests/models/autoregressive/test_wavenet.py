"""WaveNet: against a loop over samples as the paper writes it, its reach, and its ring buffers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.causal import samplers
from jaxgen.causal.condition import Condition
from jaxgen.errors import UserError
from jaxgen.models.autoregressive.wavenet import WaveNet
from jaxgen.spec import DataSpec

SPEC = DataSpec(1, 40, 1, 7, num_classes=3, rate=4000)
SMALL = {"features": 3, "skips": 5, "head": 6}
SHAPES = [(2, 3, 2), (3, 2, 2), (2, 1, 1)]
"""Kernel, layers, stacks: the first reaches back 16 samples, and the rings turn many times."""
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def _model(shape=SHAPES[0], spec=SPEC, **fields):
    kernel, layers, stacks = shape
    return WaveNet(spec, kernel=kernel, layers=layers, stacks=stacks, **SMALL, **fields)


@pytest.fixture(scope="module")
def make_state(random_state):
    def make(model):
        state = random_state(model)
        return state.replace(ema=state.net.variables)

    return make


def _clips(num, spec=SPEC):
    images = np.random.default_rng(0).integers(spec.levels, size=(num, *spec.shape))
    return images.astype(np.uint8), np.arange(num) % 3


def _told(labels):
    return Condition(np.eye(SPEC.num_classes, dtype=np.float32)[labels])


def _by_hand(model, params, x, label):
    """Logits [t levels] of the wave x [t], sample by sample, in float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    relu = lambda v: np.maximum(v, 0)  # noqa: E731
    f, k = model.features, model.kernel

    def conv(values, h, t, dilation):
        """W * h at t, tap by tap; before the first sample there is silence, 0."""
        out = values["bias"].copy()
        for i in range(k):
            at = t - (k - 1 - i) * dilation
            if at >= 0:
                out += h[at] @ values["kernel"][i]
        return out

    steps = range(len(x))
    before = np.append(0.0, x[:-1])[:, None]
    h = np.stack([conv(p["first"], before, t, 1) for t in steps])
    skips = np.zeros((len(x), model.skips))
    for i, dilation in enumerate(model.dilations):
        layer = p[f"stack_{i}"]
        shift = layer["Shift_0"]["vector"][label]
        z = np.stack([conv(layer["DilatedConv_0"], h, t, dilation) for t in steps]) + shift
        z = np.tanh(z[:, :f]) * sigmoid(z[:, f:])
        out = z @ layer["Dense_0"]["kernel"] + layer["Dense_0"]["bias"]
        skips += out[:, : model.skips]
        if i < len(model.dilations) - 1:
            h = h + out[:, model.skips :]
    head = p["head"]
    hidden = relu(relu(skips) @ head["features"]["kernel"] + head["features"]["bias"])
    return hidden @ head["kernel"][0] + head["bias"][0]


@by_shape
def test_logits_are_the_papers_formulas(shape, make_state):
    model = _model(shape)
    state, (images, labels) = make_state(model), _clips(3)
    network = model.chain(state.ema).bound
    found = jax.jit(lambda x: network(x, _told(labels)))(SPEC.to_float(images))
    for clip, label, logits in zip(images, labels, np.asarray(found), strict=True):
        x = np.asarray(clip, np.float64)[0, :, 0] * 2 / 6 - 1
        expected = _by_hand(model, state.ema["params"], x, int(label))
        np.testing.assert_allclose(logits[0, :, 0], expected, atol=2e-5)


@by_shape
def test_ring_buffers_give_the_logits_of_the_whole_row(shape, make_state):
    """In float64: sums are taken in another order."""
    model = _model(shape)
    state, (images, labels) = make_state(model), _clips(3)

    def pick(state, noise, params):
        return state, jnp.zeros(3, jnp.int32), params

    draw = samplers.Draw(lambda positions: jnp.zeros((len(positions), 3, 1)), pick)

    @jax.jit
    def run(variables, images, told):
        network, known = model.chain(variables).bound, jnp.ones(images.shape, bool)
        x = SPEC.to_float(images).astype(jnp.float64)
        levels, _, params = samplers.run_cached(network, SPEC, draw, images, known, told)
        return levels, params, network(x, told)

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), state.ema)
        levels, by_sample, whole = jax.device_get(run(wide, images, _told(labels)))
    assert by_sample.dtype == whole.dtype == np.float64
    np.testing.assert_array_equal(levels, images)
    by_sample = by_sample.transpose(3, 0, 1, 2, 4)  # [h w c b p] to [b h w c p]
    np.testing.assert_allclose(by_sample, whole, rtol=1e-12, atol=1e-13)


@by_shape
def test_the_receptive_field_is_what_the_facts_say(shape, make_state):
    model = _model(shape)
    reach = model.receptive_field
    spec = dataclasses.replace(SPEC, width=reach + 6)
    model = dataclasses.replace(model, spec=spec)
    network, (images, labels) = model.chain(make_state(model).ema).bound, _clips(3, spec)

    @jax.jit
    @jax.grad
    def slope(x):
        return jnp.abs(network(x, _told(labels))[:, 0, -1]).sum()

    seen = np.abs(slope(spec.to_float(images)))[:, 0, :, 0].max(0) > 0
    np.testing.assert_array_equal(np.flatnonzero(seen), np.arange(5, reach + 5))
    assert model.facts()["receptive field"] == f"{reach} samples ({reach / 4:g} ms)"
    # What is remembered is no more than what is seen, beside the last sample itself.
    nothing = samplers.Draw(lambda positions: positions, lambda *args: args)
    cache, _ = network.stepper(spec, nothing, _told(labels)).start(3)
    assert sum(ring.shape[0] for ring in jax.tree.leaves(cache)) == reach - 1


def test_receptive_fields():
    """Of the paper's dilations 1..512, and of one layer: two samples by each of two layers."""
    assert _model((2, 10, 1)).receptive_field == 1 + 1 + 1023
    assert _model((2, 1, 1)).receptive_field == 3
    assert _model((2, 3, 2)).dilations == (1, 2, 4, 1, 2, 4)
    facts = _model((2, 10, 3), dataclasses.replace(SPEC, rate=0)).facts()
    assert facts["receptive field"] == "3071 samples"


def test_the_label_enters_every_layer(make_state):
    model = _model()
    state, (images, labels) = make_state(model), _clips(3)

    @jax.jit
    @jax.grad
    def slopes(variables):
        logits = model.network.apply(variables, SPEC.to_float(images), _told(labels))
        return jnp.sin(logits).sum()

    found = slopes(state.ema)["params"]
    assert len(model.dilations) == 6
    for i in range(6):
        slope = np.asarray(found[f"stack_{i}"]["Shift_0"]["vector"])
        assert (np.abs(slope).max(1) > 1e-4).all(), i


def test_reversed_is_the_network_on_reversed_sounds(make_state):
    forth, back = _model(), _model(order="reversed")
    state, (images, labels) = make_state(forth), _clips(3)
    batch = {"x": images, "index": np.arange(3), "label": labels}
    expected = jax.jit(forth.eval_step)(jax.random.key(0), state, batch)["nll"]
    batch["x"] = images[:, :, ::-1]
    found = jax.jit(back.eval_step)(jax.random.key(0), state, batch)["nll"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("fields", "message"), [
    ({"spec": DataSpec(2, 8)}, "one row of one channel, and the data has images of 2x8x1"),
    ({"spec": DataSpec(1, 8, 3)}, "images of 1x8x3"),
    ({"order": "columns"}, "`order`=columns"),
    ({"kernel": 1}, "`kernel` must be at least 2; got 1"),
    ({"layers": 0}, "`layers` must be positive; got 0"),
    ({"skips": 0}, "`skips` must be positive; got 0"),
    ({"ema": 1.0}, "`ema` must lie in"),
])  # fmt: skip
def test_mistakes_are_told(fields, message):
    with pytest.raises(UserError, match=message):
        WaveNet(**{"spec": SPEC, **fields})
