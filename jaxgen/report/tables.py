"""The results of a run as tables with units, for the terminal and for the report."""

import math
from typing import Any, NamedTuple

from jaxgen.evaluation.metrics import HIGHER, METRICS


class Table(NamedTuple):
    """Text only."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""
    """The protocol."""
    ranked: bool = False
    """Whether the first row is the model's own, and the others stand beside it."""


def tables(results: dict[str, Any]) -> list[Table]:
    """The tables of what `final_results` returned."""
    found = []
    rows: list[tuple[str, ...]]
    columns: tuple[str, ...]
    where = f"{results['split']} split, {results['images']} images"
    likelihood, scores = results["likelihood"], results["scores"]
    if likelihood:
        models = {f"{results['model']} ({likelihood['kind']})": likelihood["model"]}
        rows = [
            (n, spread(x["nats"], x["nats_se"]), spread(x["bits_per_dim"], x["bits_per_dim_se"]))
            for n, x in (models | likelihood["baselines"]).items()
        ]
        columns = ("negative log-likelihood", "nats per image", "bits per dimension")
        note = f"± one standard error of the mean over the images. {likelihood['protocol']}"
        found.append(
            Table(f"Likelihood on the {where}; lower is better", columns, rows, note, True)
        )
    if scores:
        better = {name: "higher" if name in HIGHER else "lower" for name in scores["model"]}
        rows = [
            (METRICS.get(n, n), number(x), number(scores["floor"][n]), better[n])
            for n, x in scores["model"].items()
        ]
        columns = ("score", results["model"], "train images", "better")
        title = f"{scores['samples']} samples against the {results['split']} split"
        note = f"train images: the same scores of real images, the floor. {scores['protocol']}"
        found.append(Table(title, columns, rows, note))
    if results["metrics"]:
        rows = [(METRICS.get(n, n), spread(**x)) for n, x in results["metrics"].items()]
        found.append(Table(f"Further means over the {where}", ("metric", "mean"), rows))
    if results["inspection"]:
        rows = [(name, number(x)) for name, x in results["inspection"].items()]
        title = "Measured on the first images of the validation split"
        found.append(Table(title, ("measure", "value"), rows))
    return found


def text(results: dict[str, Any]) -> str:
    """The tables in plain text."""
    blocks = [
        f"{results['protocol']}\n{results['model']}, {results['parameters']:,} parameters, "
        f"checkpoint of step {results['step']}"
    ]
    return "\n\n".join([*blocks, *map(_plain, tables(results))])


def seeds_text(summary: dict[str, Any]) -> str:
    """What `seeds.summarize` returned, in plain text."""
    sections = ("likelihood", "metrics", "scores", "inspection")
    units = {"nats": METRICS["nll"], "bits_per_dim": "negative log-likelihood (bits per dimension)"}
    rows: list[tuple[str, ...]] = [
        (
            (METRICS | units).get(name, name),
            spread(x["mean"], x["std"]),
            ", ".join(map(number, x["values"])),
        )
        for section in sections
        for name, x in summary[section].items()
    ]
    seeds = ", ".join(map(str, summary["seeds"]))
    title = f"{summary['model']} of seeds {seeds}, {summary['split']} split"
    columns = ("metric", "mean", "each seed")
    note = "± one standard deviation over the seeds."
    return f"{summary['protocol']}\n\n{_plain(Table(title, columns, rows, note))}"


def _plain(table: Table) -> str:
    """A table in plain text."""
    rows = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n  ".join([table.title, *lines]) + (f"\n  {table.note}" * bool(table.note))


def spread(mean: float | None, se: float | None) -> str:
    """A mean with its standard error, to two significant digits of the latter."""
    if mean is None or se is None:
        return "not finite"
    if se <= 1e-9 * abs(mean):  # a constant, but for rounding; also zero
        return number(mean)
    decimals = max(0, 1 - math.floor(math.log10(se)))
    return f"{mean:.{decimals}f} ± {se:.{decimals}f}"


def number(x: float | None) -> str:
    """A number to four significant digits."""
    if x is None:
        return "not finite"
    return f"{x:.0f}" if float(x).is_integer() else f"{x:.4g}"
