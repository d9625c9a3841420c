"""Tables of trained presets: a row is one command, and is kept once it is made."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common
import pages
from common import RESULTS, ROOT

Row = dict[str, Any]
"""A run's results.json, with its task, its command, what it was measured `on`, and the seconds it
took."""


class Task(NamedTuple):
    """A data set, and the models on it with their flags."""

    title: str
    flags: tuple[str, ...]
    models: dict[str, tuple[str, ...]]


def train(name: str, task: Task, model: str, seed: int) -> Row:
    """Runs the command; its results, and the seconds it took."""
    words = ["train.py", f"--model={model}", *task.flags, *task.models[model]]
    command = [*words, f"--seed={seed}"]
    print("== python " + " ".join(command), flush=True)
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *command, f"--run={directory}/run"],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wall = time.perf_counter() - start
        results = json.loads((Path(directory) / "run" / "results.json").read_text())
    row = {"task": name, "command": "python " + " ".join(command), "wall_s": round(wall, 1)}
    row["on"] = common.named(common.machine())
    return row | {n: x for n, x in results.items() if n != "seconds"}


def cells(rows: Sequence[Row], *path: str, form: str = ".2f") -> str:
    """One number of each seed."""
    found = []
    for row in rows:
        value: Any = row
        for name in path:
            value = value[name]
        found.append(format(value, form))
    return ", ".join(found)


def show(
    name: str,
    tasks: Mapping[str, Task],
    table: Callable[[str, list[Row]], str],
    result: dict[str, Any],
    check: bool,
) -> None:
    """Writes the tables between the page's marks of that name, or checks that it shows them."""
    parts = []
    for key, task in tasks.items():
        rows = [row for row in result["rows"] if row["task"] == key]
        if rows:
            parts.append(f"**{task.title}**\n\n{table(key, rows)}")
    text = "\n\n".join([*parts, common.measured(result["rows"])])
    if check:
        pages.check(pages.RESULTS_PAGE, name, text, f"python benchmarks/{name}.py --table")
    else:
        pages.write(pages.RESULTS_PAGE, name, text)


def main(
    does: str,
    name: str,
    tasks: Mapping[str, Task],
    default: Sequence[str],
    table: Callable[[str, list[Row]], str],
    make: Callable[[str, Task, str, int], Row] = train,
) -> None:
    """The command line of a benchmark whose results and marks have that name; `make` makes the row
    of a task's name, the task, a model and a seed."""
    parser = argparse.ArgumentParser(description=does)
    models = list(dict.fromkeys(model for task in tasks.values() for model in task.models))
    parser.add_argument("--tasks", nargs="+", default=list(default), choices=list(tasks))
    parser.add_argument("--models", nargs="+", default=models, choices=models)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="make rows anew that are there")
    parser.add_argument("--out", type=common.a_path, default=RESULTS / f"{name}.json")
    parser.add_argument("--table", action="store_true", help="run nothing, write the tables")
    parser.add_argument(
        "--check", action="store_true", help="run nothing; exit with 1 if a page shows another"
    )
    asked = parser.parse_args()
    kept = json.loads(asked.out.read_text())["rows"] if asked.out.exists() else []
    if asked.table or asked.check:
        show(name, tasks, table, json.loads(asked.out.read_text()), asked.check)
        return
    rows = {(r["task"], r["model"], r["seed"]): r for r in kept}
    # Seed by seed: what is made first has every model.
    for seed in asked.seeds:
        for key in asked.tasks:
            for model in tasks[key].models:
                if model in asked.models and (asked.again or (key, model, seed) not in rows):
                    rows[key, model, seed] = make(key, tasks[key], model, seed)
                    common.write(
                        asked.out, {"machine": common.machine(), "rows": list(rows.values())}
                    )
