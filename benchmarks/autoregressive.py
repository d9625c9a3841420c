"""The autoregressive family in one table: every model, four data sets, one protocol.

    python benchmarks/autoregressive.py [--tasks digits …] [--models pixelcnn …] [--seeds 0 1 2]
    python benchmarks/autoregressive.py --table   # writes RESULTS.md's table of the rows there are

A row is `python train.py --model=MODEL FLAGS --seed=SEED` without its final report: the preset
trained by the trainer, the checkpoint chosen on validation, the NLL of the whole test split. Rows
that are in the results already are kept; --again makes them anew. MNIST is read as prepared TFDS
data from --data_dir or $TFDS_DATA_DIR.

Dynamic MNIST is tested on one binarization of the test split, drawn once with seed 0. Sampling is
of 64 images at once; the naive time is extrapolated from whole passes, one a sub-pixel.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
import pages
import sampling
from common import RESULTS

import jaxgen
from jaxgen.evaluation.baselines import fit_baselines
from jaxgen.evaluation.describe import parameters
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.parallel.inference import mean_and_error
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.state import keys_of, shapes
from jaxgen.training.trainer import Trainer, mesh_of

IMAGES = 64
"""Sampled at once."""


class Task(NamedTuple):
    """A data set, with the flags that choose it."""

    title: str
    flags: dict[str, Any]
    small: bool
    """Whether presets are trained to their end, by several seeds; else for `MNIST_STEPS`."""


TASKS = {
    "digits": Task("digits, 17 levels", {}, True),
    "binary": Task("digits, binarized at one half", {"binarize": "threshold"}, True),
    "static": Task("MNIST, static", {"dataset": "binarized_mnist"}, False),
    "dynamic": Task("MNIST, dynamic", {"dataset": "mnist", "binarize": "dynamic"}, False),
}

MNIST_STEPS = {
    "pixelcnn": 800,
    "gated": 450,
    "pixelcnnpp": 400,
    "rowlstm": 900,
    "diagonal": 350,
    "pixelsnail": 200,
    "nade": 2000,
    "made": 8000,
}
"""Two to three minutes of processor time each (PixelSNAIL: eight), 0.1 to 2.6 epochs."""

MNIST_BATCH = 16
"""Images per step, as in the PixelRNN paper; without dropout, which so short a training does not
need."""

PAPER = {
    ("static", "pixelcnn"): ("81.30", "van den Oord et al. 2016a"),
    ("static", "rowlstm"): ("80.54", "van den Oord et al. 2016a, 7 layers"),
    ("static", "diagonal"): ("79.20", "van den Oord et al. 2016a, 7 layers"),
    ("static", "nade"): ("88.33", "Larochelle & Murray 2011, 500 units"),
    ("static", "made"): ("86.64", "Germain et al. 2015, 2 layers, 32 masks"),
    ("dynamic", "pixelcnn"): ("81.45", "pytorch-generative, 457 epochs"),
    ("dynamic", "gated"): ("81.50", "pytorch-generative"),
    ("dynamic", "pixelsnail"): ("78.61", "pytorch-generative"),
    ("dynamic", "nade"): ("85.65", "pytorch-generative, 50 epochs"),
    ("dynamic", "made"): ("84.87", "pytorch-generative, 85 epochs"),
}
"""Test nats that were published, and by whom. The static files are the same everywhere; of dynamic
ones everybody draws their own."""


SAME = {
    "static": "same protocol, trained in full",
    "dynamic": "another draw of the test split, trained in full",
}
"""Whether a published figure's protocol is ours."""


def models() -> list[str]:
    """The autoregressive models of images."""
    image = lambda m: isinstance(m, Autoregressive) and m.spec.height > 1  # noqa: E731
    return [name for name, chosen in jaxgen.MODELS.items() if image(chosen.model)]


