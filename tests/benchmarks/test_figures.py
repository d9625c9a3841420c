"""The figures that benchmarks/RESULTS.md shows, trained anew. Run with `pytest -m slow -n 0`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = [0, 1, 2]

pytestmark = pytest.mark.slow


def results(tmp_path: Path, *flags: str) -> dict:
    run = tmp_path / "run"
    subprocess.run([sys.executable, "train.py", f"--run={run}", *flags], cwd=ROOT, check=True)
    return json.loads((run / "results.json").read_text())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "model", ["pixelcnn", "gated", "pixelcnnpp", "rowlstm", "diagonal", "pixelsnail"]
)
def test_autoregressive_models_reach_88_nats_on_digits(
    tmp_path: Path, model: str, seed: int
) -> None:
    found = results(tmp_path, f"--model={model}", f"--seed={seed}")
    assert found["likelihood"]["model"]["nats"] <= 88.0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("model", ["vae", "iwae", "iaf", "ladder", "pixelvae", "realnvp"])
def test_latent_models_beat_the_mixture_by_3_nats_on_digits(
    tmp_path: Path, model: str, seed: int
) -> None:
    likelihood = results(tmp_path, f"--model={model}", f"--seed={seed}")["likelihood"]
    assert likelihood["model"]["nats"] <= likelihood["baselines"]["mixture"]["nats"] - 3.0


@pytest.mark.parametrize("seed", SEEDS)
def test_gan_covers_digits(tmp_path: Path, seed: int) -> None:
    scores = results(tmp_path, "--model=gan", f"--seed={seed}")["scores"]["model"]
    assert scores["coverage"] >= 0.65
    assert scores["classes_present"] == 10


def test_gan_covers_the_ring(tmp_path: Path) -> None:
    out = tmp_path / "ring.json"
    games = ["non-saturating, R1", "hinge, R1", "WGAN-GP, 5 steps of D"]
    command = ["benchmarks/toy_gan.py", "--seeds=4", "--on=ring", "--games", *games]
    subprocess.run([sys.executable, *command, f"--out={out}"], cwd=ROOT, check=True)
    for row in json.loads(out.read_text())["rows"]:
        assert [seed["modes"] for seed in row["seeds"]] == [8] * 4, row["game"]
        assert max(seed["kl"] for seed in row["seeds"]) < 0.05, row["game"]


def test_burda_vae_reaches_97_nats_on_static_mnist(tmp_path: Path) -> None:
    """Burda et al. 2016's one-layer network, 30 epochs."""
    data = os.environ.get("TFDS_DATA_DIR")
    if not data:
        pytest.skip("set TFDS_DATA_DIR to a directory with binarized_mnist in array_record form")
    page = (ROOT / "benchmarks" / "RESULTS.md").read_text().replace("\\\n", "")
    command = next(line for line in page.splitlines() if "--vae.latents=50" in line)
    flags = command.split("train.py")[1].split()
    flags = [f for f in flags if not f.startswith(("--data_dir", "--run"))]
    found = results(tmp_path, *flags, f"--data_dir={data}")
    assert found["likelihood"]["model"]["nats"] < 97.0
