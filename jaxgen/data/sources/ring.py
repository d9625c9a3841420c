"""Points of known density: eight Gaussians on a ring, the common toy of GAN papers."""

from collections.abc import Iterable

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.points import from_units
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.splits import SPLITS

MODES, RADIUS, SIGMA = 8, 2.0, 0.1
SIZES = {"train": 10_000, "validation": 2_000, "test": 10_000}
RANGES = ((-2.5, 2.5),) * 2
"""Five standard deviations beyond the modes."""

_angle = 2 * np.pi * np.arange(MODES) / MODES
CENTRES = RADIUS * np.stack([np.cos(_angle), np.sin(_angle)], 1)

# Modes are 15 standard deviations apart: their overlap is below the precision of a float.
ENTROPY = np.log(MODES) + np.log(2 * np.pi * SIGMA**2) + 1
"""The entropy of the density, in nats: the least NLL there is."""


def ring(config: DataConfig) -> Source:
    """Returns 22,000 points drawn from the density; the label is the mode that a point is of."""
    points, labels = {}, {}
    for place, split in enumerate(SPLITS):
        rng = np.random.default_rng((0, place))
        labels[split] = rng.integers(MODES, size=SIZES[split])
        noise = SIGMA * rng.normal(size=(SIZES[split], 2))
        points[split] = from_units(CENTRES[labels[split]] + noise, RANGES)

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for i in ids:
            yield Example(f"ring {split} point {i}", points[split][i], int(labels[split][i]))

    return Source(
        name="ring",
        stamp="ring",
        sizes=SIZES,
        class_names=tuple(f"{360 * k // MODES}°" for k in range(MODES)),
        levels=0,
        read=read,
        what="points",
        note=f"synthesized: {MODES} equally likely Gaussians of standard deviation {SIGMA} on a "
        f"circle of radius {RADIUS:g}; entropy {ENTROPY:.4f} nats",
        ranges=RANGES,
        density=density,
        modes=CENTRES,
    )


def density(points: np.ndarray) -> np.ndarray:
    """The log density of points [n 2], in nats."""
    squared = ((np.asarray(points, np.float64)[:, None] - CENTRES) ** 2).sum(-1)
    each = -squared / (2 * SIGMA**2)
    most = each.max(1)
    total = np.log(np.exp(each - most[:, None]).sum(1)) + most
    return total - np.log(MODES * 2 * np.pi * SIGMA**2)
