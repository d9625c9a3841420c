"""Equalized layers, pixel norm and the deviation within groups, against their definitions."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxgen.nn.equalized import EqualizedConv, EqualizedDense, minibatch_deviation, pixel_norm


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_dense_starts_with_the_gain_and_learns_at_the_rate(rate):
    x = normal(4000, 50)
    layer, plain = EqualizedDense(30, gain=2.0**0.5, rate=rate, bias=0.25), nn.Dense(30)

    def values_and_slopes(layer, variables):
        value = lambda v: layer.apply(v, x)  # noqa: E731
        return value(variables), jax.grad(lambda v: (value(v) ** 2).sum())(variables)["params"]

    @jax.jit
    def run(key):
        variables = layer.init(key, x)
        weights = {
            "kernel": variables["params"]["kernel"] * rate * (2.0 / 50) ** 0.5,
            "bias": variables["params"]["bias"] * rate,
        }
        ours = values_and_slopes(layer, variables)
        return variables["params"], ours, values_and_slopes(plain, {"params": weights})

    made, (y, of_stored), (expected, of_used) = jax.tree.map(np.asarray, run(jax.random.key(1)))
    # 120,000 outputs that share 1,500 weights: their variance is known to some 4 %.
    assert abs((y - 0.25).var() - 2.0) < 0.25
    assert abs(made["kernel"].std() * rate - 1.0) < 0.1
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    # The gradient of what is stored is that of what is used, times the constant between them.
    np.testing.assert_allclose(
        of_stored["kernel"], of_used["kernel"] * rate * (2.0 / 50) ** 0.5, rtol=1e-3, atol=1e-2
    )
    np.testing.assert_allclose(of_stored["bias"], of_used["bias"] * rate, rtol=1e-3, atol=1e-2)


def test_conv_is_a_convolution_with_scaled_weights():
    x = normal(3, 5, 6, 4)
    layer = EqualizedConv(7, 3, gain=1.5)

    @jax.jit
    def both(key):
        variables = layer.init(key, x)
        scaled = {
            "kernel": variables["params"]["kernel"] * 1.5 / 36**0.5,
            "bias": variables["params"]["bias"],
        }
        plain = nn.Conv(7, (3, 3)).apply({"params": scaled}, x)
        return layer.apply(variables, x), plain

    np.testing.assert_allclose(*both(jax.random.key(1)), atol=1e-5)


def test_pixel_norm_has_a_mean_square_of_one():
    x = 3.0 * normal(2, 3, 3, 8) + 1.0
    y = np.asarray(jax.jit(pixel_norm)(x))
    np.testing.assert_allclose((y**2).mean(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(
        y * np.abs(x).max(-1, keepdims=True) / np.abs(y).max(-1, keepdims=True), x, rtol=1e-4
    )
    slope = jax.jit(jax.grad(lambda x: pixel_norm(x).sum()))
    assert np.isfinite(slope(np.zeros((1, 1, 1, 4), np.float32))).all()


def test_minibatch_deviation():
    x = normal(8, 3, 3, 5)
    run = jax.jit(minibatch_deviation, static_argnums=1)
    y = np.asarray(run(x, 4))
    np.testing.assert_array_equal(y[..., :-1], x)
    for first in (0, 4):
        expected = x[first : first + 4].std(0).mean()
        np.testing.assert_allclose(y[first : first + 4, ..., -1], expected, rtol=1e-5)
    # Who comes where in a group does not matter, and equals vary by nothing.
    shuffled = np.asarray(run(x[[2, 0, 3, 1, 4, 5, 6, 7]], 4))
    np.testing.assert_allclose(shuffled[0, 0, 0, -1], y[0, 0, 0, -1], rtol=1e-6)
    same = np.asarray(run(x[:1].repeat(8, 0), 4))
    np.testing.assert_allclose(same[..., -1], 1e-4, rtol=1e-3)
    slope = jax.jit(jax.grad(lambda x: minibatch_deviation(x, 4)[..., -1].sum()))
    assert np.isfinite(slope(np.ones((4, 2, 2, 3), np.float32))).all()
