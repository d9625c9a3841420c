"""What the networks are built of, each written out once more by its paper's formula: a nonlinearity
that is left out breaks no law of densities, and would go unnoticed elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.causal import pyramid
from jaxgen.causal.condition import NOTHING
from jaxgen.causal.lstm import RowLayer
from jaxgen.causal.masked import CausalConv
from jaxgen.causal.streamed_layers import Head
from jaxgen.distributions.likelihoods import Categorical
from jaxgen.models.autoregressive import gated_pixelcnn, pixelcnn, pixelrnn, pixelsnail
from jaxgen.nn.layers import concat_elu, gate

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5, 6)), jnp.float32)


def bound(module, *inputs, **kwargs):
    """The module with random parameters, biases included, and what it makes of the inputs."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kwargs))
    rng = np.random.default_rng(1)
    values = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.4, s.dtype), shapes)
    return module.bind(values), module.apply(values, *inputs, **kwargs)


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def relu(x):
    return jnp.maximum(x, 0)


def gated(x, h):
    """x, and one half of h behind the other."""
    content, opening = np.split(np.asarray(h), 2, -1)
    return x + content / (1 + np.exp(-opening))


def test_gates():
    content, opening = np.split(np.asarray(X), 2, -1)
    same(gate(X), np.tanh(content) / (1 + np.exp(-opening)))
    both = np.concatenate([X, -X], -1)
    same(concat_elu(X), np.where(both > 0, both, np.expm1(both)))


@pytest.mark.parametrize("groups", [1, 3])
def test_pixelcnn(groups):
    """van den Oord et al. 2016, arXiv:1601.06759, figure 5; and the plain block."""
    run = lambda layer, x: layer(x)  # noqa: E731
    block = pixelcnn.ResidualBlock(3, 3, groups, 0.0)
    net, found = bound(block, X, NOTHING, run, None)
    same(found, X + net.up(relu(net.causal(relu(net.down(relu(X)))))))
    net, found = bound(pixelcnn.PlainBlock(6, 3, groups, 0.0), X, NOTHING, run, None)
    same(found, net.causal(relu(X)))


def test_pixelcnn_ends_in_two_layers():
    net = pixelcnn.PixelCNNNet("residual", 3, 1, 4, 3, 3, 1, 2, 0.0, False)
    net, found = bound(net, X[..., :1], NOTHING)
    h = net.features(X[..., :1], NOTHING)
    same(found, net.out(relu(net.hidden(relu(h)))).reshape(found.shape))


@pytest.mark.parametrize("residual", [True, False])
def test_gated_pixelcnn(residual):
    """van den Oord et al. 2016, arXiv:1606.05328, figure 2."""
    block = gated_pixelcnn.GatedBlock(6, 3, 0.0, residual)

    def both(net, x):
        v, link = net.vertical(x, NOTHING, by_row=False)
        return v, link, net.horizontal(x, link, NOTHING, None, None)

    net, (v, link, h) = bound(block, X, method=both)
    same(v, gate(net.down(X)))
    same(link, net.link(net.down(X)))
    same(h, residual * X + net.out(gate(net.right(X) + link)))


def test_pixelrnn():
    net, found = bound(pixelrnn.Block(3, RowLayer, 0.0), X, NOTHING, None)
    same(found, X + net.up(net.lstm(X)))


def test_pixelsnail():
    """The layer of PixelCNN++, with what is attended to between the convolutions."""
    aside = jnp.flip(X[..., :2], 1)
    layer = pixelsnail.GatedResidual(6, 2, 0.0)
    net, found = bound(layer, X, NOTHING, None, None, aside)
    h = net.first(concat_elu(X)) + net.link(concat_elu(aside))
    same(found, gated(X, net.second(concat_elu(h))))


@pytest.mark.parametrize("stream", ["above", "left"])
def test_pixelcnnpp(stream):
    """Salimans et al. 2017, arXiv:1701.05517, section 2.3."""
    above, skip = jnp.flip(X, 1), jnp.flip(X, 2)
    block = pyramid.GatedBlock(6, stream, 0.0)
    net, found = bound(block, X, pyramid.Whole(), NOTHING, None, above, skip)
    h = net.first(concat_elu(X)) + net.link(concat_elu(above)) + net.shortcut(concat_elu(skip))
    same(found, gated(X, net.second(concat_elu(h))))


def test_heads():
    """A hidden layer for each channel, which sees the values of those before it."""
    rng, levels = np.random.default_rng(2), Categorical(4)
    x = jnp.asarray(rng.uniform(-1, 1, (2, 4, 5, 3)), jnp.float32)
    net, found = bound(Head(7, 3, levels), X, x)
    params = jax.tree.map(np.asarray, net.variables["params"])
    h = np.maximum(np.asarray(X), 0) @ params["features"]["kernel"] + params["features"]["bias"]
    for channel in range(3):
        own = h[..., 7 * channel : 7 * (channel + 1)]
        for earlier in range(channel):
            own = own + np.asarray(x)[..., earlier, None] * params["before"][channel, earlier]
        out = np.maximum(own, 0) @ params["kernel"][channel] + params["bias"][channel]
        same(found[..., channel, :], out)


@pytest.mark.parametrize(("kind", "groups"), [("A", 1), ("B", 1), ("A", 3), ("B", 3)])
def test_a_causal_convolution_begins_with_the_variance_of_its_input(kind, groups):
    """By the taps that are live, of which a group has more or less than others."""
    x = jax.random.normal(jax.random.key(0), (4, 24, 24, 12))
    layer = CausalConv(60, 5, kind, groups)
    y = layer.apply(layer.init(jax.random.key(1), x), x)[:, 4:, 4:-4]
    assert abs(np.var(y) - 1) < 0.05
