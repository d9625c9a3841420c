"""The README's first table: the three families' presets on digits, by the real trainer.

    python benchmarks/digits.py [--models pixelcnn vae gan] [--seeds 0 1 2] [--runs runs/digits]

Each run is `python train.py --model=MODEL --seed=SEED`; runs that are complete are not repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import common
from common import RESULTS, ROOT

import jaxgen


def train(model: str, seed: int, directory: Path) -> dict:
    """Runs the command and returns its results.json, with the seconds it took."""
    command = ["train.py", f"--model={model}", f"--seed={seed}", f"--run={directory}"]
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    wall = time.perf_counter() - start
    results = json.loads((directory / "results.json").read_text())
    return {"command": "python " + " ".join(command[:3]), "wall_s": round(wall, 1), **results}


def line(results: dict) -> str:
    """One run in one line: what its family is judged by."""
    scores = results["scores"]
    found = [f"step {results['step']}", f"{results['wall_s']} s"]
    if results["likelihood"]:
        likelihood = results["likelihood"]
        ours, mixture = likelihood["model"], likelihood["baselines"]["mixture"]
        found.append(f"test NLL {ours['nats']:.2f} ± {ours['nats_se']:.2f} nats")
        found.append(f"{ours['bits_per_dim']:.3f} bits/dim (mixture {mixture['nats']:.2f} nats)")
    for name in ("frechet", "coverage", "classes_present"):
        found.append(f"{name} {scores['model'][name]:.3g} (floor {scores['floor'][name]:.3g})")
    return f"{results['model']:9s} seed {results['seed']}: " + ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_digits = [n for n, preset in jaxgen.MODELS.items() if preset.data.dataset == "digits"]
    chosen = ["pixelcnn", "vae", "gan"]
    parser.add_argument("--models", nargs="+", default=chosen, choices=on_digits)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "digits")
    parser.add_argument("--out", type=Path, default=RESULTS / "digits.json")
    asked = parser.parse_args()
    rows = [
        train(model, seed, asked.runs / f"{model}-{seed}")
        for model in asked.models
        for seed in asked.seeds
    ]
    print("\n".join(line(row) for row in rows))
    common.write(asked.out, {"machine": common.machine(), "runs": rows})


if __name__ == "__main__":
    main()
