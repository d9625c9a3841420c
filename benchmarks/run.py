"""All benchmarks of speed, each in a fresh process, and the table of them in RESULTS.md.

python benchmarks/run.py [--only train_step …] [--quick] [--out benchmarks/results]
python benchmarks/run.py --table    # writes the table of the results that are there
python benchmarks/run.py --check    # whether RESULTS.md shows just that
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pages
from pages import ROOT

BENCHMARKS = ("train_step", "sampling", "scaling", "data", "startup")


def user_path(text: str) -> Path:
    return Path(text).expanduser()


def run(name: str, out: Path, quick: bool) -> None:
    command = [sys.executable, f"benchmarks/{name}.py", f"--out={out.resolve() / name}.json"]
    print(f"\n== {name}", flush=True)
    subprocess.run([*command, "--quick"] if quick else command, cwd=ROOT, check=True)


def markdown(results: dict[str, Any]) -> str:
    """What has a target in every benchmark, and the machines that it was measured on."""
    # Imports JAX, which --help can do without.
    import common

    lines = ["| task | ours | peer or limit | ratio | target |", "|---|---|---|---|---|"]
    machines: dict[str, dict[str, None]] = {}
    for name, result in results.items():
        for row in result["targets"]:
            if not row["target"]:
                continue
            on = row.get("on", common.named(result["machine"]))
            machines.setdefault(on, {})[row.get("case", name)] = None
            ratio = common.span(row["ratio"]) if row["ratio"] else "—"
            bold = {True: f"**{ratio}**", False: ratio, None: ratio}[row.get("met")]
            asked = f"{row['target']}: {common.verdict(row)}" if row["target"] else ""
            cells = row["task"], row["ours"], row["peer"], bold, asked
            lines.append(f"| {' | '.join(cells)} |")
    where = "; ".join(
        machine + (f" ({', '.join(names)})" if len(machines) > 1 else "")
        for machine, names in machines.items()
    )
    versions = {r["machine"]["torch"] for r in results.values() if "torch" in r["machine"]}
    where += "".join(f"; PyTorch {version}" for version in sorted(versions))
    return "\n".join([*lines, "", f"Measured on {where}."])


def load(out: Path) -> dict[str, Any]:
    """The results that are there, by benchmark."""
    paths = {name: out / f"{name}.json" for name in BENCHMARKS}
    return {n: json.loads(p.read_text()) for n, p in paths.items() if p.exists()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; no page is written")
    parser.add_argument("--out", type=user_path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument(
        "--check",
        action="store_true",
        help="run and write nothing; exit with 1 if RESULTS.md shows another table",
    )
    asked = parser.parse_args()
    if not (asked.table or asked.check):
        for name in asked.only:
            run(name, asked.out, asked.quick)
    table = markdown(load(asked.out))
    print(f"\n{table}")
    if asked.check:
        pages.check(pages.RESULTS_PAGE, "speed", table, "python benchmarks/run.py --table")
    elif not asked.quick:
        pages.write(pages.RESULTS_PAGE, "speed", table)


if __name__ == "__main__":
    main()
