"""The benchmarks run."""

import io
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import some

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

QUICK = {
    "train_step": ["--cases", "vae 784-400-20"],
    "bounds": [],
    "sampling": [],
    "scaling": ["--devices=2", "--processes=1"],
    "data": [],
    "startup": [],
}


def test_rows_say_what_each_was_measured_on():
    import common

    rows = [{"task": "digits", "model": "vae", "on": on} for on in ("old", "new", "new")]
    assert common.measured(rows[:1]) == "Measured on old."
    told = "Measured on new. 1 rows of 3 on old: `vae` (digits)."
    assert common.measured(rows) == told
    for name in ("adversarial", "autoregressive", "latent", "outliers"):
        kept = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())["rows"]
        assert all("cores, JAX" in row["on"] for row in kept)


def test_one_function_makes_paths_of_flags():
    for file in (ROOT / "benchmarks").glob("*.py"):
        assert "type=Path" not in file.read_text(), file


def bench(*args: str) -> str:
    command = [sys.executable, *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """As `bench`, of what computes nothing: in this process, which has imported most of it."""

    def here(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", list(args))
        try:
            runpy.run_path(str(ROOT / args[0]), run_name="__main__")
        except SystemExit as ended:
            assert not ended.code, ended.code
        return capsys.readouterr().out

    return here


def check(name: str, out: Path, printed: str) -> dict:
    result = json.loads((out / f"{name}.json").read_text())
    assert {"machine", "settings", "rows", "targets"} <= set(result)
    assert result["machine"]["cpu"] and result["settings"]["quick"]
    for row in result["targets"]:
        assert {"task", "ours", "peer", "ratio", "target"} <= set(row)
        if row["ratio"]:
            assert 0 < row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
        assert row["task"] in printed
    assert "target" in printed and "median" in json.dumps(result["rows"])
    picture = (out / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 100_000
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_benchmark_runs(name: str, tmp_path: Path) -> None:
    printed = bench(
        f"benchmarks/{name}.py", "--quick", f"--out={tmp_path / name}.json", *QUICK[name]
    )
    check(name, tmp_path, printed)


@pytest.mark.parametrize("name", some([*QUICK, "run"], ["train_step", "run"]))
def test_help(name: str, here: Callable[..., str]) -> None:
    assert "--quick" in here(f"benchmarks/{name}.py", "--help")


@pytest.mark.slow
def test_all_of_them_in_one_command(tmp_path: Path) -> None:
    before = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    import run

    printed = bench("benchmarks/run.py", "--quick", f"--out={tmp_path}")
    for name in run.BENCHMARKS:
        check(name, tmp_path, printed)
    assert "| task | ours |" in printed
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == before


@pytest.mark.parametrize(
    "name",
    some(
        ["digits", "autoregressive", "latent", "adversarial", "outliers", "toy_gan", "run"],
        ["latent", "run"],
    ),
)
def test_pages_show_the_results(name: str, here: Callable[..., str]) -> None:
    here(f"benchmarks/{name}.py", "--check")


def test_another_table_is_not_let_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pages

    page = tmp_path / "page.md"
    page.write_text("above\n<!-- a:begin -->\n<!-- a:end -->\nbelow <!-- b:begin -->\n")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    pages.write(page, "a", "| 1 |")
    text = "above\n<!-- a:begin -->\n| 1 |\n<!-- a:end -->\nbelow <!-- b:begin -->\n"
    assert page.read_text() == text
    pages.check(page, "a", "| 1 |", "")
    with pytest.raises(SystemExit, match="page.md shows another table: this writes it"):
        pages.check(page, "a", "| 2 |", "this")
    assert page.read_text() == text


def test_front_picture() -> None:
    """Every image is where it belongs, dark on light and without interpolation."""
    import front_picture
    from PIL import Image

    rng = np.random.default_rng(0)
    sheets = {
        name: rng.integers(17, size=(front_picture.NUM, 8, 8, 1)) for name in ("a\nb", "c\nd")
    }
    png = front_picture.picture(sheets, 17)
    assert len(png) < 100_000
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
    scale, gap = front_picture.SCALE, front_picture.GAP
    high, wide = front_picture.ROWS * 10 * scale, front_picture.COLUMNS * 10 * scale
    for i, images in enumerate(sheets.values()):
        left = gap + i * (wide + gap)
        middles = shown[-gap - high : -gap, left : left + wide][
            scale // 2 :: scale, scale // 2 :: scale
        ]
        last = middles[-9:-1, -9:-1]
        np.testing.assert_allclose(last, 255 - images[-1, ..., 0] * 255 / 16, atol=3)
    committed = (ROOT / "benchmarks" / "results" / "samples.png").read_bytes()
    assert committed.startswith(b"\x89PNG") and len(committed) < 100_000


@pytest.mark.slow
def test_without_pytorch_the_peer_says_why(tmp_path: Path) -> None:
    """A module that refuses to be imported stands in for a missing one."""
    (tmp_path / "torch.py").write_text("raise ImportError")
    out = tmp_path / "train_step.json"
    command = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[0] = 'train_step.py'; "
    command += f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); "
    command += f"sys.path.insert(0, {str(tmp_path)!r}); import train_step; train_step.main()"
    bench("-c", command, "--quick", "--cases", "vae 784-400-20", f"--out={out}")
    peer = json.loads(out.read_text())["targets"][1]
    assert "pip install '.[bench]'" in peer["peer"]
    assert peer["ratio"] is None and "met" not in peer


def test_rounds_alternate_and_medians_are_quoted() -> None:
    import common

    order: list[str] = []
    sides = {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}
    times = common.alternate(sides, 3)
    assert "".join(order) == "abccbaabc"
    assert times == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert common.spread([3.0, 1.0, 2.0]) == {"median": 2, "min": 1, "max": 3}
    found = common.ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert found == {"median": 2, "min": 2, "max": 3}
    assert common.target("", "", "", found, ">= 2")["met"]
    assert not common.target("", "", "", found, "<= 1.9")["met"]


def test_cases_that_are_measured_again_leave_the_others(tmp_path: Path) -> None:
    import common
    import run

    old = {"cpu": "old", "backend": "cpu", "cpu_count": 2, "packages": {"jax": "0.9"}}
    asks = common.target("step of a", "1 s", "2 s", {"median": 2, "min": 2, "max": 2}, ">= 1")
    kept = {"machine": old, "rows": [{"case": "a"}, {"case": "b"}],
            "targets": [{"case": "a", **asks}, {"case": "b", **asks}]}  # fmt: skip
    common.write(tmp_path / "t.json", kept)
    rows, targets = common.beside(tmp_path / "t.json", ["b"])
    assert rows == [{"case": "a", "on": "old, 2 cores, JAX 0.9"}] and len(targets) == 1
    new = {"machine": {**old, "cpu": "new"}, "targets": [*targets, {"case": "b", **asks}]}
    told = run.markdown({"t": new})
    assert told.endswith("Measured on old, 2 cores, JAX 0.9 (a); new, 2 cores, JAX 0.9 (b).")
    assert run.markdown({"t": kept}).endswith("Measured on old, 2 cores, JAX 0.9.")
    assert common.beside(tmp_path / "none.json", []) == ([], [])
