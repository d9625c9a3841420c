"""The README's commands parse, and its library examples run, as they stand there."""

import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgen import DataConfig, load
from jaxgen.cli import main, parse

README = (Path(__file__).parents[1] / "README.md").read_text()
DIGITS, TONES = load(DataConfig()), load(DataConfig(dataset="tones"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [w for w in words if w]


TRAIN = [w[2:] for w in commands() if w[:2] == ["python", "train.py"] and "--help" not in w]
JAXGEN = [w[1:] for w in commands() if w[0] == "jaxgen"]


@pytest.mark.parametrize("argv", TRAIN, ids=" ".join)
def test_train_commands_parse(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = {"tones": TONES, "wav": TONES}
    monkeypatch.setattr(parse, "load", lambda config: sounds.get(config.dataset, DIGITS))
    binary = "binarized_mnist" in " ".join(argv)
    run, directory, _ = parse.parse_run(argv, "train.py")
    assert f"--model={run.name}" in argv
    assert str(directory).startswith("runs/")
    assert run.train.steps == (30000 if binary else run.train.steps)


@pytest.mark.parametrize("argv", JAXGEN, ids=" ".join)
def test_run_commands_parse(argv: list[str]) -> None:
    if argv[0] in main.COMMANDS:
        command = parse.parse(main.COMMANDS[argv[0]], argv[1:], "jaxgen")
        assert f"--run={command.run}" in argv
    else:
        assert argv[0] in ("list", "describe")


def test_library_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ["--pixelcnn.features=4", "--pixelcnn.head=4", "--pixelcnn.blocks=1", "--samples=20"]
    jax.config.update("jax_debug_key_reuse", False)  # validation reuses its key on purpose
    jax.config.update("jax_disable_most_optimizations", True)  # compiling takes most of the time
    try:
        main.main(["train", "--model=pixelcnn", "--steps=2", "--devices=1", *tiny])
        names: dict = {}
        for block in blocks("python"):
            exec(block, names)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        jax.config.update("jax_debug_key_reuse", True)
    assert np.isfinite(float(names["metrics"]["g_loss"]))
    assert float(names["d_loss"]) == pytest.approx((0.0 + 1.2) / 2 + (0.0 + 1.3) / 2)
    assert (names["bound"] > names["log_px"] - names["kl"]).mean() > 0.9
    assert names["images"].shape == (16, 8, 8, 1) and names["images"].max() <= 16
