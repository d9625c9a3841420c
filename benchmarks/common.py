"""What the benchmarks share: the machine and its limits, alternation, tables, files and plots."""

import argparse
import dataclasses
import io
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import Split
from jaxgen.files import user_path, write_atomic
from jaxgen.parallel.mesh import make_mesh, on_every_device
from jaxgen.runs.environment import environment
from jaxgen.runs.state import start
from jaxgen.training import steps
from jaxgen.training.feed import Feed, first_examples

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CAPACITY = 50
"""Steps per dispatch, the trainer's default."""

Run = Callable[[int], Any]
"""Does n units of work and waits for them."""


def a_path(text: str) -> Path:
    """The absolute path that a flag means: ~ is a home."""
    return user_path(text, "the path")


def arguments(doc: str, name: str, rounds: int = 5, seconds: float = 1.0) -> Any:
    """The parser of a benchmark, with the flags that all of them take."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="times that each side is timed")
    parser.add_argument("--seconds", type=float, default=seconds, help="about, per timed block")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=a_path, default=RESULTS / f"{name}.json")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> Any:
    asked = parser.parse_args(argv)
    if asked.quick:
        asked.rounds, asked.seconds = 2, 0.02
        jax.config.update("jax_disable_most_optimizations", True)  # compiling takes most of it
    return asked


# The machine and its limits.


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    found = {k: v for k, v in environment().items() if k not in ("command", "commit")}
    return {**found, "cpu": _cpu(), "load": round(os.getloadavg()[0], 2)}


def _cpu() -> str:
    """The processor's name: model, family and whether it has AVX-512 (clouds hide the model)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in text.splitlines() if ":" in line
    )
    name = f"{fields.get('model name', 'unknown')} family {fields.get('cpu family', '?')}"
    return name + (", AVX-512" if "avx512f" in fields.get("flags", "") else "")


def named(found: Mapping[str, Any]) -> str:
    """One line on a `machine()`."""
    device = found["cpu"] if found["backend"] == "cpu" else found["device"]
    return f"{device}, {found['cpu_count']} cores, JAX {found['packages']['jax']}"


def measured(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line on what rows were measured `on`, a `named` machine each; of several, with the tasks
    and models of which the fewer rows are."""
    machines: dict[str, dict[str, dict[str, None]]] = {}
    for row in rows:
        tasks = machines.setdefault(row["on"], {})
        tasks.setdefault(row["task"], {})[f"`{row['model']}`"] = None
    count = {on: sum(row["on"] == on for row in rows) for on in machines}
    most, *others = sorted(machines, key=lambda on: -count[on])
    parts = [f"Measured on {most}"]
    for on in others:
        of = "; ".join(f"{', '.join(names)} ({task})" for task, names in machines[on].items())
        parts.append(f"{count[on]} rows of {len(rows)} on {on}: {of}")
    return ". ".join(parts) + "."


def matmul(quick: bool) -> tuple[Run, float]:
    """Float32 matrix products at JAX's default precision, and the FLOPs of one: the limit."""
    size = 256 if quick else 2048 if jax.default_backend() == "cpu" else 8192
    a, multiply = jnp.ones((size, size)), jax.jit(lambda a: a @ a)

    def run(count: int) -> None:
        for _ in range(count):
            product = multiply(a)
        product.block_until_ready()

    return run, 2.0 * size**3


def copy(quick: bool) -> tuple[Run, float]:
    """Copies of host memory far larger than the caches, and the bytes that one moves (read and
    written): the limit where bytes bound."""
    size = 2**20 if quick else 2**28
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)

    def run(count: int) -> None:
        for _ in range(count):
            np.copyto(target, source)

    return run, 2.0 * size


def flops(function: Callable[..., Any], *args: Any) -> float:
    """XLA's count for one call, on arguments of these shapes.

    Of the program for a CPU, whatever the device: those of accelerators count nothing. And of the
    program before it is optimized: the calls into libraries that a compiled one is made of count
    as nothing.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return float(jax.jit(function).lower(*shapes).cost_analysis()["flops"])


def state_shapes(model: jaxgen.Model) -> Any:
    """The shapes of a model's state."""
    return jax.eval_shape(model.init, jax.random.key(0), model.spec.shapes(1))


def fresh(model: jaxgen.Model) -> Any:
    """A model's first state, on one device."""
    return on_every_device(make_mesh(1), model.init, jax.random.key(0), model.spec.example(1))


def in_one_piece(model: Any) -> Any:
    """The model whose step has no loops over parts of a batch or of the network, of which XLA
    counts one pass alone. It costs the same but for what `remat` computes again."""
    wanted = {"accumulate": 1, "remat": False}
    return dataclasses.replace(model, **{k: v for k, v in wanted.items() if hasattr(model, k)})


def step_flops(model: jaxgen.Model, batch: int) -> float:
    """Of a train step."""
    batches = model.spec.shapes(batch * model.minibatches)
    step = jax.ShapeDtypeStruct((), np.int32)
    one = in_one_piece(model)
    return flops(one.train_step, jax.random.key(0), state_shapes(model), batches, step)


# What is measured.


def synthetic(spec: jaxgen.DataSpec, num: int) -> Dataset:
    """Random images of the spec's shape and levels, and sources where it has them; the train split
    alone."""
    rng = np.random.default_rng(0)

    def images(spec: jaxgen.DataSpec) -> np.ndarray:
        shape = (num, *spec.shape)
        if spec.levels:
            return rng.integers(spec.levels, size=shape, dtype=np.uint8)
        return rng.uniform(-1, 1, shape).astype(np.float32)

    columns = {"x": images(spec)}
    if spec.source is not None:
        columns["source"] = images(spec.source)
    return Dataset("synthetic", spec, {"train": Split(columns)}, (), "", "random images")