def run_of(name: str, task: Task, seed: int, data_dir: str | None) -> tuple[Any, Any]:
    """The Run that `train.py` would make of the row's command, and its data set."""
    chosen = jaxgen.preset(name)
    where = {"data_dir": data_dir} if "dataset" in task.flags else {}
    data = dataclasses.replace(chosen.data, **task.flags, **where)
    dataset = jaxgen.load(data)
    train = dataclasses.replace(chosen.train, seed=seed)
    if not task.small:
        steps = MNIST_STEPS[name]
        train = dataclasses.replace(
            train, steps=steps, eval_every=steps, log_every=50, batch_size=MNIST_BATCH
        )
    fields = {} if task.small else {"dropout": 0.0}
    model = dataclasses.replace(chosen.model, spec=dataset.spec, **fields)
    return jaxgen.Run(name, model, data, train), dataset


def command(name: str, task: Task, run: Any) -> str:
    flags = [f"--{flag}={value}" for flag, value in task.flags.items()]
    if not task.small:
        flags += [f"--steps={run.train.steps}", f"--eval_every={run.train.eval_every}"]
        flags += [f"--batch_size={MNIST_BATCH}", f"--{name}.dropout=0"]
    return " ".join(["python train.py", f"--model={name}", *flags, f"--seed={run.train.seed}"])


def train(run: Any, dataset: Any) -> tuple[Any, int, dict[str, float]]:
    """The state of the best checkpoint, its step, and the seconds it all took, compiling too: of
    the clock, and of all processors."""
    with tempfile.TemporaryDirectory() as directory:
        began, before = time.perf_counter(), time.process_time()
        Trainer(run, dataset, Path(directory), None).train()
        seconds = {
            "train_s": time.perf_counter() - began,
            "train_processor_s": time.process_time() - before,
        }
        with Checkpoints(Path(directory) / "checkpoints", read_only=True) as checkpoints:
            progress, step = checkpoints.restore(shapes(run.model), "best")
        return progress.state, step, seconds


def sampling_seconds(model: Any) -> dict[str, float]:
    """Of a batch by the cached sampler, and by the naive one, extrapolated; before training, which
    changes no time."""
    state = common.fresh(model)
    cached = common.block(sampling.sampler(model, "cached", state, IMAGES), 0.5)
    few = common.block(sampling.naive_pass(model, state, IMAGES), 0.5)
    each = common.alternate({"cached": cached, "naive": few}, 3)
    scale = model.spec.dims / sampling.FewPixels.dims
    return {
        "cached_s": statistics.median(each["cached"]),
        "naive_s": statistics.median(each["naive"]) * scale,
    }


def measure(name: str, key: str, seed: int, asked: Any) -> dict[str, Any]:
    """One row."""
    task = TASKS[key]
    run, dataset = run_of(name, task, seed, asked.data_dir)
    mesh = mesh_of(run)
    print(f"== {command(name, task, run)}", flush=True)
    state, step, seconds = train(run, dataset)
    test = dataset.materialize("test")
    size = run.train.batch_size
    values = jaxgen.per_example(run.model, mesh, keys_of(seed).evaluate, state, test, size)
    found = mean_and_error(values)
    row = {
        "task": key,
        "model": name,
        "seed": seed,
        "command": command(name, task, run),
        "nats": found["nll"],
        "nats_se": found["nll_se"],
        "bits_per_dim": float(jaxgen.bits_per_dim(np.float64(found["nll"]), run.model.spec.dims)),
        "images": len(test.x),
        "parameters": parameters(state),
        "steps": run.train.steps,
        "batch_size": size,
        "chosen_step": step,
        **seconds,
        "protocol": dataset.protocol,
    }
    if seed == asked.seeds[0]:
        row |= sampling_seconds(run.model)
    print(f"   {row['nats']:.2f} nats, {row['train_processor_s']:.0f} s", flush=True)
    return row


