"""Curves and bars as inline SVG, in the colours of the page that they stand on."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.model import Metric
from jaxgen.report.text import readable

FACTS = ("step", "split", "skipped")
"""What a row has beside its metrics."""
NORM = "grad_norm"
"""What the names of norms of gradients end with, after whose they are."""
LETTERS = 80
"""About as many stand side by side below a chart."""
_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
_COLOURS = (
    *("#3b7dd8", "#e0732c", "#2e9e6b", "#a05fc4"),
    *("#c0504d", "#8a6d3b", "#d16ba5", "#5b8c9e", "#b5a642", "#7a7a7a"),
)
MOST_COLOURS = len(_COLOURS)
"""Groups of a scatter plot that colours tell apart."""


@contextlib.contextmanager
def _as_written() -> Iterator[None]:
    """Has matplotlib draw names as they are: no `$` begins a formula, and characters that its font
    lacks are left to the reader's fonts."""
    import matplotlib

    plain: Any = {"text.parse_math": False, "svg.fonttype": "none"}
    with matplotlib.rc_context(plain), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


@_as_written()
def curves(
    rows: Sequence[dict[str, Any]], metrics: Mapping[str, Metric], monitor: str, best: int
) -> list[tuple[str, str]]:
    """(title, SVG) for each chart of the rows of metrics.jsonl, as `metrics` declare them, with
    the step of the best checkpoint marked; the monitor comes first. What is not finite leaves a
    gap, the norms of the players' gradients share a chart, and a metric that is not declared goes
    by its name."""
    names = list(dict.fromkeys(n for row in rows for n in row if n not in FACTS))
    groups = _groups({name: metrics.get(name) or _undeclared(name) for name in names})
    charts = []
    for title, group in sorted(groups.items(), key=lambda item: monitor not in item[1]):
        lines = [
            (f"{name} {split}".strip(), split, _series(rows, metric, split))
            for metric, name in group.items()
            for split in ("train", "validation")
        ]
        line = "best checkpoint" if monitor in group else "the checkpoint"
        charts.append((title, _chart(title, lines, best, f"{line}, step {best}")))
    return charts


def _chart(
    title: str, lines: list[tuple[str, str, list[tuple[int, float]]]], best: int, mark: str
) -> str:
    """The SVG of lines (name, split, points), those that have points."""
    figure, axes = _figure(5.2, 2.9)
    drawn = [line for line in lines if line[2]]
    for colour, (name, split, points) in zip(_COLOURS * len(drawn), drawn, strict=False):
        steps, values = zip(*points, strict=True)
        dot = "o" if split == "validation" else ""
        shown = readable(name)
        axes.plot(steps, values, color=colour, marker=dot, markersize=3, lw=1.4, label=shown)
    axes.axvline(best, color=_INK, lw=0.9, ls=":", label=mark)
    axes.set_xlabel("step")
    _legend(figure)
    return _svg(figure, title)


@_as_written()
def bars(names: Sequence[str], shares: Mapping[str, Sequence[float]], title: str) -> str:
    """An SVG with a group of bars for each name."""
    figure, axes = _figure(5.2, 2.3)
    width = 0.8 / len(shares)
    for i, (label, values) in enumerate(shares.items()):
        places = [n + (i - (len(shares) - 1) / 2) * width for n in range(len(names))]
        axes.bar(places, values, width, color=_COLOURS[i], label=label)
    # What fits side by side: of many classes, none.
    room = LETTERS // max(len(names), 1) if len(names) <= 20 else 0
    axes.set_xticks(range(len(names)), [_cut(readable(str(n)), room) for n in names])
    _legend(figure)
    axes.set_ylabel("share")
    return _svg(figure, title)


@_as_written()
def scatter(groups: Mapping[str, np.ndarray], behind: tuple[str, np.ndarray], title: str) -> str:
    """An SVG of points [n 2], a colour a group, over those of `behind`, a name and points in the
    page's own colour."""
    figure, axes = _figure(5.2, 4.4)
    name, points = behind
    axes.plot(*points.T, "x", color=_INK, alpha=0.35, markersize=4, label=readable(name))
    for colour, (group, at) in zip(_COLOURS * len(groups), groups.items(), strict=False):
        axes.plot(*at.T, "o", color=colour, alpha=0.8, markersize=3, label=readable(group))
    axes.set_aspect("equal", adjustable="datalim")
    _legend(figure, 6)
    return _svg(figure, title)


@_as_written()
def spreads(names: Sequence[str], means: np.ndarray, deviations: np.ndarray, title: str) -> str:
    """An SVG of a mean and a deviation to both sides for each name, beside the lines of 0, and of 1
    to both sides."""
    figure, axes = _figure(5.2, 2.6)
    for level in (-1.0, 0.0, 1.0):
        axes.axhline(level, color=_INK, lw=0.9, ls="-" if level == 0 else ":")
    axes.errorbar(
        range(len(names)), means, deviations, fmt="o", color=_COLOURS[0], markersize=3, lw=1.2
    )
    room = LETTERS // max(len(names), 1) if len(names) <= 20 else 0
    axes.set_xticks(range(len(names)), [_cut(n, room) for n in names])
    axes.set_xlabel("latent")
    return _svg(figure, title)


def _cut(name: str, room: int) -> str:
    """The name, or as much of it as so many letters hold."""
    return name if len(name) <= room else f"{name[: room - 1]}…" if room else ""


def _undeclared(name: str) -> Metric:
    """A norm of gradients, which every step measures, or what only its name tells of."""
    if not name.endswith(NORM):
        return Metric(name)
    return Metric(name, chart="norm of gradients", curve=name.removesuffix(NORM)[:-1].upper())


def _groups(metrics: Mapping[str, Metric]) -> dict[str, dict[str, str]]:
    """The charts by their title, each with its metrics and the names of their curves."""
    groups: dict[str, dict[str, str]] = {}
    for name, metric in metrics.items():
        groups.setdefault(metric.chart or str(metric), {})[name] = metric.curve
    return groups


def _series(rows: Sequence[dict[str, Any]], name: str, split: str) -> list[tuple[int, float]]:
    """The (step, value) of a metric; [] where the split lacks it."""
    points = [(r["step"], r[name]) for r in rows if r.get("split") == split and name in r]
    return [(step, float("nan") if value is None else value) for step, value in points]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.xaxis.label.set(color=_INK, size=8)
    axes.yaxis.label.set(color=_INK, size=8)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_INK, alpha=0.15, lw=0.6)
    return figure, axes


def _legend(figure: Any, columns: int = 3) -> None:
    """Names the curves above the axes, where they hide nothing."""
    place = "outside upper left"
    figure.legend(loc=place, ncols=columns, frameon=False, fontsize=8, labelcolor=_INK)


def _svg(figure: Any, title: str) -> str:
    """The figure as an <svg> element: text as text, nothing loaded, the same bytes each time."""
    import matplotlib

    file = io.StringIO()
    none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": readable(title)}):
        figure.savefig(file, format="svg", transparent=True, metadata=none)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Within HTML an <svg> needs no namespaces; its size comes from the page.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every figure, and never referred to
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg role="img"', svg, count=1)