def steps_of(model: jaxgen.Model, dataset: Dataset, mesh: Any, batch: int) -> Run:
    """Train steps as the trainer runs them: many a dispatch, the next chunk prepared meanwhile.

    The returned function gives back the state that it has reached.
    """
    examples = batch * model.minibatches
    feed = Feed(dataset, 0, examples, mesh, CAPACITY)
    run = steps.compile_steps(model, feed, mesh)
    init = lambda key, batch: start(model.init(key, batch))  # noqa: E731
    first_batch = first_examples(dataset, 0, batch)
    progress, done = on_every_device(mesh, init, jax.random.key(0), first_batch), 0
    key = jax.random.key(1)

    def advance(count: int) -> Any:
        nonlocal progress, done
        for first in range(0, count, CAPACITY):
            some = min(CAPACITY, count - first)
            progress, _ = run(progress, key, feed.chunk(done * examples, some), np.int32(some))
            done += some
        return jax.block_until_ready(progress).state

    return advance


def block(run: Run, seconds: float) -> Callable[[], float]:
    """A function that runs for about `seconds` and returns the seconds per unit; warmed up."""
    run(1), run(1)
    count, spent = 1, 0.0
    while True:
        start = time.perf_counter()
        run(count)
        spent = time.perf_counter() - start
        if spent > seconds / 4:
            break
        count *= 2
    count = max(1, round(count * seconds / spent))

    def timed() -> float:
        start = time.perf_counter()
        run(count)
        return (time.perf_counter() - start) / count

    return timed


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each side's value in every round; every other round goes through the sides backwards."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds):
        for name in list(sides)[:: 1 if i % 2 == 0 else -1]:
            values[name].append(sides[name]())
    return values


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """The ratio of the medians, with the smallest and the largest within one round."""
    each = [o / u for o, u in zip(over, under, strict=True)]
    middle = statistics.median(over) / statistics.median(under)
    return {"median": middle, "min": min(each), "max": max(each)}


def share(work: float, times: Mapping[str, Sequence[float]], limit: str, unit: float) -> Any:
    """How much of the limit's rate "ours" reaches: `work` FLOPs or bytes a unit of ours, `unit` a
    unit of the limit's."""
    return ratio([work / unit * t for t in times[limit]], times["ours"])


def target(
    task: str, ours: str, peer: str, found: Mapping[str, float] | None, need: str = ""
) -> dict[str, Any]:
    """One row of RESULTS.md's table; `need` is ">= 1.25" or "<= 8", "" where nothing is asked."""
    row: dict[str, Any] = {"task": task, "ours": ours, "peer": peer, "ratio": found, "target": need}
    if need and found is not None:
        sign, bound = need.split()
        value = found["median"]
        row["met"] = value >= float(bound) if sign == ">=" else value <= float(bound)
    return row


# Fresh processes.


def python(*args: str, **kwargs: Any) -> subprocess.CompletedProcess:
    """This Python, run from the repository's root, with what it prints kept."""
    command = [sys.executable, *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **kwargs)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done


# What is shown.


def span(found: Mapping[str, float], scale: float = 1.0, digits: int = 3) -> str:
    """median (min..max)"""
    shown = [f"{scale * found[name]:.{digits}g}" for name in ("median", "min", "max")]
    shown = [f"{float(s):,.0f}" if "e+" in s else s for s in shown]
    return f"{shown[0]} ({shown[1]}..{shown[2]})"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns, aligned; the first column to the left."""
    lines = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def aligned(line: Sequence[str]) -> str:
        first, *others = zip(line, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(v.rjust(w) for v, w in others)])

    return "\n".join(aligned(line).rstrip() for line in lines)


def verdict(row: Mapping[str, Any]) -> str:
    if not row["target"]:
        return ""
    return {True: "met", False: "missed", None: "not measured"}[row.get("met")]


def target_table(targets: Sequence[Mapping[str, Any]]) -> str:
    return table(
        [
            {
                "target of": row["task"],
                "ours": row["ours"],
                "peer or limit": row["peer"],
                "ratio": span(row["ratio"]) if row["ratio"] else "-",
                "target": row["target"],
                "": verdict(row),
            }
            for row in targets
        ]
    )


def _short(value: Any) -> Any:
    """Floats at five digits, through lists and mappings; JSON has no number that is not finite."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, list | tuple) else value


def write(out: Path, result: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, (json.dumps(_short(result), indent=2, allow_nan=False) + "\n").encode())


def beside(out: Path, cases: Sequence[str]) -> tuple[list[dict], list[dict]]:
    """The rows and the targets that a file has of other cases, with what each was measured `on`."""
    if not out.exists():
        return [], []
    old = json.loads(out.read_text())
    on = named(old["machine"])
    rows, targets = (
        [{**row, "on": row.get("on", on)} for row in old[name] if row["case"] not in cases]
        for name in ("rows", "targets")
    )
    return rows, targets


def finish(
    asked: Any,
    rows: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    draw: Callable[[Any], None],
    **more: Any,
) -> None:
    """Prints the targets, writes the JSON, and the plot beside it."""
    found = {**machine(), **more.pop("machine", {})}
    print("\n" + target_table(targets) + f"\n{named(found)}")
    settings = {k: v for k, v in vars(asked).items() if k != "out"}
    result = {"machine": found, "settings": settings, **more, "rows": rows, "targets": targets}
    write(asked.out, result)
    picture = asked.out.with_suffix(".png")
    write_atomic(picture, plot(draw))
    print(f"written to {asked.out} and {picture}")


def plot(draw: Callable[[Any], None]) -> bytes:
    """The PNG of what `draw` draws on a figure."""
    # Takes half a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
