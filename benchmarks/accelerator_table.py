"""The results of accelerator.py as text: a summary on the screen, a table in RESULTS.md."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import pages
from common import RESULTS

NAME = "accelerator"
"""Of the marks between which the table stands."""


def summary(result: dict[str, Any]) -> str:
    """A line an item: how it ended, in how long, and why if not well."""
    lines = []
    for name, item in result["items"].items():
        why = item.get("error", item.get("why", ""))
        verdict = {True: ", as asked", False: ", NOT as asked"}.get(item.get("found", {}).get("ok"))
        lines.append(
            f"{name:24s} {item['status']}{verdict or ''} {item.get('seconds', 0):6.1f} s {why}"
        )
    return "\n".join(lines)


def markdown(results: list[dict[str, Any]]) -> str:
    """What was found on every card, without what a note of the results says is spoiled; what
    another note is about has a mark."""
    lines = ["| card | question | found | goal |", "|---|---|---|---|"]
    for result in results:
        device = result["machine"]["device"]
        notes = result.get("notes", {})
        for name, item in result["items"].items():
            if name in result.get("spoiled", ()) or item["status"] == "skipped":
                continue
            rows = list(_rows(name, item.get("found", {})))
            if item["status"] != "done":
                rows.append((f"`{name}`", item["status"], ""))
            mark = " (!)" if name in notes else ""
            lines += [f"| {device} | {a}{mark} | {b} | {c} |" for a, b, c in rows]
    where = "; ".join(
        f"{common.named(r['machine'])}, PyTorch {r['machine'].get('torch', 'none')}"
        for r in results
    )
    told = [
        f"- `{name}`{', left out' if name in result.get('spoiled', ()) else ' (!)'}: {text}"
        for result in results
        for name, text in result.get("notes", {}).items()
    ]
    return "\n".join([*lines, "", f"Measured on {where}.", *([""] if told else []), *told])


def _rows(name: str, found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(question, found, goal)"""
    if name.startswith("right.") and "rows" in found:
        good = [r["name"] for r in found["rows"] if r.get("ok", r.get("same_bits"))]
        bad = [r["name"] for r in found["rows"] if r["name"] not in good]
        shown = f"{len(good)} of {len(found['rows'])}" + (f"; not {', '.join(bad)}" if bad else "")
        yield f"`{name}`", shown, "all"
    elif name == "right.precision" and "test_nats" in found:
        nats = ", ".join(f"{k} {v:.3f}" for k, v in found["test_nats"].items())
        yield "test nats of PixelCNN on digits, by precision of products", nats, ""
    elif name == "fast.rates":
        rates = [f"{k} {v / 1e12:.3g} T/s" for k, v in found.items() if isinstance(v, float)]
        shown = ", ".join(rates) + ("" if found.get("steady", True) else "; NOT steady")
        yield "matrix products and copies", shown, ""
    elif name.startswith("numbers.") and "test_default" in found:
        test = found["test_default"]
        budget = f"{found['epochs']:.0f} epochs, {found['train_s']:.0f} s"
        shown = f"{test['nats']:.2f} ± {test['se']:.2f} nats ({test['kind']}; {budget})"
        yield (
            f"test NLL, {name.removeprefix('numbers.')}",
            shown,
            f"published: {found['published']}",
        )
    else:
        yield from _times(found.get("rows", []))


def _times(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Samplers beside their forward pass, and train steps beside the best peer."""
    forward: dict[Any, float] = {}
    for row in rows:
        if "batch_s" in row:
            key, middle = (row["network"], row["batch"]), row["batch_s"]["median"]
            if row["side"] == "forward":
                forward[key] = middle
                continue
            shown = f"{common.span(row['batch_s'])} s"
            shown += f", {middle / forward[key]:.3g} forward passes" if key in forward else ""
            goal = f"<= {row['goal_s']} s" if "goal_s" in row else ""
            yield f"sampling, {key[0]}, batch {key[1]}, {row['side']}", shown, goal
        elif row["side"].startswith("ours"):
            same = lambda r, row=row: all(r.get(k) == row[k] for k in ("case", "precision"))  # noqa: E731
            peers = [r for r in rows if "over_ours" in r and same(r)]
            shown = f"{common.span(row['step_s'], 1e3)} ms"
            if row.get("share_of_matmul"):
                shown += f", {100 * row['share_of_matmul']:.2g} % of the matrix products' rate"
            for kind in dict.fromkeys(r["kind"] for r in peers):
                best = min((r for r in peers if r["kind"] == kind),
                           key=lambda r: r["over_ours"]["median"])  # fmt: skip
                shown += f"; PyTorch {kind}, {best['side']}: **{common.span(best['over_ours'])}**"
            goal = ">= 1.0" if peers else ""
            extra = row["side"].removeprefix("ours")
            yield f"train step, {row['case']}, {row['precision']}{extra}", shown, goal


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The results that are there, of real runs."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("accelerator-*.json"))]
    return [result for result in found if not result.get("quick") and "machine" in result]


def main(write: bool) -> int:
    """Writes RESULTS.md's table, or says whether it is that of the results."""
    results = load()
    if not results:
        return 0
    if write:
        pages.write(pages.RESULTS_PAGE, NAME, markdown(results))
    else:
        script = "python benchmarks/accelerator.py --table"
        pages.check(pages.RESULTS_PAGE, NAME, markdown(results), script)
    return 0
