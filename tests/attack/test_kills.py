"""A run that is killed again and again, wherever it is, ends as one that nothing disturbed: whole
directories are compared."""

import os
import shutil
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
    *("--steps=120", "--eval_every=20", "--log_every=10", "--batch_size=20", "--samples=20"),
    *("--devices=1", "--dataset=arrays", "--levels=4"),
)
RUNS = {
    "pixelcnn": ("--pixelcnn.features=4", "--pixelcnn.blocks=1"),
    "made": ("--made.hidden=16", "--made.random_orders=0"),
    "vae": ("--vae.hidden=16", "--vae.latents=2", "--draws=2", "--conditional"),
    "gan": (*("--gan.architecture=mlp", "--gan.hidden=16", "--gan.latents=4"), "--batch_size=16"),
    "vae, three seeds": ("--vae.hidden=16", "--vae.latents=2", "--draws=2", "--seeds=3"),
}


class Runs:
    """Starts the command of one model, in processes of their own, which compile little and keep
    that for each other."""

    def __init__(self, name, folder, environment):
        data = folder / "few.npz"
        rng = np.random.default_rng(0)
        x, label = rng.integers(256, size=(80, 4, 4, 1)).astype(np.uint8), np.arange(80) % 3
        np.savez(data, x=x, label=label)
        self.command = [
            *(sys.executable, str(ROOT / "train.py"), f"--model={name.split(',')[0]}"),
            *(*FEW, *RUNS[name], f"--data_dir={data}"),
        ]
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.environment = {**os.environ, **environment, **threads, "PYTHONPATH": str(ROOT)}

    def start(self, run):
        with run.with_suffix(".err").open("a") as errors:
            return subprocess.Popen(
                [*self.command, f"--run={run}"],
                stdout=subprocess.DEVNULL, stderr=errors, env=self.environment,
            )  # fmt: skip

    def finish(self, run):
        assert self.start(run).wait() == 0, run.with_suffix(".err").read_text()


def files(run):
    """Every file of the run but TensorBoard's, whose number is that of the starts, and locks."""
    paths = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {p for p in paths if "tensorboard" not in p and "/state/" not in p and ".lock" not in p}


def numbers(path):
    """All results, but for how long they took."""
    return [line for line in path.read_text().splitlines() if '"seconds"' not in line]


def same(killed, whole):
    assert files(killed) == files(whole)
    for name in files(whole):
        if Path(name).suffix in (".jsonl", ".png"):
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
        if Path(name).name == "results.json":
            assert numbers(killed / name) == numbers(whole / name), name
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
def test_killed_anywhere(name, tmp_path, quick_environment):
    """What ended before it was killed is compared, and begun anew: every kill is of a run that has
    something left to do."""
    runs, whole, killed = Runs(name, tmp_path, quick_environment), tmp_path / "a", tmp_path / "b"
    runs.finish(whole)
    begun = time.monotonic()
    runs.finish(tmp_path / "again")  # from the cache of compiled programs, as those that follow
    lasted = time.monotonic() - begun
    rng, kills = np.random.default_rng(sorted(RUNS).index(name)), 0
    while kills < KILLS:
        process = runs.start(killed)
        try:
            ended = process.wait(rng.uniform(0.1, 0.9) * lasted) == 0
            assert ended, killed.with_suffix(".err").read_text()
            same(killed, whole)
            shutil.rmtree(killed)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    runs.finish(killed)
    same(killed, whole)
