"""Which data a VAE takes for likelier than its own, by its likelihood: MNIST beside Fashion-MNIST.

    python benchmarks/outliers.py [--models gaussian …] [--seeds 0 1 2]
    python benchmarks/outliers.py --table    # writes RESULTS.md's table of the rows there are
    python benchmarks/outliers.py --check    # whether the page shows just that

Both are read as prepared TFDS data: TFDS_DATA_DIR says where. A row is `python train.py` with its
flags, and `jaxgen outliers`; real numbers are an .npz file of the grey levels, scaled to [-1, 1].
Rows that are in the results already are kept; --again makes them anew.
"""

import json
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from rows import Row, Task, cells, main

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.data.splits import SPLITS

OWN, OTHER = "fashion_mnist", "mnist"

TASKS = {
    "fashion": Task(
        "MNIST as outliers of Fashion-MNIST",
        (
            *("--vae.hidden", "200", "200", "--vae.latents=50", "--vae.dropout=0"),
            *("--batch_size=100", "--steps=7500", "--eval_every=2500", "--log_every=500"),
            *("--draws=1", "--samples=100"),
        ),
        {
            "threshold": ("--binarize=threshold",),
            "dynamic": ("--binarize=dynamic", "--vae.activation=tanh"),
            "logistic": (),
            "normal": ("--vae.activation=tanh", "--vae.least_scale=0.0135"),
        },
    )
}
"""Rows, and what each adds to the flags of all."""

SAID = {
    "threshold": ("Bernoulli", "binarized at one half"),
    "dynamic": ("Bernoulli", "binarized dynamically"),
    "logistic": ("discretized logistic", "256 levels"),
    "normal": ("normal density", "256 levels, as real numbers"),
}
"""p(x | z), and what x is."""

SHOWN = {
    "-L_100": "bound of 100 draws",
    "-ELBO": "negative log-likelihood",
    "KL": "KL(q(z | x) || p(z))",
    "-L_100 less the PNG's size": "NLL less the PNG's size",
    "the PNG's size alone": "PNG's size, no model",
}
"""The columns, and the names of their scores."""

CALL = "from jaxgen.cli.main import main; main()"


def as_real(name: str, folder: Path) -> Path:
    """Writes the splits of a data set as real numbers in [-1, 1]; the file's path."""
    data, path = load(DataConfig(name)), folder / f"{name}.npz"
    splits = {
        f"{split}_x": np.asarray(data.spec.to_float(data.materialize(split).x)) for split in SPLITS
    }
    np.savez(path, **splits)
    return path


def make(name: str, task: Task, model: str, seed: int) -> Row:
    """Runs both commands; what the second found, and the seconds that both took."""
    flags = [*task.flags, *task.models[model], f"--seed={seed}"]
    given = [["--dataset", OWN], ["--dataset", OTHER]]
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        if model == "normal":
            given = [
                ["--dataset=arrays", f"--{flag}={as_real(data, folder)}"]
                for data, flag in ((OWN, "data_dir"), (OTHER, "dataset_dir"))
            ]
        start, run = time.perf_counter(), f"--run={folder / 'run'}"
        print(f"== {model}, seed {seed}", flush=True)
        common.python("train.py", "--model=vae", *given[0], run, *flags)
        out = f"--out={folder / 'outliers.png'}"
        common.python("-c", CALL, "outliers", run, *given[1], out)
        wall = time.perf_counter() - start
        [found] = (folder / "run").glob("outliers_*.json")
        scores = json.loads(found.read_text())["scores"]
    words = ["python train.py --model=vae", *(["--dataset=arrays"] if model == "normal" else [])]
    row = {"task": name, "model": model, "seed": seed, "command": " ".join([*words, *flags])}
    row |= {"wall_s": round(wall, 1), "on": common.named(common.machine())}
    kept = ("auroc", "auroc_interval", "auprc", "fpr95")
    return row | {"scores": {n: {k: each[k] for k in kept} for n, each in scores.items()}}


def table(_: str, rows: list[Row]) -> str:
    lines = [
        f"| {' | '.join(['p(x given z)', 'data', *SHOWN, 'seconds, all included'])} |",
        "|---" * (len(SHOWN) + 3) + "|",
    ]
    for model, said in SAID.items():
        mine = [row for row in rows if row["model"] == model]
        if mine:
            found = [cells(mine, "scores", n, "auroc", form=".3f") for n in SHOWN.values()]
            wall = cells(mine, "wall_s", form=".0f")
            lines.append(f"| {' | '.join([*said, *found, wall])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(__doc__.splitlines()[0], "outliers", TASKS, list(TASKS), table, make)