def baselines(key: str, asked: Any) -> list[dict[str, Any]]:
    """A row of each exact baseline, fitted as every report of a run does."""
    task = TASKS[key]
    run, dataset = run_of(asked.models[0], task, 0, asked.data_dir)
    train, validation, test = map(dataset.materialize, ("train", "validation", "test"))
    fitted = fit_baselines(train.x, validation.x, run.model.spec.levels)
    rows = []
    for name, nats in fitted.nll(np.asarray(test.x)).items():
        found = mean_and_error({"nll": nats})
        bits = float(jaxgen.bits_per_dim(np.float64(found["nll"]), run.model.spec.dims))
        rows.append(
            {
                "task": key,
                "model": name,
                "seed": 0,
                "nats": found["nll"],
                "nats_se": found["nll_se"],
                "bits_per_dim": bits,
                "protocol": f"{dataset.protocol}; {fitted.protocol}",
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """The table's lines."""
    lines = [
        "| data | `--model` | test NLL in nats, by seed | bits/dim | parameters "
        "| steps, processor time | 64 samples, cached | naive | published, and its protocol |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["model"]), []).append(row)
    for key in TASKS:
        here = {name: found for (task, name), found in groups.items() if task == key}
        nats = {name: statistics.mean(r["nats"] for r in found) for name, found in here.items()}
        for name in sorted(here, key=nats.__getitem__):
            lines.append(_line(key, name, here[name]))
    return lines


def _line(task: str, name: str, rows: list[dict[str, Any]]) -> str:
    rows = sorted(rows, key=lambda row: row["seed"])
    first = rows[0]
    nats = ", ".join(f"{row['nats']:.2f}" for row in rows)
    if "parameters" not in first:
        bits = f"{first['bits_per_dim']:.3f}"
        return f"| {TASKS[task].title} | {name} (baseline) | {nats} | {bits} | | | | | |"
    value, who = PAPER.get((task, name), ("", ""))
    seconds = statistics.mean(row["train_processor_s"] for row in rows)
    cells = [
        TASKS[task].title,
        f"`{name}`",
        f"**{nats}** ± {first['nats_se']:.2f}",
        f"{statistics.mean(row['bits_per_dim'] for row in rows):.3f}",
        f"{first['parameters']:,}",
        f"{first['steps']:,} of {first['batch_size']}, {seconds:.0f} s",
        f"{first['cached_s']:.2g} s",
        f"{first['naive_s']:,.2g} s" if first["naive_s"] < 100 else f"{first['naive_s']:,.0f} s",
        f"{value} ({who}; {SAME[task]})" if value else "none known",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=models(), default=models())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="MNIST: the first")
    parser.add_argument("--data_dir", help="prepared TFDS data (default: $TFDS_DATA_DIR)")
    parser.add_argument("--out", type=common.a_path, default=RESULTS / "autoregressive.json")
    parser.add_argument("--again", action="store_true", help="also rows that are there already")
    parser.add_argument("--times", action="store_true", help="sampling times of rows there are")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table")
    parser.add_argument(
        "--check", action="store_true", help="run nothing; exit with 1 if RESULTS.md shows another"
    )
    asked = parser.parse_args()
    result = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": []}
    rows = {(r["task"], r["model"], r["seed"]): r for r in result["rows"]}
    on = common.named(common.machine())
    for key in [] if asked.table or asked.check else asked.tasks:
        if asked.again or (key, "mixture", 0) not in rows:
            rows |= {(key, r["model"], 0): {**r, "on": on} for r in baselines(key, asked)}
        for name in asked.models:
            for seed in asked.seeds if TASKS[key].small else asked.seeds[:1]:
                place = key, name, seed
                if asked.again or place not in rows:
                    rows[place] = measure(name, key, seed, asked)
                elif asked.times and "cached_s" in rows[place]:
                    model = run_of(name, TASKS[key], seed, asked.data_dir)[0].model
                    rows[place] |= sampling_seconds(model)
                else:
                    continue
                rows[place]["on"] = on
                result = {"machine": common.machine(), "rows": list(rows.values())}
                common.write(asked.out, result)
    lines = [*markdown(result["rows"]), "", common.measured(result["rows"])]
    table = "\n".join(lines)
    print(table)
    if asked.check:
        script = "python benchmarks/autoregressive.py --table"
        pages.check(pages.RESULTS_PAGE, "autoregressive", table, script)
    elif asked.table:
        pages.write(pages.RESULTS_PAGE, "autoregressive", table)


if __name__ == "__main__":
    main()
