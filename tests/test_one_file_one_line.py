"""A new model is one file and one line: models from outside the package, registered here, can do
everything that there is."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import contract
import jax
import numpy as np
import pytest
import toys
from compiled import shared_by_commands
from tiny import batch_of, some, with_sgd

from jaxgen.cli import commands, main, train
from jaxgen.cli.command import able
from jaxgen.evaluation import outliers
from jaxgen.registry import MODELS, load_run
from jaxgen.runs import digest
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.state import shapes
from jaxgen.training import trainer

NAMES = ("factorized", "growing", "translator", "blob", "codes")


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory):
    """The toys' lines in the registry, while this module runs."""
    made = toys.toys(tmp_path_factory.mktemp("data"))
    assert set(made) == set(NAMES)
    MODELS.update(made)
    yield made
    for name in made:
        del MODELS[name]


@pytest.fixture(scope="module", autouse=True)
def options():
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    with shared_by_commands(files_change=False):
        yield


@pytest.fixture
def without_results(monkeypatch):
    """Training ends with its last checkpoint."""
    monkeypatch.setattr(train, "finish_seeds", lambda *args: None)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run directory of a toy, trained by its command alone."""
    made: dict[str, Path] = {}

    def trained(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("runs") / name
            main.main(["train", f"--model={name}", f"--run={made[name]}"])
        return made[name]

    return trained


def states(run: Path) -> dict[int, str]:
    """The digest of every checkpoint of a run."""
    model = load_run(run).model
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        fresh = shapes(model)
        return {s: digest.digest(checkpoints.restore(fresh, s)[0]) for s in checkpoints.steps()}


def cases():
    """Every check of every toy. Those that take longest are slow tests, but for a toy of each
    ability, and for levels."""
    checks = [
        contract.four_ways_to_run_a_step_agree,
        contract.what_it_measures_is_declared,
        *contract.CHECKS,
    ]
    quick = {
        contract.devices_and_chunks_change_nothing: ("growing", "translator", "codes"),
        contract.seeds_together_are_each_alone: ("factorized", "growing"),
    }
    for name, check in itertools.product(NAMES, checks):
        marks = () if name in quick.get(check, NAMES) else pytest.mark.slow
        yield pytest.param(check, name, marks=marks, id=f"{name}-{check.__name__}")


@pytest.mark.parametrize(("check", "name"), [*cases()])
def test_contract(check, name, random_state):
    check(with_sgd(MODELS[name].tiny), random_state)


def test_training_ends_in_results_and_a_report(name, trained):
    run = trained(name)
    results = json.loads((run / "results.json").read_text())
    assert results["model"] == name and results["metrics"].keys() <= set(MODELS[name].model.metrics)
    page = (run / "report.html").read_text()
    for command in commands.usable(MODELS[name].model):
        assert f"jaxgen {command} --run=" in page
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["split"]) for r in rows] == [
        (4, "train"), (4, "validation"), (8, "train"), (8, "validation"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", some(NAMES, ["growing", "codes"]))
@pytest.mark.parametrize("stop", some([4, 8], [4]))
def test_resuming_changes_no_bit(name, stop, trained, tmp_path, without_results):
    """From the checkpoint before the last (of `growing`, the edge of a level)."""
    whole, again = trained(name), tmp_path / "again"
    shutil.copytree(whole, again)
    if stop == 4:
        shutil.rmtree(again / "checkpoints" / "8")
    main.main(["train", f"--model={name}", f"--run={again}"])
    assert states(again) == states(whole) and set(states(whole)) == {4, 8}
    assert (again / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", some(NAMES, ["growing"]))
def test_several_seeds_at_once(name, trained, tmp_path):
    run = tmp_path / "seeds"
    main.main(["train", f"--model={name}", "--seeds=2", f"--run={run}"])
    summary = json.loads((run / "results.json").read_text())
    assert summary["seeds"] == [0, 1]
    alone, one = load_run(trained(name)), load_run(run / "seed_0")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), alone.state, one.state)


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_every_command_works_or_refuses(command, name, trained, tmp_path, monkeypatch, capfd):
    run, kind = trained(name), commands.COMMANDS[command]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outliers, "DRAWS", 2)
    if command == "outliers":
        data = MODELS[name].data
        where = [f"--dataset_dir={data.data_dir}"] * (data.data_dir is not None)
        if MODELS[name].model.spec.source is not None:
            pytest.skip("what is given a source is not measured alone")
        main.main([command, f"--run={run}", f"--dataset={data.dataset}", *where])
    elif command == "attribute" and name == "codes":
        with pytest.raises(SystemExit):
            main.main([command, f"--run={run}"])
        assert "has no labels to tell apart" in capfd.readouterr().err
        return
    elif able(kind, MODELS[name].model):
        main.main([command, f"--run={run}"])
    if able(kind, MODELS[name].model):
        assert list(tmp_path.iterdir()) or command == "evaluate"
        return
    with pytest.raises(SystemExit) as stopped:
        main.main([command, f"--run={run}"])
    told = capfd.readouterr().err
    assert stopped.value.code == 2 and f"{name} cannot {kind.does}" in told
    assert not list(tmp_path.iterdir())


def test_a_change_that_the_run_does_not_reach_is_told(tmp_path, capfd, without_results):
    main.main(["train", "--model=growing", "--steps=2", f"--run={tmp_path / 'short'}"])
    told = "the model changes at step 4, which a run of 2 steps does not reach"
    assert told in capfd.readouterr().err
    main.main(["train", "--model=growing", f"--run={tmp_path / 'whole'}"])
    assert "does not reach" not in capfd.readouterr().err


def test_a_flag_of_a_new_model_is_named_in_messages(capfd):
    with pytest.raises(SystemExit):
        main.main(["train", "--model=codes", "--codes.optimizer.learning_rate=-1"])
    assert "--codes.optimizer.learning_rate must not be negative" in capfd.readouterr().err


def test_a_block_that_joins_late_starts_afresh():
    """Until it joins it is untouched, its optimizer's count included; its first step is at most
    the learning rate, where a count of many steps would make it ten times as large."""
    model = toys.Growing(toys.SMALL, grow_at=2000)
    batch = batch_of(8, toys.SMALL)
    state = jax.jit(model.at(0).init)(jax.random.key(0), batch)
    step = jax.jit(lambda model, state, t: model.train_step(jax.random.key(0), state, batch, t)[0],
                   static_argnums=0)  # fmt: skip
    for t in range(3):
        state = step(model.at(t), state, t)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.high))
    joined = step(model.at(2000), state, 2000)
    moved = np.abs(joined.high.params).max()
    assert 0.5 * 0.1 < moved <= 1.01 * 0.1
    assert dataclasses.replace(model.at(1999), grown=True) == model.at(2000)


def test_levels_compile_once_each(monkeypatch, tmp_path, without_results):
    compiled = []
    plain = trainer.compile_steps
    monkeypatch.setattr(
        trainer, "compile_steps", lambda model, *a: compiled.append(model) or plain(model, *a)
    )
    main.main(["train", "--model=growing", f"--run={tmp_path / 'run'}"])
    assert [model.grown for model in compiled] == [False, True]
