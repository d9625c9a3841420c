"""The prepared run on an accelerator: that it runs at all, what it keeps, and what it needs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxgen

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
SCRIPT = "benchmarks/accelerator.py"


def run(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True)


def check(out: Path, done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["machine"]["device"] and result["quick"]
    for name, item in result["items"].items():
        assert item["status"] == "done", (name, item)
        assert item["found"].get("ok", True), (name, item)
        assert name in done.stdout
    return result["items"]


@pytest.mark.slow
def test_some_items_run_and_others_are_added(tmp_path):
    out = tmp_path / "accelerator.json"
    for only in (["right.causality", "fast.rates"], ["fast.rates", "numbers.vae-static"]):
        items = check(out, run(SCRIPT, "--quick", f"--out={out}", "--only", *only))
        assert set(only) <= set(items)
    assert len(items) == 3
    found = items["numbers.vae-static"]["found"]
    assert found["steps"] == found["planned_steps"] and found["test_default"]["nats"] > 0


@pytest.mark.slow
def test_quick(tmp_path):
    out = tmp_path / "accelerator.json"
    items = check(out, run(SCRIPT, "--quick", f"--out={out}"))
    assert {name.split(".")[0] for name in items} == {"right", "fast", "numbers"}
    assert list((tmp_path / "accelerator-profiles").glob("*.txt"))


def here(monkeypatch, *args: str) -> int:
    """What the script ends with, in this process, which has imported it all."""
    import accelerator

    monkeypatch.setattr(sys, "argv", [SCRIPT, *args])
    return accelerator.main()


def test_says_what_is_missing_in_one_line(tmp_path, monkeypatch, capsys):
    done = run(SCRIPT, "--only", "numbers.gated-dynamic", f"--data={tmp_path}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "mnist-dynamic.npz" in done.stderr
    assert here(monkeypatch, "--quick", "--only", "no.such") == 2
    assert "no.such" in capsys.readouterr().err


def test_an_item_that_raises_hangs_or_crashes_is_recorded(tmp_path, monkeypatch):
    """Raising and running over in this process; dying in one of its own."""
    import accelerator
    from accelerator_items import Context, Item, Record

    def late(context: Context) -> None:
        context.add(kept=1)
        while True:
            pass

    def raises(context: Context) -> None:
        raise ValueError("two\nlines")

    record = Record(tmp_path / "a.json")
    asked = accelerator.parse(["--quick", "--end=9e9", f"--out={record.out}"])
    for name, function in (("late", late), ("raises", raises)):
        accelerator.one(asked, Item(name, "", function, 0.2, 0.0), record)
    items = record.read()["items"]
    assert items["late"]["status"] == "time up" and items["late"]["found"] == {"kept": 1}
    assert items["raises"]["status"] == "failed" and "raises" in items["raises"]["traceback"]
    assert items["raises"]["error"] == "ValueError: two lines"

    record.item("dies", status="running", ends=0)
    assert accelerator._close(record, -6)
    assert "-6" in record.read()["items"]["dies"]["error"]
    assert not accelerator._close(record, 1)


def test_data_travel_whole(tmp_path):
    import accelerator_data

    before = jaxgen.load(jaxgen.DataConfig(binarize="dynamic"))
    accelerator_data.save(tmp_path / "digits.npz", before)
    after = accelerator_data.read(tmp_path / "digits.npz")
    assert (after.fingerprint, after.protocol) == (before.fingerprint, before.protocol)
    assert (after.spec, after.dynamic) == (before.spec, before.dynamic)
    for name, split in before.splits.items():
        np.testing.assert_array_equal(after.splits[name].x, split.x)


@pytest.mark.slow
def test_trains_without_what_such_a_machine_lacks(tmp_path):
    """The trainer and the run's own items, with those packages refused; the log says once that
    TensorBoard is left out."""
    code = f"""
import sys
for name in ("tyro", "tensorflow_datasets", "array_record", "tensorboardX", "platformdirs"):
    sys.modules[name] = None
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import dataclasses, pathlib, accelerator, accelerator_data, jaxgen
from jaxgen.training.trainer import Trainer
folder = pathlib.Path({str(tmp_path)!r})
accelerator_data.save(folder / "a.npz", jaxgen.load(jaxgen.DataConfig()))
dataset = accelerator_data.read(folder / "a.npz")
chosen = jaxgen.preset("vae")
model = dataclasses.replace(chosen.model, spec=dataset.spec, hidden=(8,))
train = dataclasses.replace(chosen.train, steps=4, eval_every=2, log_every=1)
(folder / "run").mkdir()
Trainer(jaxgen.Run("vae", model, chosen.data, train), dataset, folder / "run", None).train()
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("TensorBoard is left out") == 1
    assert (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_table(monkeypatch):
    import accelerator_table

    times = {"median": 2e-3, "min": 1e-3, "max": 3e-3}
    ours = {"case": "a", "precision": "float32", "side": "ours", "step_s": times}
    peer = {**ours, "side": "eager", "kind": "vae", "over_ours": times}
    item = {"status": "done", "found": {"rows": [ours, peer]}}
    machine = {"device": "card", "backend": "gpu", "cpu_count": 1, "packages": {"jax": "1"}}
    items = {"fast.vae": item, "x": {"status": "crashed"}, "y": {"status": "skipped"}}
    result = {"machine": machine, "items": items, "notes": {"x": "why"}}
    table = accelerator_table.markdown([result])
    assert "| card | train step, a, float32 | 2 (1..3) ms; PyTorch vae, eager" in table
    assert "| card | `x` (!) | crashed |" in table and "- `x` (!): why" in table
    assert "`y`" not in table
    spoiled = accelerator_table.markdown([{**result, "spoiled": ["x"]}])
    assert "| `x`" not in spoiled and "- `x`, left out: why" in spoiled
    assert here(monkeypatch, "--check") == 0


def test_the_process_of_an_item_ends_while_it_still_compiles(tmp_path):
    """What comes next is not timed beside the threads of an item whose time is up."""
    out = tmp_path / "a.json"
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import accelerator
from accelerator_items import Item, each

def slow(context):
    each(context, ["made"], lambda name: time.sleep(1e3))

def quick(context):
    each(context, ["made"], lambda name: {{"ok": True}})

items = [Item(n, "", f, 0.5, 0.0) for n, f in (("a", quick), ("b", slow), ("c", quick))]
accelerator.work(accelerator.parse(["--quick", "--end=9e9", "--out={out}"]), items)
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    items = json.loads(out.read_text())["items"]
    assert {name: item["status"] for name, item in items.items()} == {"a": "done", "b": "time up"}


def test_no_number_is_written_that_json_has_not(tmp_path):
    import common

    common.write(tmp_path / "a.json", {"a": [float("nan"), 1.0], "b": {"c": float("inf")}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, 1.0], "b": {"c": None}}
