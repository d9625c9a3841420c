"""Networks between images: sizes, normalization by formula, and what each place sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn.translation import InstanceNorm, PatchDiscriminator, ResNet, UNet, patch, resized

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(("given", "made"), [
    ((8, 8, 1), (8, 8, 1)), ((4, 4, 1), (8, 8, 3)), ((9, 13, 3), (11, 9, 1)),
])  # fmt: skip
@pytest.mark.parametrize("architecture", ["unet", "resnet"])
def test_generators_make_any_size_of_any_other(architecture, given, made):
    more = {"blocks": 1} if architecture == "resnet" else {}
    kind = UNet if architecture == "unet" else ResNet
    network = kind(shape=made, filters=2, halvings=2, num_classes=3, **more)
    source, label = normal(2, *given), jnp.arange(2)
    variables = network.init(KEY, source, label)
    x = network.apply(variables, source, label)
    assert x.shape == (2, *made) and float(jnp.abs(x).max()) <= 1.0
    # Labels count, and examples do not depend on each other.
    other = network.apply(variables, source.at[1].multiply(3.0), label)
    np.testing.assert_allclose(other[0], x[0], atol=1e-6)
    assert not np.allclose(other[1], x[1])
    assert not np.allclose(network.apply(variables, source, label + 1)[0], x[0])


def test_sizes_are_changed_by_linear_interpolation():
    x = jnp.arange(4.0).reshape(1, 1, 4, 1)
    large = resized(x, (2, 8))
    np.testing.assert_allclose(
        large[0, 1, :, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6
    )
    np.testing.assert_allclose(resized(large, (2, 8)), large)


def test_instance_norm_is_its_formula():
    x = normal(3, 4, 5, 2) * 3 + 7
    variables = {"params": {"scale": jnp.array([2.0, 3.0]), "bias": jnp.array([0.5, -1.0])}}
    found = np.asarray(InstanceNorm().apply(variables, x))
    for i in range(3):
        for f in range(2):
            one = np.asarray(x[i, ..., f], np.float64)
            normed = (one - one.mean()) / np.sqrt(one.var() + 1e-5)
            expected = normed * (2.0, 3.0)[f] + (0.5, -1.0)[f]
            np.testing.assert_allclose(found[i, ..., f], expected, rtol=1e-4, atol=1e-5)
    # A map of one place keeps what it says.
    spot = normal(3, 1, 1, 2)
    kept = np.asarray(InstanceNorm().apply(variables, spot))
    np.testing.assert_allclose(kept, np.asarray(spot) * (2.0, 3.0) + (0.5, -1.0), rtol=1e-5)


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_a_logit_sees_its_patch(halvings):
    """Its gradient is not zero on a square of those sides, and zero elsewhere."""
    side = patch(halvings)
    assert side == (7, 16, 34)[halvings]
    network = PatchDiscriminator(filters=2, halvings=halvings, norm="none")
    x = normal(1, 2 * side + 4, 2 * side + 4, 1)
    variables = network.init(KEY, x)
    logits = network.apply(variables, x)
    middle = logits.shape[1] // 2
    slope = jax.grad(lambda x: network.apply(variables, x)[0, middle, middle])(x)[0, ..., 0]
    rows, columns = np.nonzero(np.asarray(slope))
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == side
    assert patch(3) == 70  # of the paper


@pytest.mark.parametrize("norm", ["instance", "spectral", "none"])
def test_a_discriminator_sees_all_that_is_shown(norm):
    network = PatchDiscriminator(filters=2, halvings=1, norm=norm, num_classes=3)
    x, source, label = normal(2, 9, 8, 1), normal(2, 9, 8, 3, seed=1), jnp.arange(2)
    variables = network.init(KEY, (x, source), label)
    logits = network.apply(variables, (x, source), label)
    assert logits.shape == (2, 5, 4)
    together = network.apply(variables, jnp.concatenate([x, source], -1), label)
    np.testing.assert_array_equal(together, logits)
    for shown, of in (((x, -source), label), ((-x, source), label), ((x, source), label + 1)):
        assert not np.allclose(network.apply(variables, shown, of), logits)


def test_dropout_is_by_example():
    network = UNet(shape=(8, 8, 1), filters=2, halvings=1, dropout=0.5)
    source = normal(3, 8, 8, 1)
    variables, keys = network.init(KEY, source), jax.random.split(jax.random.key(1), 3)
    whole = network.apply(variables, source, None, keys)
    part = network.apply(variables, source[1:], None, jax.random.clone(keys[1:]))
    np.testing.assert_allclose(part, whole[1:], atol=1e-6)
    assert not np.allclose(whole, network.apply(variables, source))
