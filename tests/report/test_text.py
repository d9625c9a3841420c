"""Text that leaves the program: whatever it holds, and wherever it goes."""

import ast
import io
import sys
import warnings

import pytest
from sources import TREES

from jaxgen.cli import main
from jaxgen.model import Metric
from jaxgen.report import charts
from jaxgen.report.text import ALIKE, ESCAPE, readable

NAMES = ["caf\udce9", r"$\frac{a", "a $x$ b", "_a", "😀漢", "été", "a\nb\x1b[31m", "x" * 300]
SHOWN = [r"caf\xe9", r"$\frac{a", "a $x$ b", "_a", "😀漢", "été", r"a\nb\x1b[31m", "x" * 300]


def test_names_are_readable():
    assert [readable(name) for name in NAMES] == SHOWN
    assert "".join(NAMES).encode("utf-8", ESCAPE).decode().startswith(r"caf\xe9$\frac{a")


def test_bars_show_names_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = charts.bars(NAMES, {"a $\\frac{ split": [0.1] * len(NAMES)}, "caf\udce9")
    for name in [*SHOWN[:-2], r"a\nb\x1b[…", "xxxxxxxxx…"]:
        assert f">{name}<" in svg
    assert r">a $\frac{ split<" in svg and svg.encode()


def test_curves_show_names_as_they_are():
    rows = [{"step": s, "split": "train", "a": 1.0, "caf\udce9": 0.5} for s in (1, 2)]
    metrics = {"a": Metric("a", curve="$\\frac{a"), "caf\udce9": Metric("$b", curve="caf\udce9")}
    drawn = charts.curves(rows, metrics, "a", 2)
    for name, (_, svg) in zip((r"$\frac{a", r"caf\xe9"), drawn, strict=True):
        assert f">{name} train<" in svg


@pytest.mark.parametrize(("encoding", "written"), [
    ("ascii", b"83 +- 1 e... \\U0001f600 \\xe9\n"),
    ("latin-1", b"83 \xb1 1 \xe9... \\U0001f600 \\xe9\n"),
    ("utf-8", "83 ± 1 é… 😀 \\xe9\n".encode()),
])  # fmt: skip
def test_every_terminal_takes_every_text(encoding, written, monkeypatch):
    """From the command line's start on."""
    files = [io.BytesIO(), io.BytesIO()]
    for name, file in zip(("stdout", "stderr"), files, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(file, encoding))
    main.main(["list"])
    for stream in (sys.stdout, sys.stderr):
        print("83 ± 1 é… 😀 \udce9", file=stream, flush=True)
    assert files[0].getvalue().endswith(written) and files[1].getvalue() == written


def test_our_own_words_have_an_ascii_form():
    own = set()
    for tree in TREES.values():
        alone = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in alone]
        own |= {c for n in texts if isinstance(n.value, str) for c in n.value if not c.isascii()}
    assert own <= set(ALIKE)
