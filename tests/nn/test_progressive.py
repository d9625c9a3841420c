"""Growing networks: what a stage is at both ends of its fade, and how images shrink and grow."""

import functools

import jax
import numpy as np
import pytest
from tiny import some

from jaxgen.nn.progressive import (
    ProgressiveDiscriminator,
    ProgressiveGenerator,
    enlarged,
    features_of,
    growing_sizes,
    halved,
    seen_at,
    used,
)

SIZES = ((4, 5), (8, 10), (16, 20))
LABEL = np.arange(4) % 3


def generator(stages):
    return ProgressiveGenerator(sizes=SIZES, stages=stages, channels=2, filters=2, num_classes=3)


def discriminator(stages):
    return ProgressiveDiscriminator(sizes=SIZES, stages=stages, filters=2, group=2, num_classes=3)


def arrays(network, *given):
    """Every number random, biases included; the same for every stage."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), *given)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: np.asarray(rng.normal(size=s.shape), np.float32), shapes)


RNG = np.random.default_rng(1)
X = RNG.normal(size=(4, 16, 20, 2)).astype(np.float32)
Z = RNG.normal(size=(4, 3)).astype(np.float32)
G, D = arrays(generator(1), Z, LABEL), arrays(discriminator(1), X, LABEL)


def run(network, params, alpha, *given):
    """What it returns, as NumPy."""
    return jax.tree.map(np.asarray, _run(network, params, np.float32(alpha), *given))


@functools.partial(jax.jit, static_argnums=0)
def _run(network, params, alpha, *given):
    return network.apply({"params": params, "fade": {"alpha": alpha}}, *given)


@functools.partial(jax.jit, static_argnums=0)
def slopes_of(network, params, alpha, *given):
    """Of the sum of what it makes, squared, by every parameter."""

    def value(params):
        return (jax.tree.leaves(_run(network, params, alpha, *given))[0] ** 2).sum()

    return jax.grad(value)(params)


def shown(stages, alpha):
    """The images X as such a stage sees them."""
    return np.asarray(_seen(stages, np.float32(alpha)))


_seen = jax.jit(lambda stages, alpha: seen_at(X, SIZES, stages, alpha), static_argnums=0)
grown = jax.jit(enlarged, static_argnums=1)
shrunk = jax.jit(halved)


@pytest.mark.parametrize("size, sizes", [
    ((4, 4), [4]), ((8, 8), [4, 8]), ((28, 28), [7, 14, 28]), ((32, 32), [4, 8, 16, 32]),
    ((10, 12), [5, 10]), ((9, 9), []), ((22, 22), []), ((3, 3), []), ((1, 64), []),
])  # fmt: skip
def test_sizes_double_from_4_to_7(size, sizes):
    assert [height for height, _ in growing_sizes(*size)] == sizes
    assert all(width == size[1] * h // size[0] for h, width in growing_sizes(*size))


def test_shrinking_undoes_enlarging_exactly_and_is_the_mean():
    large = np.asarray(grown(X, (32, 40)))
    np.testing.assert_array_equal(shrunk(large), X)
    np.testing.assert_array_equal(large[:, 5, 7], X[:, 2, 3])
    small = np.asarray(shrunk(X))
    np.testing.assert_allclose(small[1, 3, 4], X[1, 6:8, 8:10].mean((0, 1)), rtol=1e-6)


def test_features_double_up_to_512():
    assert features_of(16, SIZES) == [64, 32, 16]
    assert features_of(200, SIZES) == [512, 400, 200] and features_of(600, SIZES) == [600] * 3


@pytest.mark.parametrize("stages", some([2, 3], [2]))
def test_at_alpha_0_a_stage_is_the_one_before(stages):
    """G's image enlarged, D's judgement of the image shrunk; both to the last bit."""
    low, _ = run(generator(stages - 1), G, 1.0, Z, LABEL)
    high, alpha = run(generator(stages), G, 0.0, Z, LABEL)
    assert alpha == 0 and high.shape == (4, *SIZES[stages - 1], 2)
    np.testing.assert_array_equal(high, grown(low, SIZES[stages - 1]))
    x = shown(stages, 1.0)
    high = run(discriminator(stages), D, 0.0, x, LABEL)
    low = run(discriminator(stages - 1), D, 1.0, shrunk(x), LABEL)
    np.testing.assert_array_equal(high, low)
    # And so are the real images that it is shown.
    np.testing.assert_array_equal(shown(stages, 0.0), grown(shrunk(x), SIZES[stages - 1]))


@pytest.mark.parametrize("stages", some([2, 3], [2]))
def test_at_alpha_1_there_is_no_trace_of_the_old_way(stages):
    x = shown(stages, 1.0)
    for network, params, given, old in (
        (generator(stages), G, Z, f"to_image_{stages - 2}"),
        (discriminator(stages), D, x, f"from_image_{stages - 2}"),
    ):

        def value(params, alpha, network=network, given=given):
            return jax.tree.leaves(run(network, params, alpha, given, LABEL))[0]

        other = {**params, old: jax.tree.map(lambda leaf: leaf + 1.0, params[old])}
        np.testing.assert_array_equal(value(params, 1.0), value(other, 1.0))
        assert (value(params, 0.5) != value(other, 0.5)).any()
        slope = slopes_of(network, params, np.float32(1.0), given, LABEL)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope[old]))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_stage_uses_just_the_blocks_that_are_named(stages):
    x = shown(stages, 0.5)
    for network, params, given, names in zip(
        (generator(stages), discriminator(stages)), (G, D), (Z, x), used(stages), strict=True
    ):
        slopes = slopes_of(network, params, np.float32(0.5), given, LABEL)
        moved = {n for n, s in slopes.items() if any(np.any(leaf) for leaf in jax.tree.leaves(s))}
        assert moved == names


def test_labels_and_the_variation_within_groups_count():
    judge = lambda x, label: run(discriminator(3), D, 1.0, x, label)  # noqa: E731
    assert (judge(X, LABEL) != judge(X, (LABEL + 1) % 3)).all()
    first = (np.arange(4) == 0).astype(np.float32)[:, None, None, None]
    other = judge(X + first, LABEL) != judge(X, LABEL)
    np.testing.assert_array_equal(other, [True, True, False, False])
    made = lambda label: run(generator(3), G, 1.0, Z, label)[0]  # noqa: E731
    assert (made(LABEL) != made((LABEL + 1) % 3)).any((1, 2, 3)).all()
