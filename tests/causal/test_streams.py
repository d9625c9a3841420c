"""Layers that run on whole images, and pixel by pixel with the same result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgen.causal.streamed_layers import DownRightConv

HEIGHT, WIDTH, FEATURES = 4, 5, 3
kernels = pytest.mark.parametrize("rows, columns", [(2, 2), (3, 1), (1, 2), (3, 3)])


def _layer(rows, columns):
    layer = DownRightConv(4, rows, columns)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, HEIGHT, WIDTH, FEATURES)).astype(np.float32)
    kernel = rng.normal(size=(rows, columns, FEATURES, 4)).astype(np.float32)
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.arange(4.0)}
    return layer, {"params": params}, jnp.asarray(x)


def _streamed(layer, variables, x):
    """The layer's outputs [b h w o], each from one pixel and what the layer remembers."""
    batch, height, width, _ = x.shape

    def begin(cache):
        inputs = {**variables, "cache": cache}, batch, width
        return layer.apply(*inputs, method="begin_row", mutable=["cache"])[1].get("cache", {})

    def pixel(cache, now):
        x, column = now
        out, new = layer.apply({**variables, "cache": cache}, x, column, mutable=["cache"])
        return new.get("cache", {}), out

    def row(cache, x):
        return lax.scan(pixel, begin(cache), (x, jnp.arange(width)))

    cache = jax.eval_shape(lambda: pixel(begin({}), (x[:, 0, 0], jnp.int32(0)))[0])
    cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), cache)
    return lax.scan(row, cache, x.transpose(1, 2, 0, 3))[1].transpose(2, 0, 1, 3)


@kernels
def test_down_right_convolution_is_its_sum_whole_and_streamed(rows, columns):
    layer, variables, x = _layer(rows, columns)
    kernel = np.asarray(variables["params"]["kernel"], np.float64)
    expected = np.zeros((2, HEIGHT, WIDTH, 4)) + np.arange(4.0)
    for r, c, up, left in np.ndindex(HEIGHT, WIDTH, rows, columns):
        if r >= up and c >= left:
            seen = np.asarray(x[:, r - up, c - left], np.float64)
            expected[:, r, c] += seen @ kernel[rows - 1 - up, columns - 1 - left]
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)
    streamed = jax.jit(lambda x: _streamed(layer, variables, x))(x)
    np.testing.assert_allclose(streamed, expected, atol=1e-5)


@kernels
def test_down_right_convolution_sees_its_reach_and_nothing_else(rows, columns):
    layer, variables, x = _layer(rows, columns)

    def total(x):
        return layer.apply(variables, x[None])[0].sum(-1)

    seen = np.abs(np.asarray(jax.jit(jax.jacrev(total))(x[0]))).sum(-1) != 0
    r, c, r2, c2 = np.ogrid[:HEIGHT, :WIDTH, :HEIGHT, :WIDTH]
    up, left = r - r2, c - c2
    np.testing.assert_array_equal(seen, (up >= 0) & (up < rows) & (left >= 0) & (left < columns))
