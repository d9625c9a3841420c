"""Curves and bars as inline SVG, in the colours of the page that they stand on."""

import io
import re
from collections.abc import Sequence
from typing import Any

from jaxgen.evaluation.metrics import METRICS

TOGETHER: dict[str, tuple[str, dict[str, str]]] = {
    "losses": ("losses of the two players", {"d_loss": "D", "g_loss": "G"}),
    "judgements": (
        "what D holds to be real (probability)",
        {"d_real": "D(x)", "d_fake": "D(G(z))"},
    ),
}
"""Metrics that are read against each other; every other metric has a chart of its own."""

_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
_COLOURS = ("#3b7dd8", "#e0732c", "#2e9e6b", "#a05fc4")


def curves(rows: Sequence[dict[str, Any]], monitor: str, best: int) -> list[tuple[str, str]]:
    """(title, SVG) for each group of metrics in the rows of metrics.jsonl, with the step of the
    best checkpoint marked; the monitor comes first. What is not finite leaves a gap."""
    names = dict.fromkeys(n for row in rows for n in row if n not in ("step", "split", "skipped"))
    charts = []
    groups = sorted(_groups(list(names)), key=lambda group: monitor not in group[1])
    for title, members in groups:
        figure, axes = _figure(5.2, 2.9)
        drawn = [
            (name, label, split, _series(rows, name, split))
            for name, label in members.items()
            for split in ("train", "validation")
        ]
        drawn = [d for d in drawn if d[3]]
        for colour, (_, label, split, points) in zip(_COLOURS * len(drawn), drawn, strict=False):
            mark = "o" if split == "validation" else ""
            steps, values = zip(*points, strict=True)
            name = f"{label} {split}".strip()
            axes.plot(steps, values, color=colour, marker=mark, markersize=3, lw=1.4, label=name)
        line = "best checkpoint" if monitor in members else "the checkpoint"
        axes.axvline(best, color=_INK, lw=0.9, ls=":", label=f"{line}, step {best}")
        axes.set_xlabel("step")
        _legend(figure)
        charts.append((title, _svg(figure, title)))
    return charts


def bars(names: Sequence[str], shares: dict[str, Sequence[float]], title: str) -> str:
    """An SVG with a group of bars for each name."""
    figure, axes = _figure(5.2, 2.3)
    width = 0.8 / len(shares)
    for i, (label, values) in enumerate(shares.items()):
        places = [n + (i - (len(shares) - 1) / 2) * width for n in range(len(names))]
        axes.bar(places, values, width, color=_COLOURS[i], label=label)
    many = len(names) > 20
    axes.set_xticks(range(len(names)), ["" if many else str(n) for n in names])
    _legend(figure)
    axes.set_ylabel("share")
    return _svg(figure, title)


def _groups(names: list[str]) -> list[tuple[str, dict[str, str]]]:
    """(title, {metric: label}) of each chart, in the order of the metrics."""
    shared = {n: key for key, (_, members) in TOGETHER.items() for n in members if n in names}
    groups: dict[str, tuple[str, dict[str, str]]] = {}
    for name in names:
        if name in shared:
            title, members = TOGETHER[shared[name]]
            groups[shared[name]] = title, {n: t for n, t in members.items() if n in names}
        else:
            groups[name] = METRICS.get(name, name), {name: ""}
    return list(groups.values())


def _series(rows: Sequence[dict[str, Any]], name: str, split: str) -> list[tuple[int, float]]:
    """The (step, value) of a metric; [] where the split lacks it."""
    found = [(r["step"], r[name]) for r in rows if r.get("split") == split and name in r]
    return [(step, float("nan") if value is None else value) for step, value in found]


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


def _legend(figure: Any) -> None:
    """Names the curves above the axes, where they hide nothing."""
    place = "outside upper left"
    figure.legend(loc=place, ncols=3, frameon=False, fontsize=8, labelcolor=_INK)


def _svg(figure: Any, title: str) -> str:
    """The figure as an <svg> element: text as text, nothing loaded, the same bytes each time."""
    import matplotlib

    file = io.StringIO()
    none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(file, format="svg", transparent=True, metadata=none)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Within HTML an <svg> needs no namespaces; its size comes from the page.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every figure, and never referred to
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg role="img"', svg, count=1)
