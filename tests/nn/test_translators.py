"""Networks between images: sizes, normalization by formula, and what each place sees."""

import jax
import numpy as np
import pytest
from networks import filled

from jaxgen.nn.translation import InstanceNorm, PatchDiscriminator, ResNet, UNet, patch, resized


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("given", "made"), [
    ((8, 8, 1), (8, 8, 1)), ((4, 4, 1), (8, 8, 3)), ((9, 13, 3), (11, 9, 1)),
])  # fmt: skip
@pytest.mark.parametrize("architecture", ["unet", "resnet"])
def test_generators_make_any_size_of_any_other(architecture, given, made):
    more = {"blocks": 1} if architecture == "resnet" else {}
    kind = UNet if architecture == "unet" else ResNet
    network = kind(shape=made, filters=2, halvings=2, num_classes=3, **more)
    source, label = normal(2, *given), np.arange(2)
    variables, apply = filled(network, source, label), jax.jit(network.apply)
    x = np.asarray(apply(variables, source, label))
    assert x.shape == (2, *made) and np.abs(x).max() <= 1.0
    # Labels count, and examples do not depend on each other.
    scale = np.float32([1.0, 3.0])[:, None, None, None]
    other = np.asarray(apply(variables, source * scale, label))
    np.testing.assert_allclose(other[0], x[0], atol=1e-6)
    assert not np.allclose(other[1], x[1])
    assert not np.allclose(apply(variables, source, label + 1)[0], x[0])


def test_sizes_are_changed_by_linear_interpolation():
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)
    large = np.asarray(jax.jit(resized, static_argnums=1)(x, (2, 8)))
    np.testing.assert_allclose(
        large[0, 1, :, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6
    )
    np.testing.assert_allclose(resized(large, (2, 8)), large)


def test_instance_norm_is_its_formula():
    x = normal(3, 4, 5, 2) * 3 + 7
    variables = {"params": {"scale": np.float32([2, 3]), "bias": np.float32([0.5, -1])}}
    apply = jax.jit(InstanceNorm().apply)
    found = np.asarray(apply(variables, x))
    for i in range(3):
        for f in range(2):
            one = np.asarray(x[i, ..., f], np.float64)
            normed = (one - one.mean()) / np.sqrt(one.var() + 1e-5)
            expected = normed * (2.0, 3.0)[f] + (0.5, -1.0)[f]
            np.testing.assert_allclose(found[i, ..., f], expected, rtol=1e-4, atol=1e-5)
    # A map of one place keeps what it says.
    spot = normal(3, 1, 1, 2)
    kept = np.asarray(apply(variables, spot))
    np.testing.assert_allclose(kept, spot * (2.0, 3.0) + (0.5, -1.0), rtol=1e-5)


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_a_logit_sees_its_patch(halvings):
    """Its gradient is not zero on a square of those sides, and zero elsewhere."""
    side = patch(halvings)
    assert side == (7, 16, 34)[halvings]
    network = PatchDiscriminator(filters=2, halvings=halvings, norm="none")
    x = normal(1, 2 * side + 4, 2 * side + 4, 1)
    variables = filled(network, x)
    middle = jax.eval_shape(network.apply, variables, x).shape[1] // 2
    of = jax.jit(jax.grad(lambda x: network.apply(variables, x)[0, middle, middle]))
    slope = np.asarray(of(x))[0, ..., 0]
    rows, columns = np.nonzero(slope)
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == side
    assert patch(3) == 70  # of the paper


@pytest.mark.parametrize("norm", ["instance", "spectral", "none"])
def test_a_discriminator_sees_all_that_is_shown(norm):
    network = PatchDiscriminator(filters=2, halvings=1, norm=norm, num_classes=3)
    x, source, label = normal(2, 9, 8, 1), normal(2, 9, 8, 3, seed=1), np.arange(2)
    variables, apply = filled(network, (x, source), label), jax.jit(network.apply)
    logits = np.asarray(apply(variables, (x, source), label))
    assert logits.shape == (2, 5, 4)
    together = apply(variables, np.concatenate([x, source], -1), label)
    np.testing.assert_array_equal(together, logits)
    for shown, of in (((x, -source), label), ((-x, source), label), ((x, source), label + 1)):
        assert not np.allclose(apply(variables, shown, of), logits)


def test_dropout_is_by_example():
    network = UNet(shape=(8, 8, 1), filters=2, halvings=1, dropout=0.5)
    source = normal(3, 8, 8, 1)
    variables = filled(network, source)

    @jax.jit
    def run(key):
        keys = jax.random.split(key, 3)
        whole = network.apply(variables, source, None, keys)
        part = network.apply(variables, source[1:], None, jax.random.clone(keys[1:]))
        return whole, part, network.apply(variables, source)

    whole, part, plain = map(np.asarray, run(jax.random.key(1)))
    np.testing.assert_allclose(part, whole[1:], atol=1e-6)
    assert not np.allclose(whole, plain)
