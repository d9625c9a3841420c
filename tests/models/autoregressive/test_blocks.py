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

X = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)


def formula(module, *inputs, **kwargs):
    """Checks the decorated formula of (the module with random parameters, biases included; what it
    makes of the inputs): pairs of what was found and what is expected."""

    def check(pairs):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kwargs))
        rng = np.random.default_rng(1)
        fill = lambda s: np.asarray(rng.normal(size=s.shape) * 0.4, s.dtype)  # noqa: E731
        values = jax.tree.map(fill, shapes)

        @jax.jit
        def both():
            return list(pairs(module.bind(values), module.apply(values, *inputs, **kwargs)))

        for found, expected in both():
            same(found, expected)

    return check


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def relu(x):
    return jnp.maximum(x, 0)


def gated(x, h):
    """x, and one half of h behind the other."""
    content, opening = jnp.split(h, 2, -1)
    return x + content / (1 + jnp.exp(-opening))


def test_gates():
    content, opening = np.split(X, 2, -1)
    same(jax.jit(gate)(X), np.tanh(content) / (1 + np.exp(-opening)))
    both = np.concatenate([X, -X], -1)
    same(jax.jit(concat_elu)(X), np.where(both > 0, both, np.expm1(both)))


@pytest.mark.parametrize("groups", [1, 3])
def test_pixelcnn(groups):
    """van den Oord et al. 2016, arXiv:1601.06759, figure 5; and the plain block."""
    run = lambda layer, x: layer(x)  # noqa: E731

    @formula(pixelcnn.ResidualBlock(3, 3, groups, 0.0), X, NOTHING, run, None)
    def _(net, found):
        yield found, X + net.up(relu(net.causal(relu(net.down(relu(X))))))

    @formula(pixelcnn.PlainBlock(6, 3, groups, 0.0), X, NOTHING, run, None)
    def _(net, found):
        yield found, net.causal(relu(X))


def test_pixelcnn_ends_in_two_layers():
    x = X[..., :1]

    @formula(pixelcnn.PixelCNNNet("residual", 3, 1, 4, 3, 3, 1, 2, 0.0, False), x, NOTHING)
    def _(net, found):
        h = net.features(x, NOTHING)
        yield found, net.out(relu(net.hidden(relu(h)))).reshape(found.shape)


@pytest.mark.parametrize("residual", [True, False])
def test_gated_pixelcnn(residual):
    """van den Oord et al. 2016, arXiv:1606.05328, figure 2."""
    block = gated_pixelcnn.GatedBlock(6, 3, 0.0, residual)

    def both(net, x):
        v, link = net.vertical(x, NOTHING, by_row=False)
        return v, link, net.horizontal(x, link, NOTHING, None, None)

    @formula(block, X, method=both)
    def _(net, found):
        v, link, h = found
        yield v, gate(net.down(X))
        yield link, net.link(net.down(X))
        yield h, residual * X + net.out(gate(net.right(X) + link))


def test_pixelrnn():

    @formula(pixelrnn.Block(3, RowLayer, 0.0), X, NOTHING, None)
    def _(net, found):
        yield found, X + net.up(net.lstm(X))


def test_pixelsnail():
    """The layer of PixelCNN++, with what is attended to between the convolutions."""
    aside = np.flip(X[..., :2], 1)

    @formula(pixelsnail.GatedResidual(6, 2, 0.0), X, NOTHING, None, None, aside)
    def _(net, found):
        h = net.first(concat_elu(X)) + net.link(concat_elu(aside))
        yield found, gated(X, net.second(concat_elu(h)))


@pytest.mark.parametrize("stream", ["above", "left"])
def test_pixelcnnpp(stream):
    """Salimans et al. 2017, arXiv:1701.05517, section 2.3."""
    above, skip = np.flip(X, 1), np.flip(X, 2)
    block = pyramid.GatedBlock(6, stream, 0.0)

    @formula(block, X, pyramid.Whole(), NOTHING, None, above, skip)
    def _(net, found):
        h = net.first(concat_elu(X)) + net.link(concat_elu(above)) + net.shortcut(concat_elu(skip))
        yield found, gated(X, net.second(concat_elu(h)))


def test_heads():
    """A hidden layer for each channel, which sees the values of those before it."""
    rng, levels = np.random.default_rng(2), Categorical(4)
    x = rng.uniform(-1, 1, (2, 4, 5, 3)).astype(np.float32)

    @formula(Head(7, 3, levels), X, x)
    def _(net, found):
        params = jax.tree.map(np.asarray, net.variables["params"])  # as numbers
        h = np.maximum(X, 0) @ params["features"]["kernel"] + params["features"]["bias"]
        for channel in range(3):
            own = h[..., 7 * channel : 7 * (channel + 1)]
            for earlier in range(channel):
                own = own + x[..., earlier, None] * params["before"][channel, earlier]
            out = np.maximum(own, 0) @ params["kernel"][channel] + params["bias"][channel]
            yield found[..., channel, :], out


@pytest.mark.parametrize(("kind", "groups"), [("A", 1), ("B", 1), ("A", 3), ("B", 3)])
def test_a_causal_convolution_begins_with_the_variance_of_its_input(kind, groups):
    """By the taps that are live, of which a group has more or less than others."""
    x = np.random.default_rng(0).normal(size=(4, 24, 24, 12)).astype(np.float32)
    layer = CausalConv(60, 5, kind, groups)
    y, _ = jax.jit(layer.init_with_output)(jax.random.key(1), x)
    assert abs(np.var(np.asarray(y)[:, 4:, 4:-4]) - 1) < 0.05
