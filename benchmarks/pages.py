"""The tables that commands write into README.md and benchmarks/RESULTS.md, between two marks."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS_PAGE = ROOT / "benchmarks" / "RESULTS.md"


def rewritten(text: str, name: str, table: str) -> str:
    """The page's text with this table between the marks of that name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def write(page: Path, name: str, table: str) -> None:
    page.write_text(rewritten(page.read_text(), name, table))


def check(page: Path, name: str, table: str, command: str) -> None:
    """Exits with 1 if the page shows another table; `command` is what writes this one."""
    if rewritten(page.read_text(), name, table) != page.read_text():
        sys.exit(f"{page.relative_to(ROOT)} shows another table: {command} writes it")
