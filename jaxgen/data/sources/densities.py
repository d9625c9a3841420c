"""Points of known density, drawn on the spot: the toys on which a density can be seen whole."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from jaxgen.data.points import from_units
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.splits import SPLITS

SIZES = {"train": 10_000, "validation": 2_000, "test": 10_000}
NODES = 400
"""Places along a curve over which its density is integrated: a small part of the noise apart."""


class Density(ABC):
    """A density of points, from which they are drawn."""

    modes: np.ndarray | None = None
    """The centres [m d] of its modes, where it has any."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Points [num d] in their own units, and the label of each."""

    @abstractmethod
    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """The log density of points [n d], in nats."""


class Gaussians(Density):
    """Spherical Gaussians; the label is the one that a point is of."""

    def __init__(
        self, centres: np.ndarray, sigma: np.ndarray | float, weights: np.ndarray | None = None
    ) -> None:
        self.modes, num = centres, len(centres)
        self.sigma = np.broadcast_to(np.asarray(sigma, np.float64), num)
        self.weights = weights

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Density`."""
        centres = self.modes
        assert centres is not None
        if self.weights is None:
            label = rng.integers(len(centres), size=num)
        else:
            label = rng.choice(len(centres), num, p=self.weights)
        noise = rng.normal(size=(num, centres.shape[1]))
        return centres[label] + self.sigma[label, None] * noise, label

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """See `Density`."""
        assert self.modes is not None
        weights = np.full(len(self.sigma), 1 / len(self.sigma))
        return _mixture(points, self.modes, self.sigma, weights if self.weights is None else
                        self.weights)  # fmt: skip


class Curves(Density):
    """Places drawn evenly along the parameter of a curve, one of several, with Gaussian noise; the
    label is the curve."""

    def __init__(self, curves: tuple[Callable[[np.ndarray], np.ndarray], ...], sigma: float):
        self.curves, self.sigma = curves, sigma

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Density`."""
        label, t = rng.integers(len(self.curves), size=num), rng.random(num)
        place = np.stack([curve(t) for curve in self.curves])[label, np.arange(num)]
        return place + self.sigma * rng.normal(size=place.shape), label

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """See `Density`; by Gauss-Legendre quadrature over the parameter."""
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        centres = np.concatenate([curve((nodes + 1) / 2) for curve in self.curves])
        weights = np.tile(weights / 2, len(self.curves)) / len(self.curves)
        # In parts: all points beside all places take memory.
        parts = np.array_split(points, max(len(points) // 1000, 1))
        sigma = np.full(len(centres), self.sigma)
        return np.concatenate([_mixture(part, centres, sigma, weights) for part in parts])


class Squares(Density):
    """Even over every other square of a board; the label is the square."""

    def __init__(self, side: int) -> None:
        self.side = side
        row, column = np.divmod(np.arange(side * side), side)
        dark = (row + column) % 2 == 0
        self.corners = np.stack([column, row], 1)[dark] - side / 2

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Density`."""
        label = rng.integers(len(self.corners), size=num)
        return self.corners[label] + rng.random((num, 2)), label

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """See `Density`; -inf outside of its squares."""
        square = np.floor(np.asarray(points, np.float64) + self.side / 2)
        inside = ((square >= 0) & (square < self.side)).all(1) & (square.sum(1) % 2 == 0)
        return np.where(inside, -np.log(len(self.corners)), -np.inf)


