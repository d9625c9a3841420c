"""Seconds from the shell: importing, --help, and to the first train step, cold and warm.

    python benchmarks/startup.py [--rounds 3] [--quick]

Every round starts fresh processes. The first step is done when its row stands in metrics.jsonl.
A cold start has an empty compilation cache (`JAX_COMPILATION_CACHE_DIR`); a warm one finds what
the last cold one left. The limit is importing JAX, Flax and Optax alone.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

LIMIT = "import jax, flax, optax"
IMPORT, HELP, COLD, WARM = "import jaxgen", "--help", "first step, cold", "first step, warm"
NEEDS = {IMPORT: 2, HELP: 3, COLD: None, WARM: 8}
"""Seconds that are asked for."""


def seconds(*args: str) -> float:
    start = time.perf_counter()
    common.python(*args)
    return time.perf_counter() - start


def first_step(directory: Path, cache: Path) -> float:
    """Seconds to the first row of metrics of `train.py --model=vae --steps=1`."""
    metrics = directory / "metrics.jsonl"
    command = [sys.executable, "train.py", "--model=vae", "--steps=1", f"--run={directory}"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=common.ROOT, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    found = time.perf_counter() - start
    # To its end: the rest of the run compiles, and fills the cache, as well.
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{errors[-2000:]}")
    return found


def starts(directory: Path) -> dict[str, Callable[[], float]]:
    """Cold and warm starts; the cold one makes the cache that the next warm one finds."""
    made = 0

    def cold() -> float:
        nonlocal made
        made += 1
        return first_step(directory / f"cold-{made}", directory / f"cache-{made}")

    def warm() -> float:
        if not made:
            cold()
        run = tempfile.mkdtemp(prefix="warm-", dir=directory)
        return first_step(Path(run), directory / f"cache-{made}")

    return {COLD: cold, WARM: warm}


def targets_of(rows: list[dict]) -> list[dict]:
    """Seconds against what is asked, and the ratio to importing what jaxgen stands on."""
    limit = next(row for row in rows if row["what"] == LIMIT)
    targets = []
    for row in rows:
        if row is limit:
            continue
        need = NEEDS[row["what"]]
        shown, peer = (f"{common.span(r['seconds'])} s" for r in (row, limit))
        target = common.target(
            f"startup: {row['what']}", shown, f"{LIMIT}, {peer}", row["over_limit"]
        )
        if need is not None:
            target |= {"target": f"<= {need} s", "met": row["seconds"]["median"] <= need}
        targets.append(target)
    return targets


def draw(figure: Any, rows: list[dict]) -> None:
    """Seconds of each, and the target as a line across its bar."""
    axes = figure.subplots()
    for i, row in enumerate(rows[::-1]):
        found = row["seconds"]
        error = [[found["median"] - found["min"]], [found["max"] - found["median"]]]
        axes.barh(row["what"], found["median"], xerr=error, color="#3b7dd8")
        if need := NEEDS.get(row["what"]):
            axes.plot([need, need], [i - 0.4, i + 0.4], color="#e0732c", lw=2)
    axes.set_xlabel("seconds from the shell; orange: the target")


def main() -> None:
    asked = common.parse(common.arguments(__doc__, "startup", rounds=3))
    sides = {
        LIMIT: lambda: seconds("-c", "import jax, flax.linen, optax"),
        IMPORT: lambda: seconds("-c", "import jaxgen"),
        HELP: lambda: seconds("train.py", "--model=vae", "--help"),
    }
    with tempfile.TemporaryDirectory() as directory:
        if asked.quick:
            asked.rounds = 1
        else:
            sides |= starts(Path(directory))
        for name in (LIMIT, IMPORT):
            sides[name]()  # reads the files once
        times = common.alternate(sides, asked.rounds)
    rows = [
        {
            "what": name,
            "seconds": common.spread(values),
            "over_limit": common.ratio(values, times[LIMIT]),
        }
        for name, values in times.items()
    ]
    print(common.table([shown(row) for row in rows]))
    common.finish(asked, rows, targets_of(rows), lambda figure: draw(figure, rows))


def shown(row: dict) -> dict[str, str]:
    return {
        "from the shell": row["what"],
        "s (min..max)": common.span(row["seconds"]),
        "time / limit": common.span(row["over_limit"]),
    }


if __name__ == "__main__":
    main()
