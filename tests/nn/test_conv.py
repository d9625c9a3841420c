"""Convolution, its adjoints and the layers on them: against plain XLA, Flax and loops."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgen.causal.masked import CausalConv, causal_mask, group_bounds
from jaxgen.nn import conv as conv_module
from jaxgen.nn.conv import conv, conv_adjoint, same_padding, weight_gradient
from jaxgen.nn.layers import Conv, ConvTranspose, dropout, halvings, upsample

CASES = [
    ((4, 4), (4, 4), 2),
    ((5, 7), (3, 3), 2),
    ((7, 5), (4, 3), 3),
    ((6, 3), (5, 4), 1),
    ((5, 6), (1, 1), 2),
    ((3, 3), (2, 5), 1),
]


@pytest.fixture(params=["as on a CPU", "as autodiff derives them"])
def form(request, monkeypatch):
    """The adjoints in both forms, whatever device runs the tests."""
    monkeypatch.setattr(conv_module, "_derived", lambda: request.param != "as on a CPU")


in_both_forms = pytest.mark.usefixtures("form")


def _integers(seed, *shapes):
    """Small integers as floats: every sum is exact, in any order."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes]


def _compiled(function, *given):
    """What it returns, as NumPy: one program, traced anew in each form."""
    return jax.tree.map(np.asarray, jax.jit(lambda *given: function(*given))(*given))


