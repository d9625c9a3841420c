"""How alike the samples of one class are: multi-scale structural similarity (Wang, Simoncelli &
Bovik 2003) of pairs of them, as Odena, Olah & Shlens 2017 (arXiv:1610.09585, section 4.2) ask.

Our own rather than scikit-image's SSIM, which has one scale: at that scale it is the same.
"""

import numpy as np

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""What the scales count, the finest first (Wang et al. 2003, section 3.2)."""
WINDOW = 7
"""Sides of the window in which means and variances are taken, at every scale."""
PAIRS = 200
"""Pairs of images that are compared of each class."""
_CHUNK = 2**21
_K1, _K2 = 0.01, 0.03


def scales_of(height: int, width: int) -> int:
    """How often images can be halved and hold a window still, plus 1, up to 5; 0 of images that
    are smaller than a window."""
    side = min(height, width)
    return next((i for i in range(len(WEIGHTS)) if side >> i < WINDOW), len(WEIGHTS))


def ms_ssim(a: np.ndarray, b: np.ndarray, data_range: float = 2.0) -> np.ndarray:
    """The similarity [n], up to 1, of the images a and b [n h w c] of equal place: of as many
    scales as their size allows, whose weights are brought to a sum of 1.

    Contrasts and structures of every scale, and means of the coarsest one, to the powers of the
    weights (equation 7); what is below 0 counts as 0. One scale is the mean SSIM itself.
    """
    scales = scales_of(*a.shape[1:3])
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    a, b, product = np.asarray(a, np.float64), np.asarray(b, np.float64), np.ones(len(a))
    for i, weight in enumerate(weights):
        luminance, structure = _compared(a, b, data_range)
        if i < scales - 1:
            value, a, b = structure.mean((1, 2, 3)), _halved(a), _halved(b)
        else:
            value = (luminance * structure).mean((1, 2, 3))
        product *= value if scales == 1 else np.maximum(value, 0.0) ** weight
    return product


def similarity_within(
    images: np.ndarray, classes: np.ndarray | None, pairs: int = PAIRS, seed: int = 0
) -> float:
    """The mean similarity of random pairs of different images [n h w c], floats in [-1, 1], of one
    class: the mean over the classes [n] that have two images or more of their pairs' mean; without
    classes, of all images. NaN where no class has two."""
    classes = np.zeros(len(images), int) if classes is None else classes
    rng, means, chunk = np.random.default_rng(seed), [], max(1, _CHUNK // images[0].size)
    for each in np.unique(classes):
        own = np.flatnonzero(classes == each)
        if len(own) < 2:
            continue
        first = rng.integers(len(own), size=pairs)
        other = (first + rng.integers(1, len(own), size=pairs)) % len(own)
        found = [
            ms_ssim(images[own[first[i : i + chunk]]], images[own[other[i : i + chunk]]])
            for i in range(0, pairs, chunk)
        ]
        means.append(np.concatenate(found).mean())
    return float(np.mean(means)) if means else float("nan")


def _compared(a: np.ndarray, b: np.ndarray, data_range: float) -> tuple[np.ndarray, np.ndarray]:
    """The terms of means and of contrast and structure in every window (Wang et al. 2004), with
    unbiased variances, as scikit-image has them."""
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_a, mean_b = _windows(a), _windows(b)
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    var_a, var_b, cov = (
        unbiased * (_windows(x) - y)
        for x, y in ((a * a, mean_a**2), (b * b, mean_b**2), (a * b, mean_a * mean_b))
    )
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * cov + c2) / (var_a + var_b + c2)


def _windows(x: np.ndarray) -> np.ndarray:
    """The mean in every window that lies within the images."""
    for axis in (1, 2):
        count = x.shape[axis] - WINDOW + 1
        shifted = [np.take(x, np.arange(i, i + count), axis) for i in range(WINDOW)]
        x = np.add.reduce(shifted) / WINDOW
    return x


def _halved(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels; a last row or column without a partner is left out."""
    n, height, width, c = x.shape
    cut = x[:, : height // 2 * 2, : width // 2 * 2]
    return cut.reshape(n, height // 2, 2, width // 2, 2, c).mean((2, 4))
