"""Multi-scale structural similarity against scikit-image, and the diversity that it tells of."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from sklearn.datasets import load_digits

from jaxgen.evaluation.similarity import WEIGHTS, ms_ssim, scales_of, similarity_within


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _alike(rng, *shape):
    a = rng.uniform(-1, 1, shape)
    return a, np.clip(a + rng.normal(0, 0.4, shape), -1, 1)


def _own(a, b, **options):
    """scikit-image's SSIM of two images; K1 = 1e9 leaves contrast and structure alone."""
    # At its borders scikit-image pads, and leaves them out of the mean, as we do.
    given = {"data_range": 2.0, "channel_axis": -1, "win_size": 7, **options}
    return structural_similarity(a, b, **given)


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 13, 3)])
def test_one_scale_is_scikit_image_s(rng, shape):
    a, b = _alike(rng, 3, *shape)
    assert scales_of(*shape[:2]) == 1
    np.testing.assert_allclose(ms_ssim(a, b), [_own(*pair) for pair in zip(a, b, strict=True)])
    # One that is below 0 stays so.
    a = np.abs(a)
    assert ms_ssim(a, 1 - a)[0] == pytest.approx(_own(a[0], 1 - a[0])) and ms_ssim(a, 1 - a)[0] < 0


def test_several_scales_are_products_of_scikit_image_s(rng):
    a, b = _alike(rng, 2, 29, 28, 2)
    assert scales_of(29, 28) == 3
    weights = np.array(WEIGHTS[:3]) / sum(WEIGHTS[:3])
    for x, y, found in zip(a, b, ms_ssim(a, b), strict=True):
        expected = 1.0
        for i, weight in enumerate(weights):
            expected *= _own(x, y, **({} if i == 2 else {"K1": 1e9})) ** weight
            x, y = (
                np.stack([z[i : i + 2, j : j + 2].mean((0, 1)) for i in range(0, len(z) - 1, 2)
                          for j in range(0, z.shape[1] - 1, 2)]).reshape(len(z) // 2, -1, 2)
                for z in (x, y)
            )  # fmt: skip
        assert found == pytest.approx(expected)


def test_how_many_scales_a_size_allows():
    sizes = [4, 7, 8, 13, 14, 28, 32, 64, 112, 1024]
    assert [scales_of(n, 2000) for n in sizes] == [0, 1, 1, 1, 2, 3, 3, 4, 5, 5]
    assert scales_of(2000, 28) == 3


def test_equal_images_are_1_and_collapse_is_found(rng):
    data = load_digits()
    images, classes = data.images[..., None] / 8 - 1, data.target
    same = images[:1].repeat(20, 0)
    assert similarity_within(same, None) == pytest.approx(1)
    real = similarity_within(images, classes)
    # Three images of each class, over and over.
    few = np.concatenate([np.flatnonzero(classes == c)[np.arange(100) % 3] for c in range(10)])
    collapsed = similarity_within(images[few], classes[few])
    noise = similarity_within(rng.uniform(-1, 1, images.shape), classes)
    assert noise < 0.1 < similarity_within(images, None) < real - 0.1
    assert collapsed > real + 0.1
    # What most samples are counts no more than the other classes do.
    every = [similarity_within(images[classes == c], None) for c in range(10)]
    assert real == pytest.approx(np.mean(every), abs=0.03)


def test_pairs_are_of_different_images_of_one_class():
    """Two images a class, of opposite signs: every pair of a class is of these two."""
    image = np.linspace(-1, 1, 64).reshape(8, 8, 1)
    images = np.stack([image, -image, image.swapaxes(0, 1), -image.swapaxes(0, 1), image])
    found = similarity_within(images, np.array([0, 0, 1, 1, 2]))
    assert found == pytest.approx(_own(image, -image))
    assert np.isnan(similarity_within(images, np.arange(5)))
