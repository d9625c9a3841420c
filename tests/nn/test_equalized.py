"""Equalized layers, pixel norm and the deviation within groups, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxgen.nn.equalized import EqualizedConv, EqualizedDense, minibatch_deviation, pixel_norm


def normal(*shape):
    return jax.random.normal(jax.random.key(0), shape)


def made(layer, x):
    return layer.init(jax.random.key(1), x)


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_dense_starts_with_the_gain_and_learns_at_the_rate(rate):
    x = normal(4000, 50)
    layer = EqualizedDense(30, gain=2.0**0.5, rate=rate, bias=0.25)
    variables = made(layer, x)
    y = layer.apply(variables, x)
    # 120,000 outputs that share 1,500 weights: their variance is known to some 4 %.
    assert abs(float((y - 0.25).var()) - 2.0) < 0.25
    assert abs(float(variables["params"]["kernel"].std()) * rate - 1.0) < 0.1
    plain = nn.Dense(30)
    weights = {
        "kernel": variables["params"]["kernel"] * rate * (2.0 / 50) ** 0.5,
        "bias": variables["params"]["bias"] * rate,
    }
    np.testing.assert_allclose(y, plain.apply({"params": weights}, x), rtol=1e-4, atol=1e-4)
    of_stored = jax.grad(lambda v: (layer.apply(v, x) ** 2).sum())(variables)["params"]
    of_used = jax.grad(lambda v: (plain.apply({"params": v}, x) ** 2).sum())(weights)
    # The gradient of what is stored is that of what is used, times the constant between them.
    np.testing.assert_allclose(
        of_stored["kernel"], of_used["kernel"] * rate * (2.0 / 50) ** 0.5, rtol=1e-3, atol=1e-2
    )
    np.testing.assert_allclose(of_stored["bias"], of_used["bias"] * rate, rtol=1e-3, atol=1e-2)


def test_conv_is_a_convolution_with_scaled_weights():
    x = normal(3, 5, 6, 4)
    layer = EqualizedConv(7, 3, gain=1.5)
    variables = made(layer, x)
    scaled = {
        "kernel": variables["params"]["kernel"] * 1.5 / 36**0.5,
        "bias": variables["params"]["bias"],
    }
    expected = nn.Conv(7, (3, 3)).apply({"params": scaled}, x)
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def test_pixel_norm_has_a_mean_square_of_one():
    x = 3.0 * normal(2, 3, 3, 8) + 1.0
    y = pixel_norm(x)
    np.testing.assert_allclose((y**2).mean(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(
        y * jnp.abs(x).max(-1, keepdims=True) / jnp.abs(y).max(-1, keepdims=True), x, rtol=1e-4
    )
    assert np.isfinite(jax.grad(lambda x: pixel_norm(x).sum())(jnp.zeros((1, 1, 1, 4)))).all()


def test_minibatch_deviation():
    x = normal(8, 3, 3, 5)
    y = minibatch_deviation(x, 4)
    np.testing.assert_array_equal(y[..., :-1], x)
    for first in (0, 4):
        expected = np.asarray(x[first : first + 4]).std(0).mean()
        np.testing.assert_allclose(y[first : first + 4, ..., -1], expected, rtol=1e-5)
    # Who comes where in a group does not matter, and equals vary by nothing.
    shuffled = minibatch_deviation(x[jnp.array([2, 0, 3, 1, 4, 5, 6, 7])], 4)
    np.testing.assert_allclose(shuffled[0, 0, 0, -1], y[0, 0, 0, -1], rtol=1e-6)
    same = minibatch_deviation(jnp.repeat(x[:1], 4, 0), 4)
    np.testing.assert_allclose(same[..., -1], 1e-4, rtol=1e-3)
    gradient = jax.grad(lambda x: minibatch_deviation(x, 4)[..., -1].sum())(jnp.ones((4, 2, 2, 3)))
    assert np.isfinite(gradient).all()
