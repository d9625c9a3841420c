"""Random command lines: each does what it says or is refused, in words, before any long work."""

import dataclasses
import itertools
import typing

import jax
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny import some
from untrained import untrained

from jaxgen.cli import commands, main
from jaxgen.cli import train as train_command
from jaxgen.data.config import DataConfig
from jaxgen.evaluation import outliers, probe
from jaxgen.registry import MODELS
from jaxgen.runs.config import TrainConfig

few_and_many = pytest.mark.parametrize("num", [2, pytest.param(50, marks=pytest.mark.slow)])
"""How many command lines a test tries: together a thousand, in the slow tests."""

VALUES: dict[typing.Any, list[str]] = {
    int: ["-1", "0", "1", "2", "3", "7", "33", "2147483648", "1e3", "1.5", "", "x"],
    float: ["-1", "0", "0.5", "1", "3", "1e30", "nan", "inf", "-inf", "", "x"],
    str: ["", "x", "digits", "ring", "tones", "folder", "/nowhere", "~", "é", "a\nb", "5"],
}
"""Of each type, values at its edges and beyond."""


def flags_of(kind, prefix):
    """(flag, values) of every field of a configuration; those of configurations in it, too."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"--{prefix}{field.name}"
        choices = typing.get_args(hint)
        if field.name == "spec":
            continue
        if dataclasses.is_dataclass(hint):
            yield from flags_of(hint, f"{prefix}{field.name}.")
        elif typing.get_origin(hint) is typing.Literal:
            yield name, [*choices, "x", ""]
        elif hint is bool:
            yield name, [None, "True", "x"]
        elif typing.get_origin(hint) is tuple:
            yield name, [None, *VALUES[int], "2 3"]
        else:
            yield name, VALUES[next(k for k in (*choices, hint) if k in VALUES)]


def command_lines(flags):
    """Up to four flags with values, with and without an equals sign."""

    def words(flag, value, joined):
        if value is None:
            return [flag]
        return [f"{flag}={value}"] if joined else [flag, *str(value).split(" ")]

    word = st.sampled_from(flags).flatmap(
        lambda flag: st.tuples(st.just(flag[0]), st.sampled_from(flag[1]), st.booleans())
    )
    lines = st.lists(word, max_size=4, unique_by=lambda w: w[0])
    return lines.map(lambda line: list(itertools.chain(*(words(*w) for w in line))))


def attack(num):
    return settings(
        max_examples=num,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def tried(capfd):
    """main(argv) does it, or ends with code 2 and a message."""

    def tried(argv):
        capfd.readouterr()
        try:
            main.main(argv)
        except SystemExit as stopped:
            told = "".join(capfd.readouterr())
            assert stopped.code in (0, 2) and "Traceback" not in told
            assert stopped.code == 0 or told.strip(), argv

    return tried


TRAIN = [*flags_of(DataConfig, ""), *flags_of(TrainConfig, "")]


@few_and_many
@pytest.mark.parametrize("name", some(MODELS, ["vae"]))
def test_training(name, num, tried, tmp_path, monkeypatch):
    """All of it but the steps, which are traced: they have no error of their own."""
    monkeypatch.chdir(tmp_path)
    number = itertools.count()

    class Traced:
        def __init__(self, run, dataset, directory, score):
            self.run = run

        def train(self):
            model, step = self.run.model.at(0), 0
            num = min(self.run.train.batch_size, 64) // model.multiple * model.multiple
            batch = model.spec.shapes(max(num, model.multiple) * model.minibatches)
            state = jax.eval_shape(model.init, jax.random.key(0), batch)
            jax.eval_shape(model.train_step, jax.random.key(0), state, batch, step)

    monkeypatch.setattr(train_command, "Trainer", Traced)
    monkeypatch.setattr(train_command, "finish_seeds", lambda *args: None)
    flags = [*TRAIN, *flags_of(type(MODELS[name].model), f"{name}.")]

    @attack(num)
    @given(command_lines(flags))
    def attacked(line):
        tried(["train", f"--model={name}", f"--run={tmp_path / str(next(number))}", *line])

    attacked()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run directories of untrained models, one of each family."""
    made = {}
    for name, small in {
        "made": ["--made.hidden=4", "--made.random_orders=0"],
        "vae": ["--vae.hidden=4", "--vae.latents=2", "--conditional", "--draws=2"],
        "gan": ["--gan.architecture=mlp", "--gan.hidden=4", "--gan.latents=2"],
    }.items():
        made[name] = tmp_path_factory.mktemp("runs") / name
        few = ["--steps=1", "--samples=50", "--devices=1", f"--run={made[name]}"]
        untrained(f"--model={name}", *few, *small)
    return made


@few_and_many
@pytest.mark.parametrize("command", commands.COMMANDS)
def test_uses_of_a_run(command, num, runs, tried, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe, "DRAWS", 1)
    monkeypatch.setattr(outliers, "DRAWS", 2)
    monkeypatch.setattr(probe, "STRENGTHS", (0.01,))
    kind = commands.COMMANDS[command]
    flags = [(flag, values) for flag, values in flags_of(kind, "") if flag != "--run"]

    @attack(num)
    @given(st.sampled_from(sorted(runs)), command_lines(flags))
    def attacked(name, line):
        tried([command, f"--run={runs[name]}", *line])

    attacked()
