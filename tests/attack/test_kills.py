"""A run that is killed again and again, wherever it is, ends as one that nothing disturbed: whole
directories are compared."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from events import shown

ROOT = Path(__file__).parents[2]
KILLS = 8
"""Of each run; of five runs, forty."""
FEW = (
    *("--steps=300", "--eval_every=30", "--log_every=10", "--batch_size=50", "--samples=50"),
    "--devices=1",
)
RUNS = {
    "pixelcnn": ("--pixelcnn.features=4", "--pixelcnn.blocks=1"),
    "made": ("--made.hidden=16", "--made.random_orders=0"),
    "vae": ("--vae.hidden=16", "--vae.latents=2", "--draws=2", "--conditional"),
    "gan": ("--gan.architecture=mlp", "--gan.hidden=16", "--gan.latents=4"),
    "vae, three seeds": ("--vae.hidden=16", "--vae.latents=2", "--draws=2", "--seeds=3"),
}


def start(name, flags, run):
    with run.with_suffix(".err").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), f"--model={name}", *FEW, *flags]
            + [f"--run={run}"],
            stdout=subprocess.DEVNULL, stderr=errors, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip


def files(run):
    """Every file of the run but TensorBoard's, whose number is that of the starts, and locks."""
    paths = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {p for p in paths if "tensorboard" not in p and "/state/" not in p and ".lock" not in p}


def same(killed, whole):
    assert files(killed) == files(whole)
    for name in files(whole):
        if Path(name).suffix in (".jsonl", ".png") or Path(name).name == "results.json":
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    # The digest of the state, its monitor, and the sums of the log interval.
    metas = [name for name in files(whole) if name.endswith("meta/metadata")]
    assert metas
    for name in metas:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    for events in whole.rglob("tensorboard"):
        run = events.parent
        assert shown(killed / run.relative_to(whole)) == shown(run)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_anywhere(name, tmp_path):
    model, flags = name.split(",")[0], RUNS[name]
    begun = time.monotonic()
    process = start(model, flags, tmp_path / "whole")
    assert process.wait() == 0, (tmp_path / "whole.err").read_text()
    lasted = time.monotonic() - begun
    rng, killed = np.random.default_rng(sorted(RUNS).index(name)), 0
    while killed < KILLS:
        process = start(model, flags, tmp_path / "killed")
        time.sleep(rng.uniform(0.2, 1.0) * lasted)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        lasted *= 1 if process.returncode else 0.9  # it was over before: sooner, the next time
    process = start(model, flags, tmp_path / "killed")
    assert process.wait() == 0, (tmp_path / "killed.err").read_text()
    same(tmp_path / "killed", tmp_path / "whole")
