"""The pages' commands parse, and their Python examples run, as they stand there."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import data_of
from untrained import untrained

from jaxgen import DataConfig, load
from jaxgen.cli import main, parse
from jaxgen.data.dataset import Dataset

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, ROOT / "benchmarks" / "RESULTS.md"]
NEEDS_NO_RUN = ("list", "describe", "prepare")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands() -> list[list[str]]:
    """Of all pages, those within `…` included."""
    lines = []
    for page in PAGES:
        lines += "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        lines += re.findall(r"`((?:python train\.py|jaxgen \w+) [^`]+)`", prose)
    lines = [line for line in dict.fromkeys(lines) if "MODEL" not in line]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [w for w in words if w]


TRAIN = [w[2:] for w in commands() if w[:2] == ["python", "train.py"]]
TRAIN.remove(["--model=factorized"])  # which CONTRIBUTING tells to add; test_one_file_one_line does
JAXGEN = [w[1:] for w in commands() if w[0] == "jaxgen"]
SCRIPTS = {w[1] for w in commands() if w[0] == "python"}


@pytest.mark.parametrize("argv", TRAIN, ids=" ".join)
def test_train_commands_parse(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def loaded(config: DataConfig) -> Dataset:
        if config.pairing != "none":
            return load(config)
        others = {"tones": "tones", "wav": "tones", "moons": "moons"}
        return data_of(DataConfig(dataset=others.get(config.dataset, "digits")))

    monkeypatch.setattr(parse, "load", loaded)
    if "--help" in argv:
        with pytest.raises(SystemExit) as stopped:
            parse.parse_run(argv, "train.py")
        assert not stopped.value.code and "--steps" in capsys.readouterr().out
        return
    binary = "binarized_mnist" in " ".join(argv)
    run, directory, _ = parse.parse_run(argv, "train.py")
    assert f"--model={run.name}" in argv
    assert directory.is_relative_to(Path.cwd() / "runs")
    assert run.train.steps == (30000 if binary else run.train.steps)


@pytest.mark.parametrize("argv", JAXGEN, ids=" ".join)
def test_run_commands_parse(argv: list[str]) -> None:
    if argv[0] in main.COMMANDS:
        command = parse.parse(main.COMMANDS[argv[0]], argv[1:], "jaxgen")
        assert f"--run={command.run}" in argv
    else:
        assert argv[0] in NEEDS_NO_RUN


def test_pages_name_only_what_is_there() -> None:
    """Scripts, pictures, links between the pages and to headings in them."""
    assert [script for script in SCRIPTS if not (ROOT / script).is_file()] == []
    for page in PAGES:
        for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
            name, _, heading = link.partition("#")
            there = page.parent / name if name else page
            assert there.exists(), f"{page.name}: {link}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", there.read_text(), flags=re.MULTILINE)
                anchors = [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles]
                assert heading in anchors, f"{page.name}: {link}"


def test_readme_is_short_and_opens_with_the_picture() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    places = [text.index(part) for part in ("![", "pip install . &&", "pip install -e", "\n## ")]
    assert places == sorted(places)


# The examples.


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Where the examples run: `runs/pixelcnn-digits` is a run there, of a tiny network that was not
    trained."""
    where = tmp_path_factory.mktemp("examples")
    tiny = ["--pixelcnn.features=4", "--pixelcnn.head=4", "--pixelcnn.blocks=1", "--samples=20"]
    run = f"--run={where}/runs/pixelcnn-digits"
    untrained("--model=pixelcnn", "--devices=1", run, *tiny)
    return where


@pytest.fixture
def example(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Runs a block as a file of its own, and returns its names."""

    def execute(block: str) -> dict[str, Any]:
        monkeypatch.chdir(trained)
        (trained / "example.py").write_text(block)
        spec = importlib.util.spec_from_file_location("example", trained / "example.py")
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and type hints look their module up by name.
        monkeypatch.setitem(sys.modules, "example", module)
        spec.loader.exec_module(module)
        return vars(module)

    return execute


def is_trained(names: dict[str, Any]) -> bool:
    """Far better than uniform, 181 nats; and the bound is above the ELBO, but for the noise of one
    image's samples."""
    elbo, bound = names["values"]["elbo"], names["bound"]
    return float(bound.mean()) > float(elbo.mean()) + 1 > -110 and (bound > elbo).mean() > 0.7


def is_hinge(names: dict[str, Any]) -> bool:
    d_loss = (0.0 + 1.2) / 2 + (0.0 + 1.3) / 2
    found = [float(names["d_loss"]), float(names["g_loss"])]
    return found == pytest.approx([d_loss, (2.0 - 0.3) / 2])


FOUND: dict[str, Callable[[dict[str, Any]], bool]] = {
    "load_run": lambda n: n["images"].shape == (16, 8, 8, 1) and n["images"].max() <= 16,
    "train_step": is_trained,
    "check_autoregressive": lambda n: n["report"].is_autoregressive,
    "ADVERSARIAL_LOSSES": is_hinge,
}
"""What README's examples must have found, by a word in each."""


@pytest.mark.parametrize("word", FOUND)
def test_readme_example_runs(word: str, example) -> None:
    [block] = [block for block in blocks(README, "python") if word in block]
    assert FOUND[word](example(block))


def test_every_readme_example_is_run() -> None:
    for block in blocks(README, "python"):
        assert sum(word in block for word in FOUND) == 1


@pytest.mark.parametrize("at", range(len(blocks(CONTRIBUTING, "python"))))
def test_contributing_example_runs(at: int, example) -> None:
    example(blocks(CONTRIBUTING, "python")[at])
