"""The three families' presets on digits, by the real trainer: tables in README.md and RESULTS.md.

    python benchmarks/digits.py [--models pixelcnn vae gan] [--seeds 0 1 2] [--runs runs/digits]
    python benchmarks/digits.py --table    # writes both tables of the results that are there
    python benchmarks/digits.py --check    # whether the pages show just those

Each run is `python train.py --model=MODEL --seed=SEED`; runs that are complete are not repeated,
and results of others are kept.
The tables are of the three models; other ones are trained, printed and written to --out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
import pages
from common import RESULTS, ROOT

import jaxgen

FAMILIES = {
    "pixelcnn": ("[van den Oord et al. 2016](https://arxiv.org/abs/1601.06759)", "exact"),
    "vae": ("[Kingma & Welling 2014](https://arxiv.org/abs/1312.6114)", "a lower bound"),
    "gan": (
        "[Goodfellow et al. 2014](https://arxiv.org/abs/1406.2661), "
        "[Radford et al. 2016](https://arxiv.org/abs/1511.06434)",
        "none",
    ),
}
"""The models of the tables: the paper, and the density that the family gives."""


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


def by_seed(rows: list[dict], *path: str, form: str = ".2f") -> str:
    """One number of each run."""
    values = []
    for row in rows:
        for name in path:
            row = row[name]
        values.append(format(row, form))
    return ", ".join(values)


def short_table(runs: dict[str, list[dict]]) -> str:
    """README's: what each family is judged by."""
    lines = [
        "| `--model` | paper | density | test NLL in nats | Fréchet distance | coverage |",
        "|---|---|---|---|---|---|",
    ]
    for name, (paper, density) in FAMILIES.items():
        rows = runs[name]
        nll = by_seed(rows, "likelihood", "model", "nats") if rows[0]["likelihood"] else "—"
        frechet, coverage = (by_seed(rows, "scores", "model", n) for n in ("frechet", "coverage"))
        lines.append(f"| `{name}` | {paper} | {density} | {nll} | {frechet} | {coverage} |")
    first = runs["pixelcnn"][0]
    mixture, floor = first["likelihood"]["baselines"]["mixture"], first["scores"]["floor"]
    lines += [
        f"| a mixture, fitted by EM | | exact | {mixture['nats']:.2f} | | |",
        f"| real training images | | | | {floor['frechet']:.2f} | {floor['coverage']:.2f} |",
    ]
    return "\n".join(lines)


def long_table(runs: dict[str, list[dict]], machine: dict) -> str:
    """RESULTS.md's."""
    lines = [
        "| `--model` | test NLL in nats, by seed | bits/dim | Fréchet distance | coverage "
        "| classes | parameters | seconds, all included |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in FAMILIES:
        rows = runs[name]
        nll = bits = "—"
        if rows[0]["likelihood"]:
            models = [row["likelihood"]["model"] for row in rows]
            nll = f"**{by_seed(rows, 'likelihood', 'model', 'nats')}** ± {models[0]['nats_se']:.2f}"
            nll += f", {rows[0]['likelihood']['kind']}"
            bits = f"{statistics.mean(m['bits_per_dim'] for m in models):.3f}"
        cells = [f"`{name}`", nll, bits]
        cells += [by_seed(rows, "scores", "model", n) for n in ("frechet", "coverage")]
        cells += [by_seed(rows, "scores", "model", "classes_present", form=".0f")]
        cells += [f"{rows[0]['parameters']:,}", by_seed(rows, "wall_s", form=".0f")]
        lines.append(f"| {' | '.join(cells)} |")
    first = runs["pixelcnn"][0]
    for name, found in reversed(first["likelihood"]["baselines"].items()):
        nats, bits = f"{found['nats']:.2f}", f"{found['bits_per_dim']:.3f}"
        lines.append(f"| {name} (baseline) | {nats}, exact | {bits} | | | | | |")
    floor = first["scores"]["floor"]
    scores = f"{floor['frechet']:.2f} | {floor['coverage']:.2f} | {floor['classes_present']:.0f}"
    lines.append(f"| real training images | | | {scores} | | |")
    return "\n".join([*lines, "", f"Measured on {common.named(machine)}."])


def show(result: dict, check: bool) -> None:
    """Writes the tables, or checks that the pages show them."""
    runs = {name: [r for r in result["runs"] if r["model"] == name] for name in FAMILIES}
    if missing := [name for name, rows in runs.items() if not rows]:
        sys.exit(f"the tables need runs of {', '.join(missing)} as well")
    for page, table in (
        (pages.README, short_table(runs)),
        (pages.RESULTS_PAGE, long_table(runs, result["machine"])),
    ):
        if check:
            pages.check(page, "digits", table, "python benchmarks/digits.py --table")
        else:
            pages.write(page, "digits", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_digits = [n for n, preset in jaxgen.MODELS.items() if preset.data.dataset == "digits"]
    parser.add_argument("--models", nargs="+", default=list(FAMILIES), choices=on_digits)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=common.a_path, default=ROOT / "runs" / "digits")
    parser.add_argument("--out", type=common.a_path, default=RESULTS / "digits.json")
    parser.add_argument("--table", action="store_true", help="run nothing, write the tables")
    parser.add_argument(
        "--check", action="store_true", help="run nothing; exit with 1 if a page shows another"
    )
    asked = parser.parse_args()
    if asked.table or asked.check:
        result = json.loads(asked.out.read_text())
        print("\n".join(line(row) for row in result["runs"]))
        show(result, asked.check)
        return
    rows = [
        train(model, seed, asked.runs / f"{model}-{seed}")
        for model in asked.models
        for seed in asked.seeds
    ]
    print("\n".join(line(row) for row in rows))
    made = {(row["model"], row["seed"]) for row in rows}
    old = json.loads(asked.out.read_text())["runs"] if asked.out.exists() else []
    kept = [row for row in old if (row["model"], row["seed"]) not in made]
    common.write(asked.out, {"machine": common.machine(), "runs": [*kept, *rows]})


if __name__ == "__main__":
    main()
