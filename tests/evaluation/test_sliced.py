"""The sliced Wasserstein distance: closed forms, and the pyramid that it is taken on."""

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import wasserstein_distance

from jaxgen.errors import UserError
from jaxgen.evaluation.sliced import (
    laplacian_pyramid,
    sliced_wasserstein,
    sliced_wasserstein_by_scale,
    twice,
)

RNG = np.random.default_rng(0)


def test_a_shift_has_a_closed_form():
    """|v| times the mean of one coordinate of a random unit vector, without its sign."""
    a, v = RNG.normal(size=(50, 3, 2, 1)), RNG.normal(size=(3, 2, 1))
    d = v.size
    mean = np.exp(gammaln(d / 2) - gammaln((d + 1) / 2)) / np.pi**0.5
    found = sliced_wasserstein(a, a + v, directions=200_000)
    assert abs(found / (np.linalg.norm(v) * mean) - 1) < 0.01
    # In one dimension there is one direction.
    assert sliced_wasserstein(a[:, :1, :1], a[:, :1, :1] - 2.5) == pytest.approx(2.5)


def test_equal_sets_are_at_0_in_any_order_and_it_is_symmetric():
    a, b = RNG.normal(size=(2, 40, 5))
    assert sliced_wasserstein(a, a[::-1]) == 0.0
    assert sliced_wasserstein(a, b) == sliced_wasserstein(b, a) > 0.0


def test_one_direction_is_scipy_s():
    a, b = RNG.normal(size=(2, 60, 4))
    along = np.random.default_rng(7).normal(size=(4, 1))
    along /= np.linalg.norm(along)
    expected = wasserstein_distance((a @ along)[:, 0], (b @ along)[:, 0])
    assert sliced_wasserstein(a, b, directions=1, seed=7) == pytest.approx(expected)


@pytest.mark.parametrize(
    "size, sizes", [((32, 64), [32, 16]), ((65, 33), [65, 33]), ((16, 16), [16])]
)
def test_a_pyramid_gives_the_images_back(size, sizes):
    x = RNG.normal(size=(3, *size, 2))
    levels = laplacian_pyramid(x)
    assert [level.shape[1] for level in levels] == sizes
    whole = levels[-1]
    for finer in levels[-2::-1]:
        whole = twice(whole, finer.shape[1:3]) + finer
    np.testing.assert_allclose(whole, x, atol=1e-12)
    # What is constant has no fine level.
    flat = laplacian_pyramid(np.full((1, *size, 1), 0.3))
    for finer in flat[:-1]:
        np.testing.assert_allclose(finer, 0, atol=1e-12)
    np.testing.assert_allclose(flat[-1], 0.3, atol=1e-12)


def test_a_scale_is_told_by_its_own_level():
    """Noise of single pixels moves the finest level's distance most."""
    smooth = RNG.normal(size=(60, 8, 8, 1)).repeat(8, 1).repeat(8, 2)
    noisy = smooth + 0.3 * RNG.normal(size=smooth.shape)
    fine, middle, coarse = sliced_wasserstein_by_scale(smooth, noisy, 16)
    assert sliced_wasserstein_by_scale(smooth, smooth, 16) == [0.0] * 3
    assert fine > 3 * coarse and fine > middle > coarse


def test_small_images_are_taken_whole():
    a, b = RNG.normal(size=(2, 20, 8, 8, 1))
    assert sliced_wasserstein_by_scale(a, b) == [sliced_wasserstein(a, b)]


def test_sets_of_different_shape_are_refused():
    with pytest.raises(UserError, match=r"of one shape, 1 or more; got \(3, 4\) and \(2, 4\)"):
        sliced_wasserstein(np.zeros((3, 4)), np.zeros((2, 4)))
    with pytest.raises(UserError, match="1 or more"):
        sliced_wasserstein(np.zeros((0, 4)), np.zeros((0, 4)))
