"""Points: real numbers or bins [n 1 1 d], and the data's own units."""

from collections.abc import Sequence

import numpy as np

from jaxgen.errors import UserError

Ranges = tuple[tuple[float, float], ...]
"""(low, high) of each coordinate: what -1 and 1 stand for."""

MARGIN = 0.05
"""What is left free on each side of a coordinate's values, as a share of their spread."""


def ranges_of(points: np.ndarray, names: Sequence[str]) -> Ranges:
    """The ranges of points [n d] in their own units, with a margin; `names` are what messages
    call the coordinates."""
    low, high = points.min(0), points.max(0)
    if (flat := np.flatnonzero(low == high)).size:
        raise UserError(
            f"{names[flat[0]]} is {low[flat[0]]:g} in every point: leave it out, for it has no "
            "density"
        )
    margin = MARGIN * (high - low)
    return tuple((float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True))


def from_units(points: np.ndarray, ranges: Ranges) -> np.ndarray:
    """Points [n d] in their own units as x, float32 [n 1 1 d]: ranges become [-1, 1]."""
    low, high = np.array(ranges).T
    return ((points - low) / (high - low) * 2 - 1).astype(np.float32)[:, None, None]


def bins(x: np.ndarray, levels: int) -> np.ndarray:
    """Real x as the bin of so many in [-1, 1] that it is in, uint8; beyond, the outermost."""
    place = np.floor((x.astype(np.float64) + 1) * (levels / 2))
    return np.clip(place, 0, levels - 1).astype(np.uint8)