def _mixture(
    points: np.ndarray, centres: np.ndarray, sigma: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The log density of spherical Gaussians at points [n d]."""
    points, dims = np.asarray(points, np.float64), centres.shape[1]
    squared = ((points[:, None] - centres) ** 2).sum(-1)
    each = -squared / (2 * sigma**2) - dims * np.log(sigma) + np.log(weights)
    most = each.max(1)
    total = np.log(np.exp(each - most[:, None]).sum(1)) + most
    return total - dims / 2 * np.log(2 * np.pi)


@dataclass(frozen=True)
class Toy:
    """A density by name."""

    density: Density
    ranges: tuple[tuple[float, float], ...]
    """What -1 and 1 stand for: all that is drawn lies well inside."""
    class_names: tuple[str, ...]
    note: str


def _arc(t: np.ndarray, start: float, x: float, y: float) -> np.ndarray:
    """Half a circle from that angle on, around (x, y)."""
    angle = start + np.pi * t
    return np.stack([x + np.cos(angle), y + np.sin(angle)], -1)


def _arm(t: np.ndarray, start: float) -> np.ndarray:
    """One and a half turns outwards; places along it are about evenly spaced."""
    angle = 3 * np.pi * np.sqrt(t)
    radius = 0.2 + 1.8 * np.sqrt(t)
    return np.stack([radius * np.cos(start + angle), radius * np.sin(start + angle)], -1)


_angle = 2 * np.pi * np.arange(8) / 8
_on_ring = 2.0 * np.stack([np.cos(_angle), np.sin(_angle)], 1)
_on_grid = np.stack(np.meshgrid(np.arange(-2.0, 3), np.arange(-2.0, 3)), -1).reshape(-1, 2)
_around = lambda reach: ((-reach, reach),) * 2  # noqa: E731

TOYS: dict[str, Toy] = {
    "gaussians1d": Toy(
        Gaussians(np.array([[-2.0], [0.0], [2.5]]), np.array([0.4, 0.7, 0.2]),
                  np.array([0.3, 0.5, 0.2])),
        ((-5.0, 5.0),), ("left", "middle", "right"),
        "three Gaussians at -2, 0 and 2.5, of standard deviations 0.4, 0.7 and 0.2 and shares 0.3, "
        "0.5 and 0.2",
    ),
    # Modes are 15 standard deviations apart: their overlap is below the precision of a float.
    "ring": Toy(
        Gaussians(_on_ring, 0.1), _around(2.5), tuple(f"{360 * k // 8}°" for k in range(8)),
        "8 equally likely Gaussians of standard deviation 0.1 on a circle of radius 2; entropy "
        f"{np.log(8) + np.log(2 * np.pi * 0.1**2) + 1:.4f} nats",
    ),
    "grid": Toy(
        Gaussians(_on_grid, 0.05), _around(2.5), tuple(f"({x:g}, {y:g})" for x, y in _on_grid),
        "25 equally likely Gaussians of standard deviation 0.05 on a grid of spacing 1; entropy "
        f"{np.log(25) + np.log(2 * np.pi * 0.05**2) + 1:.4f} nats",
    ),
    "moons": Toy(
        Curves((lambda t: _arc(t, 0.0, 0.0, 0.0), lambda t: _arc(t, np.pi, 1.0, 0.5)), 0.1),
        ((-2.0, 3.0), (-1.5, 2.0)), ("upper", "lower"),
        "two half circles, one in the other, with noise of standard deviation 0.1",
    ),
    "spirals": Toy(
        Curves((lambda t: _arm(t, 0.0), lambda t: _arm(t, np.pi)), 0.08),
        _around(2.6), ("first", "second"),
        "two arms of a spiral, of one and a half turns, with noise of standard deviation 0.08",
    ),
    "checkerboard": Toy(
        Squares(4), _around(2.0), tuple(f"square {k}" for k in range(8)),
        f"even over the 8 dark squares of a 4x4 board; entropy {np.log(8):.4f} nats",
    ),
}  # fmt: skip
"""The densities by name; the ring and the grid are the common ones of GAN papers, the moons those
of scikit-learn."""


def toy(name: str) -> Source:
    """Returns 22,000 points drawn from the density of that name, and the density itself."""
    chosen = TOYS[name]
    points, labels = {}, {}
    for place, split in enumerate(SPLITS):
        drawn, labels[split] = chosen.density.draw(np.random.default_rng((0, place)), SIZES[split])
        points[split] = from_units(drawn, chosen.ranges)

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for i in ids:
            yield Example(f"{name} {split} point {i}", points[split][i], int(labels[split][i]))

    return Source(
        name=name,
        stamp=name,
        sizes=SIZES,
        class_names=chosen.class_names,
        levels=0,
        read=read,
        what="points",
        note=f"synthesized: {chosen.note}",
        ranges=chosen.ranges,
        density=chosen.density.log_prob,
        modes=chosen.density.modes,
    )
