"""Sliced Wasserstein distance between two sets of images (Rabin et al. 2011; for scales of images,
Karras et al. 2018, arXiv:1710.10196, section 5)."""

import numpy as np

from jaxgen.errors import UserError

DIRECTIONS = 512
"""Random directions that a distance is averaged over."""
SIDE = 7
"""Height and width of a patch."""
LEAST = 16
"""The smallest side of a pyramid's level, and of an image that is taken in patches."""
_AT_A_TIME = 64
_BLUR = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0


def sliced_wasserstein(
    a: np.ndarray, b: np.ndarray, directions: int = DIRECTIONS, seed: int = 0
) -> float:
    """The mean over random directions of the distance (Wasserstein-1) between what two sets [n d]
    are in that direction: of data of d numbers, in their unit.

    Images [n h w c] are taken whole. Raises UserError where the sets have not one shape.
    """
    if a.shape != b.shape or not len(a):
        raise UserError(
            f"both sets must have as many data of one shape, 1 or more; got {a.shape} and {b.shape}"
        )
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    along = np.random.default_rng(seed).normal(size=(a.shape[1], directions))
    along /= np.linalg.norm(along, axis=0)
    # Of one dimension, the cheapest way to move one set onto another one keeps their order.
    some = (along[:, i : i + _AT_A_TIME] for i in range(0, directions, _AT_A_TIME))
    apart = [np.abs(np.sort(a @ v, 0) - np.sort(b @ v, 0)).mean(0) for v in some]
    return float(np.concatenate(apart).mean())


def sliced_wasserstein_by_scale(
    a: np.ndarray, b: np.ndarray, places: int = 128, seed: int = 0
) -> list[float]:
    """The distance between patches of each level of the images' Laplacian pyramids [n h w c], the
    finest level first; of images too small for that, one distance, between whole images.

    From each image, `places` patches of 7x7 pixels at random; each channel of a level's patches is
    brought to a mean of 0 and a deviation of 1, set by set, as in the paper.
    """
    if min(a.shape[1:3]) < LEAST:
        return [sliced_wasserstein(a, b, seed=seed)]
    levels = zip(laplacian_pyramid(a), laplacian_pyramid(b), strict=True)
    return [
        sliced_wasserstein(_patches(x, places, seed), _patches(y, places, seed), seed=seed)
        for x, y in levels
    ]


def laplacian_pyramid(x: np.ndarray) -> list[np.ndarray]:
    """What each size of images [n h w c] shows beyond the half of it, the finest first; the last is
    the smallest size itself, whose sides are 16 or more (Burt & Adelson 1983). Enlarging the sum of
    the coarser levels and adding the finer one gives the images back."""
    levels = [np.asarray(x, np.float64)]
    while min(levels[-1].shape[1:3]) >= 2 * LEAST:
        whole = levels[-1]
        half = _blurred(whole)[:, ::2, ::2]
        levels[-1] = whole - twice(half, whole.shape[1:3])
        levels.append(half)
    return levels


def twice(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Images [n h w c] at twice their size, or one pixel less, smoothly."""
    wide = np.zeros((len(x), *size, x.shape[-1]))
    wide[:, ::2, ::2] = x
    # Three quarters of its pixels are empty.
    return 4.0 * _blurred(wide)


def _blurred(x: np.ndarray) -> np.ndarray:
    """The 5x5 binomial filter, mirrored at the edges."""
    for axis in (1, 2):
        pad = [(2, 2) if i == axis else (0, 0) for i in range(4)]
        wide, size = np.pad(x, pad, mode="reflect"), x.shape[axis]
        shifted = (np.take(wide, np.arange(i, i + size), axis) for i in range(5))
        x = sum((w * part for w, part in zip(_BLUR, shifted, strict=True)), np.zeros_like(x))
    return x


def _patches(x: np.ndarray, places: int, seed: int) -> np.ndarray:
    """Patches [n * places, SIDE * SIDE * c] at random, each channel normalized."""
    n, height, width, _ = x.shape
    rng = np.random.default_rng(seed)
    row = rng.integers(height - SIDE + 1, size=(n, places, 1, 1)) + np.arange(SIDE)[:, None]
    column = rng.integers(width - SIDE + 1, size=(n, places, 1, 1)) + np.arange(SIDE)
    taken = x[np.arange(n)[:, None, None, None], row, column]
    taken = taken - taken.mean((0, 1, 2, 3))
    deviation = taken.std((0, 1, 2, 3))
    return (taken / np.where(deviation > 0, deviation, 1.0)).reshape(n * places, -1)
