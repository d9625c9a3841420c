"""Points as plots, and numbers as colours: all that media takes from matplotlib."""

from typing import Any

import numpy as np

from jaxgen.spec import DataSpec

INCHES, DPI = 4.0, 100
"""The size of a plot."""
CROWD = 5000
"""More points than this are drawn as a density."""
BINS = 60
"""Bins of a density, in each coordinate of the window."""
_INK = "#3b7dd8"


def in_units(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Points [... 1 1 d], levels or floats in [-1, 1], in the data's own units: float64 [... d].

    A level is the middle of its bin, of equally wide bins over the range.
    """
    x = np.asarray(x)[..., 0, 0, :]
    if spec.levels:
        level = x if np.issubdtype(x.dtype, np.integer) else (x + 1) / 2 * (spec.levels - 1)
        share = (np.asarray(level, np.float64) + 0.5) / spec.levels
    else:
        share = (np.asarray(x, np.float64) + 1) / 2
    low, high = np.array(spec.ranges).T
    return low + share * (high - low)


def plot(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """One plot, uint8 [H W 3], of points [n 1 1 d], or of [rows n 1 1 d], a colour for each row.

    Its window is the data's ranges. Points of one coordinate are a histogram, of two a scatter
    plot, or a density where they are many; of more coordinates the first two are shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = in_units(x, spec)
    every = values[None] if values.ndim == 2 else values
    rows = [row[np.isfinite(row).all(-1)] for row in every]
    figure = Figure(figsize=(INCHES, INCHES), dpi=DPI, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    several = coloured(np.linspace(0, 0.85, len(rows))) / 255
    colours: Any = several if len(rows) > 1 else [_INK]
    draw = _histograms if len(spec.ranges) == 1 else _scatter
    draw(axes, rows, colours, spec.ranges)
    axes.tick_params(labelsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def coloured(unit: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as colours, dark to light, even in print and to the colour-blind
    (matplotlib's viridis): uint8 [... 3]."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.asarray(unit, np.float64), bytes=True)[..., :3]


def _histograms(axes: Any, rows: list[np.ndarray], colours: Any, ranges: Any) -> None:
    low, high = ranges[0]
    edges = np.linspace(low, high, BINS + 1)
    width = edges[1] - edges[0]
    for row, colour in zip(rows, colours, strict=True):
        counts = np.histogram(row[:, 0], edges)[0]
        axes.stairs(counts / (max(len(row), 1) * width), edges, color=colour)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("density", size=8)


def _scatter(axes: Any, rows: list[np.ndarray], colours: Any, ranges: Any) -> None:
    if len(rows) == 1 and len(rows[0]) > CROWD:
        window = [list(ranges[0]), list(ranges[1])]
        axes.hist2d(rows[0][:, 0], rows[0][:, 1], bins=BINS, range=window, cmap="viridis")
    else:
        size = 12 if sum(map(len, rows)) < 500 else 4
        for row, colour in zip(rows, colours, strict=True):
            axes.scatter(row[:, 0], row[:, 1], size, [colour], alpha=0.7, linewidths=0)
    axes.set_xlim(*ranges[0])
    axes.set_ylim(*ranges[1])
    axes.set_box_aspect(1)
