"""PixelRNN: each layer is the recurrence that a slow loop over pixels spells out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import close, some

from jaxgen.causal import lstm
from jaxgen.causal.check import check_autoregressive
from jaxgen.causal.condition import Condition
from jaxgen.causal.lstm import DiagonalLayer, RowLayer, scan_states, skew, unskew
from jaxgen.models.autoregressive.pixelrnn import DiagonalBiLSTM, RowLSTM
from jaxgen.spec import DataSpec

LAYERS = {"row": RowLayer, "diagonal": DiagonalLayer}
MODELS = {"rowlstm": RowLSTM, "diagonal": DiagonalBiLSTM}
by_layer = pytest.mark.parametrize("name", LAYERS)
F = 3


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _step(gates, c):
    o, f, i, g = np.split(gates, 4)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _slow_row(x, p):
    """One image [h w i], pixel by pixel."""
    height, width, _ = x.shape
    h, c = np.zeros((2, height, width, F))
    for row in range(height):
        for column in range(width):
            gates = p["inputs"]["bias"] + x[row, column] @ p["inputs"]["kernel"][0, 1]
            if column > 0:
                gates = gates + x[row, column - 1] @ p["inputs"]["kernel"][0, 0]
            for tap, beside in enumerate((column - 1, column, column + 1)):
                if 0 <= beside < width:
                    above = h[row - 1, beside] if row else p["initial"][0]
                    gates = gates + above @ p["states"][tap]
            memory = c[row - 1, column] if row else p["initial"][1]
            h[row, column], c[row, column] = _step(gates, memory)
    return h


def _slow_diagonal(x, p):
    """One image [h w i], pixel by pixel, in each direction."""
    height, width, _ = x.shape
    out = np.zeros((height, width, F))
    for direction, columns in enumerate((range(width), range(width)[::-1])):
        h = np.zeros((height, width, F))
        for row in range(height):
            own, memory = p["initial"][direction]
            for column in columns:
                gates = p["bias"][direction] + x[row, column] @ p["inputs"][direction]
                gates = gates + own @ p["states"][direction, 1]
                if row:
                    gates = gates + h[row - 1, column] @ p["states"][direction, 0]
                own, memory = _step(gates, memory)
                h[row, column] = own
        if direction == 0:
            out += h
        else:
            out[1:] += h[:-1]
    return out


SLOW = {"row": _slow_row, "diagonal": _slow_diagonal}


def _random(name, height, width, batch=2):
    """A layer, its parameters, none of which is zero, and inputs; float64."""
    rng = np.random.default_rng(0)
    layer, x = LAYERS[name](F), rng.normal(size=(batch, height, width, 2 * F))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x.astype(np.float32))["params"]
    return layer, jax.tree.map(lambda s: rng.normal(size=s.shape) * 0.7, shapes), x


@by_layer
@pytest.mark.parametrize("size", [(3, 5), (5, 2), (1, 4)], ids=str)
def test_layer_is_the_slow_loop(name, size):
    layer, params, x = _random(name, *size)
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(layer.apply)({"params": params}, jax.device_put(x)))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [SLOW[name](image, params) for image in x], atol=1e-12)


@by_layer
def test_gradients_are_those_of_the_slow_loop(name):
    """By central differences in a random direction of each parameter and of the input."""
    layer, params, x = _random(name, 4, 3)
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(*x.shape[:-1], F))

    def fast(params, x):
        return (jnp.sin(layer.apply({"params": params}, x)) * weights).sum()

    def slow(params, x):
        return (np.sin([SLOW[name](image, params) for image in x]) * weights).sum()

    with jax.enable_x64(True):
        grads = jax.tree.map(np.asarray, jax.jit(jax.grad(fast, (0, 1)))(params, jax.device_put(x)))
    values, tree = jax.tree.flatten((params, x))
    for i, (value, grad) in enumerate(zip(values, jax.tree.leaves(grads), strict=True)):
        direction = rng.normal(size=value.shape)
        up, down = (
            slow(*tree.unflatten([*values[:i], value + e * direction, *values[i + 1 :]]))
            for e in (1e-5, -1e-5)
        )
        assert (grad * direction).sum() == pytest.approx((up - down) / 2e-5, rel=1e-6), i


def _seen(name, height, width):
    """Which inputs each output of a layer depends on, [h w h w], by its Jacobian."""
    layer, params, x = _random(name, height, width, batch=1)
    with jax.enable_x64(True):
        see = jax.jit(jax.jacrev(lambda x: layer.apply({"params": params}, x[None])[0]))
        return (np.asarray(see(jax.device_put(x[0]))) != 0).any((2, 5))


@pytest.mark.parametrize("size", some([(4, 5), (5, 3)], [(4, 5)]), ids=str)
def test_one_diagonal_layer_sees_the_whole_past_and_no_future(size, monkeypatch):
    dims = size[0] * size[1]
    seen = _seen("diagonal", *size).reshape(dims, dims)
    np.testing.assert_array_equal(seen, np.tri(dims, dtype=bool))
    # Were the map from the right not moved down, each row would be seen to its end.
    monkeypatch.setattr(lstm, "shift_down", lambda x: x)
    row = np.arange(dims) // size[1]
    np.testing.assert_array_equal(_seen("diagonal", *size).reshape(dims, dims), row[:, None] >= row)


def test_one_row_layer_sees_a_triangle():
    row, column = np.meshgrid(np.arange(4), np.arange(9), indexing="ij")
    up = row[..., None, None] - row
    right = column - column[..., None, None]
    predicted = (up >= 0) & (right >= -up - 1) & (right <= up)
    np.testing.assert_array_equal(_seen("row", 4, 9), predicted)


@pytest.mark.parametrize("blocks, kernel", [(1, 3), (2, 5)])
def test_row_lstm_sees_the_predicted_triangle(blocks, kernel, random_state):
    """The pixels that it does not see, though they are earlier, are those beside the triangle."""
    spec, side = DataSpec(4, 12, 1, 2), kernel // 2
    model = RowLSTM(spec, features=4, blocks=blocks, head=6, first_kernel=kernel)
    params = random_state(model).net.params
    see = jax.jit(lambda x: model.network.apply({"params": params}, x))
    report = check_autoregressive(see, spec.shape, trials=4)
    row, column = np.divmod(np.arange(spec.dims), spec.width)
    up, right = row[:, None] - row, column - column[:, None]
    triangle = (right >= -(side + blocks + up)) & (right <= side - 1 + up)
    earlier = np.tri(spec.dims, k=-1, dtype=bool)
    np.testing.assert_array_equal(report.sees, triangle & earlier)
    assert f"{side + blocks} + d columns to the left and {side - 1} + d" in model.facts()["sees"]
    assert len(report.blind) == (earlier & ~triangle).sum() > 200


def test_skew_lays_the_diagonals_in_rows_and_unskew_undoes_it():
    for height, width in [(3, 5), (5, 3), (1, 4), (4, 1)]:
        x = 1.0 + np.arange(height * width * 2).reshape(height, width, 2)
        skewed, again = jax.device_get(jax.jit(lambda x: ((s := skew(x)), unskew(s)))(x))
        assert len(skewed) == height + width - 1
        for t, row in np.ndindex(skewed.shape[:2]):
            inside = 0 <= t - row < width
            np.testing.assert_array_equal(skewed[t, row], x[row, t - row] if inside else 0)
        np.testing.assert_array_equal(again, x)


@pytest.mark.parametrize("name", MODELS)
def test_pixel_by_pixel_the_features_are_those_of_the_whole_image(name, random_state):
    spec = DataSpec(4, 3, 1, 2, 3)
    model = MODELS[name](spec, features=4, blocks=3, head=6, first_kernel=5)
    variables = {"params": random_state(model).net.params}
    x = np.random.default_rng(0).normal(size=(2, *spec.shape)).astype(np.float32)
    condition = Condition(np.eye(3, dtype=np.float32)[:2])

    @jax.jit
    def features(x):
        return model.network.apply(variables, x, condition, None, method="features")

    @jax.jit
    def row(cache, above, row):
        def run(cache, method, *inputs):
            state = {**variables, "cache": cache}
            return model.network.apply(state, *inputs, condition, method=method, mutable=["cache"])

        _, new = run(cache, "begin_row", above)
        out = []
        for column in range(spec.width):
            left = row[:, column - 1] if column else jnp.zeros_like(row[:, 0])
            pixel, new = run(new["cache"], "pixel", left, jnp.int32(column))
            out.append(pixel)
        return jnp.stack(out, 1), new["cache"]

    above, cache = np.zeros_like(x[:, 0]), {}
    whole = np.asarray(features(x))
    for r in range(spec.height):
        found, cache = row(cache, above, x[:, r])
        np.testing.assert_allclose(found, whole[:, r], rtol=1e-4, atol=1e-5)
        if r == 0:  # as the samplers have it: zeros before there is anything
            nothing = jax.tree.map(np.zeros_like, jax.device_get(cache))
            _, zeros = row(nothing, above, x[:, 0])
            close(cache, zeros, atol=1e-6)
        above = x[:, r]


def test_memory_adds_up_in_bfloat16():
    """1000 times 0.002: bfloat16 would stay at 1, where that is below half the spacing."""
    gates = np.broadcast_to(np.float32([30, 30, 30, 0.002]), (1000, 1, 1, 4))
    states, initial = np.zeros((1, 1, 4), np.float32), np.zeros((2, 1), np.float32)

    @jax.jit
    def run():
        narrow = (x.astype(jnp.bfloat16) for x in (gates, states, initial))
        gate, state, first = map(jnp.asarray, narrow)
        return scan_states(gate, state, 0, first, np.zeros(1, int))

    h = np.asarray(run())
    assert h.dtype == jnp.bfloat16
    assert float(h[-1, 0, 0, 0]) == pytest.approx(np.tanh(2.0), rel=0.01)
