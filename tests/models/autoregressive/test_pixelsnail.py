"""PixelSNAIL: its attention, what it sees, and the keys and values that its sampler keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.causal import attention
from jaxgen.causal.attention import attend
from jaxgen.causal.check import check_autoregressive
from jaxgen.causal.condition import Condition
from jaxgen.causal.samplers import Draw, run_cached
from jaxgen.errors import UserError
from jaxgen.models.autoregressive.pixelsnail import PixelSNAIL
from jaxgen.spec import DataSpec

SMALL = {"features": 4, "blocks": 1, "layers": 1, "attention": 4, "head": 6, "dropout": 0.0}


def _bound(model, random_state):
    return model.network.bind({"params": random_state(model).net.params})


def _attend_slowly(q, k, v):
    """One place, one head at a time."""
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for b, place, head in np.ndindex(q.shape[:3]):
        scores = [q[b, place, head] @ k[b, i, head] / q.shape[-1] ** 0.5 for i in range(place + 1)]
        weights = np.exp(scores - np.max(scores))
        out[b, place, head] = weights / weights.sum() @ v[b, : place + 1, head]
    return out


@pytest.mark.parametrize("queries", [10, 4], ids=["whole", "in three parts, the last not full"])
def test_attention_is_its_sum(queries, monkeypatch):
    monkeypatch.setattr(attention, "QUERIES", queries)
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 10, 3, size)) for size in (5, 5, 4))
    out = jax.jit(attend)(*(np.float32(3 * x) for x in (q, k, v)))
    np.testing.assert_allclose(out, _attend_slowly(3 * q, 3 * k, 3 * v), atol=2e-5)


def _gradient(queries, monkeypatch, images, places):
    """Of the sum of the squares of what is attended to, compiled."""
    monkeypatch.setattr(attention, "QUERIES", queries)

    def loss(qkv):
        return (attend(*qkv) ** 2).sum()

    qkv = np.random.default_rng(0).normal(size=(3, images, places, 2, 4)).astype(np.float32)
    return jax.jit(jax.grad(loss)).lower(qkv).compile(), qkv


def test_attention_in_parts_has_the_same_gradient(monkeypatch):
    (whole, qkv), (parts, _) = (_gradient(n, monkeypatch, 2, 30) for n in (30, 7))
    np.testing.assert_allclose(parts(qkv), whole(qkv), rtol=1e-4, atol=1e-5)


def test_attention_in_parts_needs_less_memory(monkeypatch):
    """At 28x28, by XLA's count."""
    compiled = [_gradient(n, monkeypatch, 16, 784)[0] for n in (784, attention.QUERIES)]
    whole, parts = (c.memory_analysis().temp_size_in_bytes for c in compiled)
    assert parts < 0.25 * whole


@pytest.mark.parametrize("layers, first_kernel", [(0, 5), (1, 3)])
def test_sees_the_whole_past_thanks_to_attention(layers, first_kernel, random_state):
    """Without it, what the convolutions reach, and that alone."""
    model = PixelSNAIL(
        DataSpec(6, 6, 1, 4), **{**SMALL, "layers": layers, "first_kernel": first_kernel}
    )
    params = random_state(model).net.params
    network = jax.jit(lambda p, x: model.network.apply({"params": p}, x))
    report = check_autoregressive(lambda x: network(params, x), (6, 6, 1))
    assert report.is_autoregressive, report
    assert not report.blind and report.nan_outputs == 0, report
    link = params["stack_0"]["merge"]["link"]
    deaf = {**params, "stack_0": {**params["stack_0"]}}
    deaf["stack_0"]["merge"] = {
        **params["stack_0"]["merge"],
        "link": jax.tree.map(np.zeros_like, jax.device_get(link)),
    }
    report = check_autoregressive(lambda x: network(deaf, x), (6, 6, 1), trials=4)
    np.testing.assert_array_equal(report.sees, _reach(6, layers, first_kernel // 2))


def _reach(side, layers, first):
    """[output input]: what the first layer sees from where the 2x2 convolutions reach."""
    sees = np.zeros((side,) * 4, bool)
    for r, c, up, left in np.ndindex(side, side, 2 * layers + 1, 2 * layers + 1):
        at_row, at_column = r - up, c - left
        if at_row < 0 or at_column < 0:
            continue
        columns = slice(max(at_column - first, 0), at_column + first + 1)
        sees[r, c, max(at_row - first, 0) : at_row, columns] = True
        sees[r, c, at_row, max(at_column - first, 0) : at_column] = True
    return sees.reshape(side**2, side**2)


def test_features_from_kept_keys_and_values_equal_the_whole_pass(random_state):
    """Two blocks, three channels, labels; every pixel is known, and what is recorded of each draw
    is the distribution that it was drawn from."""
    spec = DataSpec(4, 5, 3, 4, 3)
    network = _bound(PixelSNAIL(spec, **{**SMALL, "blocks": 2}), random_state)
    image = np.random.default_rng(0).integers(4, size=(2, *spec.shape)).astype(np.uint8)
    condition = Condition(np.eye(3, dtype=np.float32)[[0, 2]])
    draw = Draw(
        noise=lambda positions: jnp.zeros((len(positions), 2)),
        pick=lambda state, noise, params: (state, jnp.zeros(2), params),
    )

    @jax.jit
    def both():
        known = jnp.ones(image.shape, bool)
        _, _, streamed = run_cached(network, spec, draw, image, known, condition)
        return streamed.transpose(3, 0, 1, 2, 4), network(spec.to_float(image), condition)

    streamed, whole = jax.device_get(both())
    assert np.std(whole) > 0.1
    # Of numbers up to 13, whose sums are taken in another order.
    np.testing.assert_allclose(streamed, whole, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"attention": 16, "heads": 3}, "`heads`=3 must divide `attention`=16"),
        ({"heads": 0}, "`heads` must be at least 1"),
        ({"attention": 0}, "`attention` must be at least 1"),
        ({"kernel": 0}, "`kernel` must be at least 1"),
        ({"blocks": 0}, "`blocks` must be at least 1"),
        ({"layers": -1}, "`layers` must not be negative"),
        ({"first_kernel": 4}, "`first_kernel` must be odd and at least 3"),
    ],
)
def test_impossible_fields_are_told(fields, told):
    with pytest.raises(UserError, match=told):
        PixelSNAIL(DataSpec(8, 8, 1, 17), **fields)


def test_attention_is_told_where_each_place_is(random_state, monkeypatch):
    """Row and column from -1/2 to 1/2 (the paper's section 2.3), which nothing else tells it."""
    model = PixelSNAIL(DataSpec(3, 4, 1, 5), **SMALL)
    params = random_state(model).net.params

    def run(method, *given):
        """Compiled each time, with the method as it then is."""
        net = model.network.bind({"params": params})
        return np.asarray(jax.jit(lambda: getattr(net, method)(*given))())

    where = run("_where", jnp.float32)
    np.testing.assert_allclose(where[:, 0, 0], [-1 / 3, 0, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(where[0, :, 1], [-0.375, -0.125, 0.125, 0.375])
    x = np.zeros((1, 3, 4, 1), np.float32)
    whole = run("__call__", x)
    monkeypatch.setattr(type(model.network), "_where", lambda self, dtype: 0 * where)
    assert np.abs(run("__call__", x) - whole).max() > 1e-4
