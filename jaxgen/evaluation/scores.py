"""Scores of samples against held-out images, in a feature space fitted on the training split.

Every score stands beside its floor: the same score of real training images, in the same number.
The Fréchet distance above all is biased by the number of samples, and means little without it.

Our own rather than a library's: those that have these scores bring PyTorch and features of
ImageNet along; neighbours and distances are scikit-learn's.
"""

import math
from typing import NamedTuple, Self

import numpy as np

from jaxgen.errors import UserError
from jaxgen.evaluation.features import Features
from jaxgen.evaluation.similarity import PAIRS, scales_of, similarity_within
from jaxgen.evaluation.sliced import DIRECTIONS, sliced_wasserstein_by_scale
from jaxgen.model import Metric

MAX_REFERENCE = 10_000
"""A larger reference split, or set of samples, is represented by a seeded draw of this size."""
MAX_TRAIN = 100_000
"""A larger training split is represented so where the nearest of its images is looked for."""
SLICED, PLACES = 1000, 32
"""How many images at most, and how many patches of a level of each, the sliced Wasserstein distance
is taken of."""
NONE = 1e-9
"""A mean distance up to this is none: features, whose deviation is about 1, are rounded."""
NEIGHBOURS = 5
"""The k of precision, recall, density and coverage."""
METRICS: dict[str, Metric] = {
    "frechet": Metric("Fréchet distance", "squared, in feature space", "lower"),
    "kernel": Metric("kernel distance", "squared MMD", "lower"),
    "precision": Metric("precision", f"share of samples, k = {NEIGHBOURS}", "higher"),
    "recall": Metric("recall", f"share of real data, k = {NEIGHBOURS}", "higher"),
    "coverage": Metric("coverage", f"share of real data, k = {NEIGHBOURS}", "higher"),
    "nearest": Metric(
        "distance to the nearest train example", "over that of real data; 0 = copies, 1 = new"
    ),
    "sliced": Metric("sliced Wasserstein distance", "of pixels", "lower"),
    "similarity": Metric(
        "likeness within a class", "MS-SSIM of pairs; above real data's = collapse"
    ),
    "histogram_kl": Metric("KL of the class histograms", "nats", "lower"),
    "classes_present": Metric("classes present", "", "higher"),
}
"""What the scores of a panel are."""

_ROWS = 128


class Moments(NamedTuple):
    """Mean [d] and covariance [d d] of features."""

    mean: np.ndarray
    cov: np.ndarray


def moments(x: np.ndarray) -> Moments:
    """Returns the moments of features [n d], n >= 2, the covariance unbiased."""
    return Moments(x.mean(0), np.atleast_2d(np.cov(x, rowvar=False)))


