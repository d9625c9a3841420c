"""Residual networks: blocks against naive ones, sizes, and gradients of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from networks import filled

from jaxgen.errors import UserError
from jaxgen.losses.penalties import gradient_penalty
from jaxgen.models.adversarial.gan import GAN
from jaxgen.nn.resnet import Block, ResNetDiscriminator, ResNetGenerator, residual_sizes
from jaxgen.spec import DataSpec

RNG = np.random.default_rng(0)


def _conv(x, layer):
    """'SAME' convolution of an odd kernel, by SciPy, image by image in float64."""
    kernel = np.asarray(layer["kernel"], np.float64)
    y = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for b in range(len(x)):
        for i in range(kernel.shape[2]):
            for o in range(kernel.shape[3]):
                y[b, ..., o] += scipy.signal.correlate2d(x[b, ..., i], kernel[..., i, o], "same")
    return y + np.asarray(layer["bias"])


def _moved(x, resample):
    if resample == "up":
        return np.kron(x, np.ones((1, 2, 2, 1)))
    if resample == "down":
        places = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return sum(places) / 4
    return x


@pytest.mark.parametrize(
    "resample, features, first",
    [("up", 3, False), ("down", 3, False), ("down", 3, True), ("none", 2, False)],
)
def test_a_block_is_the_naive_one(resample, features, first):
    """As figure and table of the papers have it: pixels are doubled before both paths, averaged
    after them, and the shortcut's 1x1 convolution sees doubled maps, or is averaged."""
    block = Block(features=features, resample=resample, norm="none", first=first)
    x = RNG.normal(size=(2, 4, 6, 2))
    shapes = jax.eval_shape(block.init, jax.random.key(0), np.zeros(x.shape))
    params = jax.tree.map(lambda s: RNG.normal(size=s.shape), shapes)["params"]
    h = x if first else np.maximum(x, 0)
    if resample == "up":
        h = _moved(h, "up")
    h = _conv(np.maximum(_conv(h, params["Conv_0"]), 0), params["Conv_1"])
    if resample == "down":
        h = _moved(h, "down")
    skip = x
    if resample == "up":
        skip = _conv(_moved(x, "up"), params["Conv_2"])
    elif resample == "down":
        skip = _moved(_conv(x, params["Conv_2"]), "down")
    assert len(params) == (2 if resample == "none" else 3)
    given = jax.tree.map(np.float32, ({"params": params}, x))
    found = jax.jit(block.apply)(*given)
    np.testing.assert_allclose(found, h + skip, rtol=1e-4, atol=1e-4)


def test_the_last_features_are_summed_over_places():
    """An image beside itself, where the borders do not matter, has twice the features."""
    network = ResNetDiscriminator(filters=2, norm="none")
    x = np.tile(RNG.normal(size=(1, 1, 1, 1)), (2, 8, 16, 1)).astype(np.float32)

    def middle(leaf):
        """Kernels of 3x3 that are 0 but for their middle see no border."""
        if leaf.shape[:-2] != (3, 3):
            return leaf
        return leaf * np.pad(np.float32([[1]]), 1)[..., None, None]

    values = jax.tree.map(middle, filled(network, x))
    see = jax.jit(lambda x: network.apply(values, x, features=True))
    np.testing.assert_allclose(see(x), 2 * np.asarray(see(x[:, :, :8])), rtol=1e-5)


def test_sizes_halve_to_four_or_are_refused():
    assert residual_sizes(32, 32) == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert residual_sizes(8, 12) == [(8, 12), (4, 6)]
    for height, width, told in [
        (28, 28, "--size=16 or --size=32"), (4, 4, "--size=8"), (16, 18, "--size=16 or --size=32"),
        (48, 48, "--size=32 or --size=64"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=f"until the smaller side is 4.*{told}"):
            GAN(DataSpec(height, width), architecture="resnet")


def test_features_are_those_of_the_paper_at_128_pixels():
    """Miyato et al. 2018: 1024 at 4x4, halved from 8x8 up, 64 at full size; D the other way."""
    given = jax.random.key(0), np.zeros((1, 128))
    maker = ResNetGenerator(shape=(128, 128, 3), filters=64)
    g = jax.eval_shape(maker.init, *given)["params"]
    assert g["Dense_0"]["kernel"].shape == (128, 4 * 4 * 1024)
    widths = [g[f"Block_{i}"]["Conv_1"]["kernel"].shape[-1] for i in range(5)]
    assert widths == [1024, 512, 256, 128, 64]
    judge = ResNetDiscriminator(filters=64)
    d = jax.eval_shape(judge.init, given[0], np.zeros((1, 128, 128, 3)))["params"]
    widths = [d[f"Block_{i}"]["Conv_1"]["kernel"].shape[-1] for i in range(6)]
    assert widths == [64, 128, 256, 512, 1024, 1024] and d["Dense_0"]["kernel"].shape == (1024, 1)


def test_the_penalty_on_slopes_has_its_gradient():
    """Second derivatives, against differences of the penalty along a random direction."""
    with jax.enable_x64(True):  # so small a step that no rectifier switches on its way
        network = ResNetDiscriminator(filters=2, norm="none")
        real, fake = (RNG.normal(size=(2, 8, 8, 1)) for _ in range(2))
        params = jax.tree.map(np.float64, filled(network, real)["params"])

        def penalty(params):
            judge = lambda x: network.apply({"params": params}, x)  # noqa: E731
            return gradient_penalty(judge, real, fake, jnp.array([0.3, 0.6])).mean()

        way = jax.tree.map(lambda p: RNG.normal(size=p.shape), params)
        at = jax.jit(lambda s: penalty(jax.tree.map(lambda p, w: p + s * w, params, way)))
        slope, step = jax.jit(jax.grad(at))(0.0), 1e-6
        assert abs(slope) > 1e-3
        np.testing.assert_allclose((at(step) - at(-step)) / (2 * step), slope, rtol=1e-4)
