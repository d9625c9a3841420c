"""All benchmarks, each in a fresh process, and the table of them that README.md shows.

python benchmarks/run.py [--only train_step …] [--quick] [--out benchmarks/results]
python benchmarks/run.py --table           # the table of the results that are there
python benchmarks/run.py --check-readme    # whether README.md shows just that
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BENCHMARKS = ("train_step", "sampling", "scaling", "data", "startup")
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"


def run(name: str, out: Path, quick: bool) -> None:
    command = [sys.executable, f"benchmarks/{name}.py", f"--out={out.resolve() / name}.json"]
    print(f"\n== {name}", flush=True)
    subprocess.run([*command, "--quick"] if quick else command, cwd=ROOT, check=True)


def markdown(results: dict[str, Any]) -> str:
    """What has a target in every benchmark, and the machines that it was measured on."""
    # Imports JAX, which --help can do without.
    import common

    lines = ["| task | ours | peer or limit | ratio | target |", "|---|---|---|---|---|"]
    machines: dict[str, list[str]] = {}
    for name, result in results.items():
        machines.setdefault(common.named(result["machine"]), []).append(name)
        for row in result["targets"]:
            if not row["target"]:
                continue
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


def rewritten(readme: str, table: str) -> str:
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; README.md is left alone")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument(
        "--check-readme",
        action="store_true",
        help="run and write nothing; exit with 1 if it shows another table",
    )
    asked = parser.parse_args()
    if not (asked.table or asked.check_readme):
        for name in asked.only:
            run(name, asked.out, asked.quick)
    table, readme = markdown(load(asked.out)), README.read_text()
    print(f"\n{table}")
    if asked.check_readme:
        if rewritten(readme, table) != readme:
            sys.exit("README.md shows another table: python benchmarks/run.py --table writes it")
    elif not asked.quick:
        README.write_text(rewritten(readme, table))


if __name__ == "__main__":
    main()