def frechet_moments(a: Moments, b: Moments) -> float:
    """Returns |mean_a - mean_b|^2 + tr(C_a + C_b - 2 sqrt(C_a C_b)) (Heusel et al. 2017,
    1706.08500, eq. 6), the squared 2-Wasserstein distance of the two Gaussians.

    With C_a = L L^T, the eigenvalues of C_a C_b are those of the symmetric L^T C_b L: no complex
    square root, and any rank will do.
    """
    values, vectors = np.linalg.eigh(a.cov)
    root = vectors * np.sqrt(np.maximum(values, 0))
    cross = np.linalg.eigvalsh(root.T @ b.cov @ root)
    cross = np.sqrt(np.maximum(cross, 0)).sum()
    shift = np.square(a.mean - b.mean).sum()
    return float(shift + np.trace(a.cov) + np.trace(b.cov) - 2 * cross)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the Fréchet distance of the Gaussians fitted to features [n d] and [m d]."""
    return frechet_moments(moments(a), moments(b))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the unbiased squared MMD of features [n d] and [m d] under the kernel
    (x.y/d + 1)^3 (Bińkowski et al. 2018, 1801.01401, eq. 4): the full U-statistic, no subsets."""
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _cube_sum((a * a).mean(1))) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - _cube_sum((b * b).mean(1))) / (m * (m - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b) / (n * m)


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    blocks = (a[i : i + _ROWS] @ b.T / a.shape[1] for i in range(0, len(a), _ROWS))
    return sum(map(_cube_sum, blocks))


def _cube_sum(similarity: np.ndarray) -> float:
    k = (similarity + 1).ravel()
    return float(np.dot(k * k, k))


class PRDC(NamedTuple):
    """Four shares (density may pass 1), higher is better."""

    precision: float
    """Fakes inside some real image's k-neighbour ball: plausible."""
    recall: float
    """Real images inside some fake's ball: varied."""
    density: float
    """Mean number of real balls around a fake, over k."""
    coverage: float
    """Real images with a fake inside their ball; falls with every kind of failure."""


def prdc(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> PRDC:
    """Returns precision and recall (Kynkäänniemi et al. 2019, 1904.06991), density and coverage
    (Naeem et al. 2020, 2002.09797) of features [n d] and [m d], in bounded memory."""
    from sklearn.metrics import pairwise_distances_chunked

    if min(len(real), len(fake)) <= k:
        raise UserError(f"precision and recall need more than k={k} images on both sides")
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    balls, recalled, nearest, start = np.zeros(len(fake)), [], [], 0
    for distance in pairwise_distances_chunked(real, fake, working_memory=64):
        radius = real_radius[start : start + len(distance), None]
        balls += (distance <= radius).sum(0)
        recalled.append((distance <= fake_radius).any(1))
        nearest.append(distance.min(1))
        start += len(distance)
    covered = np.concatenate(nearest) <= real_radius
    recall = np.concatenate(recalled).mean()
    scores = (balls > 0).mean(), recall, balls.mean() / k, covered.mean()
    return PRDC(*map(float, scores))


def _radius(x: np.ndarray, k: int) -> np.ndarray:
    """Distance [n] to the k-th nearest other point."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x).kneighbors()[0][:, -1]


def nearest(known: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the distance [n] of features x [n d] to the nearest of those that are known [m d]."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(known).kneighbors(x)[1][:, 0]
    return np.linalg.norm(x - known[index], axis=1)  # the index's own loses half of the digits


def class_histogram(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the share [num_classes] of each class among classes [n]."""
    return np.bincount(classes, minlength=num_classes) / len(classes)


def histogram_kl(fake: np.ndarray, real: np.ndarray) -> float:
    """Returns KL(fake || real) in nats of two class histograms [classes].

    A class that `real` lacks counts there as 1e-6, so that the result is finite.
    """
    present = fake > 0
    return float(np.sum(fake[present] * np.log(fake[present] / np.maximum(real[present], 1e-6))))


class Reference(NamedTuple):
    """A split's moments, kept to score samples often during training."""

    features: Features
    moments: Moments

    @classmethod
    def of(cls, features: Features, images: np.ndarray) -> Self:
        """Returns the reference of images [n h w c]."""
        return cls(features, moments(features.embed(images)))

    def frechet(self, images: np.ndarray) -> float:
        """Returns the Fréchet distance of samples [m h w c] to the split; of samples that are not
        all finite, NaN."""
        features = self.features.embed(images)
        if not np.isfinite(features).all():
            return float("nan")
        return frechet_moments(self.moments, moments(features))


class Panel(NamedTuple):
    """Scores of samples, the floor of each, and how they were measured."""

    values: dict[str, float]
    """frechet, kernel, precision, recall, coverage; nearest: the mean distance to the nearest
    training image, over that of reference images; sliced: the mean over the levels of the images'
    pyramids; of images of 7x7 pixels and more, similarity: of pairs of one predicted class; with
    classes also histogram_kl (nats) and classes_present: those predicted at least a quarter as
    often as in the reference."""
    floor: dict[str, float]
    """The same scores of as many training images: what copying them would get. A model may do
    better, as one that is chosen by a score does, or where the splits differ."""
    protocol: str


def panel(
    features: Features,
    reference: np.ndarray,
    fake: np.ndarray,
    train: np.ndarray,
    split: str = "test",
    seed: int = 0,
) -> Panel:
    """Returns the scores of fake [m h w c] against reference [n h w c], the held-out `split`;
    the floor compares a seeded draw of m images of train [t h w c] (all, if t < m). Scores by
    neighbours depend on how many there are, and take equally many of all three."""
    rng = np.random.default_rng(seed)
    real, fake_part = _subset(rng, reference, MAX_REFERENCE), _subset(rng, fake, MAX_REFERENCE)
    floor = _subset(rng, train, len(fake_part))
    near = min(len(real), len(fake_part), len(floor))
    known = _subset(rng, train, MAX_TRAIN)
    protocol = (
        f"FD[{features.name}] fitted on train {features.examples} seed={features.seed}, "
        f"reference={split} {len(real)} of {len(reference)}, samples={len(fake_part)} of "
        f"{len(fake)}, floor=train draw of {len(floor)}, k={NEIGHBOURS} of {near} each, "
        f"nearest of train {len(known)}, {_of_pixels(real, near)}seed={seed}"
    )
    embedded = [features.embed(x) for x in (real, fake_part, floor)]
    seen = features.embed(known)
    apart = nearest(seen, embedded[0]).mean()
    values, floors = (
        {
            **_distances(embedded[0], x, near, seed),
            # To what a copy's distance is zero: features round as a chunk of images is cut.
            "nearest": round(float(nearest(seen, x).mean() / apart), 6)
            if apart > NONE
            else math.nan,
            **_pixels(features, real, images, near, seed),
            **_classes(features, real, images),
        }
        for x, images in zip(embedded[1:], (fake_part, floor), strict=True)
    )
    return Panel(values, floors, protocol)


def _distances(real: np.ndarray, fake: np.ndarray, size: int, seed: int) -> dict[str, float]:
    """Scores of features [n d] and [m d], those by neighbours of `size` of each."""
    some = [_subset(np.random.default_rng(seed), x, size) for x in (real, fake)]
    near = prdc(some[0], some[1])
    return {
        "frechet": frechet_distance(real, fake),
        "kernel": kernel_distance(real, fake),
        "precision": near.precision,
        "recall": near.recall,
        "coverage": near.coverage,
    }


def _pixels(
    features: Features, real: np.ndarray, images: np.ndarray, size: int, seed: int
) -> dict[str, float]:
    """Scores of the images themselves; the distance, of `size` of each at most."""
    size = min(size, SLICED)
    ours, theirs = (
        features.as_floats(_subset(np.random.default_rng(seed), x, size)) for x in (real, images)
    )
    sliced = sliced_wasserstein_by_scale(ours, theirs, PLACES, seed)
    found = {"sliced": float(np.mean(sliced))}
    if scales_of(*images.shape[1:3]):
        shown = features.as_floats(images)
        found["similarity"] = similarity_within(shown, features.predict(images), seed=seed)
    return found


def _of_pixels(images: np.ndarray, size: int) -> str:
    """How the scores of the images themselves are measured, for the protocol."""
    scales = scales_of(*images.shape[1:3])
    pairs = f"MS-SSIM of {scales} scale{'s' * (scales > 1)} and {PAIRS} pairs a class, "
    return f"sliced in {DIRECTIONS} directions of {min(size, SLICED)} each, " + pairs * bool(scales)


def _classes(features: Features, reference: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """Scores of the predicted classes; none where the features have no classes."""
    true, seen = features.predict(reference), features.predict(images)
    if true is None or seen is None:
        return {}
    size = int(max(true.max(), seen.max())) + 1
    p, q = class_histogram(true, size), class_histogram(seen, size)
    present = float(np.sum((p > 0) & (q >= p / 4)))
    return {"histogram_kl": histogram_kl(q, p), "classes_present": present}


def _subset(rng: np.random.Generator, images: np.ndarray, size: int) -> np.ndarray:
    """At most `size` of the images, without replacement, in their order."""
    if len(images) <= size:
        return images
    return images[np.sort(rng.choice(len(images), size, replace=False))]