def _plain(x, w, stride, padding):
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _shapes(size, kernel, stride):
    x, w = (2, *size, 3), (*kernel, 3, 2)
    out = (2, -(-size[0] // stride), -(-size[1] // stride), 2)
    return x, w, out


@in_both_forms
@pytest.mark.parametrize("size, kernel, stride", CASES)
def test_equals_plain_convolution_and_its_vjp_exactly(size, kernel, stride):
    x, w, g = _integers(0, *_shapes(size, kernel, stride))
    pad = same_padding(size, kernel, stride)

    def both(x, w, g):
        y, pull = jax.vjp(lambda x, w: _plain(x, w, stride, "SAME"), x, w)
        ours = (
            conv(x, w, stride, pad),
            conv_adjoint(g, w, stride, pad, size),
            weight_gradient(x, g, stride, pad, kernel),
        )
        return ours, (y, *pull(g))

    for one, other in zip(*_compiled(both, x, w, g), strict=True):
        np.testing.assert_array_equal(one, other)


@in_both_forms
@pytest.mark.parametrize("pad", [((2, 0), (1, 1)), ((2, -1), (1, 2)), ((1, 2), (-1, 1))])
@pytest.mark.parametrize("size, kernel, stride", CASES[:3])
def test_three_adjoints_are_one_trilinear_form(size, kernel, stride, pad):
    # Uneven padding that no 'SAME' gives: <conv(x, w), g> = <x, conv'(g, w)> = <w, conv''(x, g)>.
    x, w, _ = _integers(1, *_shapes(size, kernel, stride))
    (g,) = _integers(2, jax.eval_shape(lambda: conv(x, w, stride, pad)).shape)

    def maps(x, w, g):
        return (
            conv(x, w, stride, pad),
            conv_adjoint(g, w, stride, pad, size),
            weight_gradient(x, g, stride, pad, kernel),
            _plain(x, w, stride, pad),
        )

    y, dx, dw, plain = _compiled(maps, x, w, g)
    np.testing.assert_array_equal(y, plain)
    assert (y * g).sum() == (x * dx).sum() == (w * dw).sum()


@in_both_forms
@pytest.mark.parametrize("which", ["conv", "conv_adjoint", "weight_gradient"])
@pytest.mark.parametrize("size, kernel, stride", [
    CASES[1], pytest.param(*CASES[2], marks=pytest.mark.slow)
])  # fmt: skip
def test_first_and_second_derivatives(which, size, kernel, stride):
    pad = same_padding(size, kernel, stride)
    shapes = _shapes(size, kernel, stride)

    def adjoint(g, w):
        zeros = jnp.zeros(shapes[0], g.dtype)
        return jax.linear_transpose(lambda x: _plain(x, w, stride, pad), zeros)(g)[0]

    def gradient(x, g):
        zeros = jnp.zeros(shapes[1], g.dtype)
        return jax.linear_transpose(lambda w: _plain(x, w, stride, pad), zeros)(g)[0]

    ours, plain, (a, b) = {
        "conv": (lambda x, w: conv(x, w, stride, pad),
                 lambda x, w: _plain(x, w, stride, pad), (0, 1)),
        "conv_adjoint": (lambda g, w: conv_adjoint(g, w, stride, pad, size), adjoint, (2, 1)),
        "weight_gradient": (
            lambda x, g: weight_gradient(x, g, stride, pad, kernel), gradient, (0, 2)),
    }[which]  # fmt: skip

    def derivatives(f, u, v):
        value = lambda u, v: jnp.sum(jnp.sin(0.3 * f(u, v)))  # noqa: E731
        first = jax.grad(value, (0, 1))
        second = jax.grad(lambda u, v: sum(jnp.sum(jnp.sin(d)) for d in first(u, v)), (0, 1))
        return first(u, v), second(u, v)

    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        u, v = (rng.normal(size=shapes[i]) for i in (a, b))
        found = jax.jit(lambda u, v: derivatives(ours, u, v))(u, v)
        expected = jax.jit(lambda u, v: derivatives(plain, u, v))(u, v)
        assert found[0][0].dtype == jnp.float64
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


def test_a_gradient_of_a_gradient_has_the_quick_form_alone(form, request):
    """Of a network with a curvature, through whose values the second one passes back."""
    if "as on a CPU" not in request.node.name:
        pytest.skip("autodiff chooses its own")
    x, w = _integers(2, (2, 4, 4, 3), (3, 3, 3, 2))
    pad = same_padding((4, 4), (3, 3), 1)

    def penalty(w):
        return (jax.grad(lambda x: jnp.tanh(conv(x, w, 1, pad)).sum())(x) ** 2).sum()

    lowered = jax.jit(jax.grad(penalty)).lower(w).as_text()
    found = [line for line in lowered.splitlines() if "stablehlo.convolution" in line]
    assert len(found) >= 4 and all("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in x for x in found)


@in_both_forms
@pytest.mark.parametrize("size, kernel, stride", CASES)
def test_conv_layer_equals_flax(size, kernel, stride):
    k = kernel[0]
    x, w, b = _integers(4, (2, *size, 3), (k, k, 3, 2), (2,))
    values = {"params": {"kernel": w, "bias": b}}
    ours, flax = Conv(2, k, stride), nn.Conv(2, (k, k), (stride, stride), "SAME")
    both = _compiled(lambda *given: (ours.apply(*given), flax.apply(*given)), values, x)
    np.testing.assert_array_equal(*both)


@in_both_forms
@pytest.mark.parametrize("kernel, stride", [(3, 2), (4, 2), (5, 2), (3, 3), (3, 1)])
def test_transposed_layer_equals_flax_where_they_coincide(kernel, stride):
    x, w, b = _integers(5, (2, 4, 3, 3), (kernel, kernel, 2, 3), (2,))
    values = {"params": {"kernel": w, "bias": b}}
    ours = ConvTranspose(2, kernel, (4 * stride, 3 * stride), stride)
    flax = nn.ConvTranspose(2, (kernel, kernel), (stride, stride), "SAME", transpose_kernel=True)
    both = _compiled(lambda *given: (ours.apply(*given), flax.apply(*given)), values, x)
    np.testing.assert_array_equal(*both)


@in_both_forms
@pytest.mark.parametrize("size", [(5, 7), (6, 7), (8, 8)])
def test_transposed_layer_is_the_vjp_of_the_layer(size):
    small = tuple(-(-s // 2) for s in size)
    x, g, w = _integers(6, (2, *size, 3), (2, *small, 2), (4, 4, 3, 2))
    forward, back = Conv(2, 4, stride=2, use_bias=False), ConvTranspose(3, 4, size, use_bias=False)

    def both(values, x, g):
        _, pull = jax.vjp(lambda x: forward.apply(values, x), x)
        return back.apply(values, g), pull(g)[0]

    np.testing.assert_array_equal(*_compiled(both, {"params": {"kernel": w}}, x, g))


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("kernel, ins, outs, groups", [(3, 3, 6, 3), (5, 7, 5, 3), (1, 4, 4, 2),
                                                       (3, 4, 2, 1)])  # fmt: skip
def test_causal_mask_by_loops(kind, kernel, ins, outs, groups):
    mask = causal_mask(kernel, ins, outs, kind, groups)
    centre = kernel // 2
    assert mask.shape == (centre + 1, ins, outs)
    for tap, i, o in itertools.product(range(centre + 1), range(ins), range(outs)):
        group_in, group_out = i * groups // ins, o * groups // outs
        live = tap < centre or group_in < group_out or (kind == "B" and group_in == group_out)
        assert mask[tap, i, o] == live


@in_both_forms
@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_causal_conv_equals_a_masked_full_kernel(kind, kernel):
    groups, ins, outs, reach = 3, 3, 6, kernel // 2
    x, rows, b = _integers(7, (2, 4, 5, ins), (reach + 1, kernel, ins, outs), (outs,))
    layer = CausalConv(outs, kernel, kind, groups)
    values = {"params": {"kernel": rows, "bias": b}}
    full = np.zeros((kernel, kernel, ins, outs), np.float32)
    full[: reach + 1] = rows
    full[reach, reach:] = 0
    for i, o in itertools.product(range(ins), range(outs)):
        if i * groups // ins < o * groups // outs + (kind == "B"):
            full[reach, reach, i, o] = rows[reach, reach, i, o]

    def whole_and_terms(values, full, x):
        return (
            layer.apply(values, x),
            _plain(x, full, 1, "SAME"),
            layer.bind(values).terms(),
        )

    found, expected, terms = _compiled(whole_and_terms, values, full, x)
    expected = expected + b
    np.testing.assert_array_equal(found, expected)
    # Its terms, as the samplers add them up: the taps before the centre, and the pixel itself.
    padded = np.pad(x, ((0, 0), (reach, 0), (reach, reach), (0, 0)))
    for row, column in [(0, 0), (1, 4), (3, 2)]:
        window = padded[:, row : row + reach + 1, column : column + kernel]
        taps = window.reshape(2, -1, ins)[:, : reach * kernel + reach]
        share = np.einsum("bni,nio->bo", taps, terms.before) + terms.bias
        centre, features = window[:, reach, reach], []
        for group, weights in enumerate(terms.centre):
            assert weights.shape == (group + (kind == "B"), 2)  # one feature a group comes in
            features.append(centre[:, : len(weights)] @ weights)
        pixel = share + np.concatenate(features, -1)
        np.testing.assert_array_equal(pixel, expected[:, row, column])


@pytest.mark.parametrize("features,groups", [(7, 3), (6, 3), (64, 1), (4, 3)])
def test_group_bounds(features, groups):
    group = np.arange(features) * groups // features
    for g in range(groups):
        start, stop = group_bounds(features, groups, g)
        np.testing.assert_array_equal(np.flatnonzero(group == g), np.arange(start, stop))


@in_both_forms
def test_causal_conv_keeps_the_variance(key):
    # Unit inputs give unit outputs, although half of the kernel is masked away.
    x = np.random.default_rng(1).normal(size=(4, 24, 24, 32)).astype(np.float32)
    y = _compiled(lambda *given: CausalConv(512, 3, "B", 1).init_with_output(*given)[0], key, x)
    assert abs(y[:, 2:, 2:-2].var() - 1) < 0.1


def test_halvings_and_upsample():
    assert halvings(28, 28) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert halvings(8, 8) == [(8, 8), (4, 4), (2, 2)]
    assert halvings(5, 17) == [(5, 17), (3, 9), (2, 5)]
    (x,) = _integers(8, (1, 2, 3, 2))
    up = _compiled(lambda x: upsample(x, (3, 5)), x)
    for row, column in itertools.product(range(3), range(5)):
        np.testing.assert_array_equal(up[:, row, column], x[:, row // 2, column // 2])
    assert up.shape == (1, 3, 5, 2)


def test_dropout_by_example():
    x = np.ones((6, 50, 40), np.float32)

    def parts(x):
        keys = lambda *ids: jax.vmap(jax.random.key)(jnp.array(ids))  # noqa: E731
        return (
            dropout(keys(0, 1, 2, 3, 4, 5), x, 0.3),
            dropout(keys(0, 1), x[:2], 0.3),
            dropout(keys(2, 3, 4, 5), x[2:], 0.3),
        )

    y, *halves = _compiled(parts, x)
    np.testing.assert_array_equal(np.concatenate(halves), y)
    np.testing.assert_allclose(np.unique(y), [0.0, 1 / 0.7], rtol=1e-6)
    kept = (y > 0).mean()
    assert abs(kept - 0.7) < 5 * (0.3 * 0.7 / y.size) ** 0.5
    assert (y[0] != y[1]).any()
    np.testing.assert_array_equal(dropout(None, x, 0.3), x)
