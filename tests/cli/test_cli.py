"""The command line: every command on a trained run, and every mistake told in one message."""

import ast
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import shared_by_commands
from PIL import Image
from tiny import some
from untrained import untrained

from jaxgen.cli import main, parse, train
from jaxgen.cli.train import lengthened
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.evaluation import probe
from jaxgen.media.kinds import load_images
from jaxgen.media.pictures import CELL
from jaxgen.registry import MODELS, load_run
from jaxgen.runs import digest
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.directory import FORMAT, lock
from jaxgen.runs.state import shapes
from jaxgen.spec import DataSpec

ROOT = Path(__file__).parents[2]
TINY = [
    *("--steps=20", "--eval_every=10", "--log_every=10", "--samples=50"),
    *("--batch_size=40", "--devices=1"),
]
FAMILIES = {
    "pixelcnn": [
        *("--pixelcnn.features=4", "--pixelcnn.blocks=1", "--pixelcnn.head=4"),
        *("--pixelcnn.first_kernel=3", "--conditional"),
    ],
    "vae": ["--vae.hidden=16", "--draws=5", "--vae.latents=4"],
    "gan": ["--gan.architecture=mlp", "--gan.hidden=8", "--gan.latents=4"],
}
SPEC = DataSpec(8, 8, 1, 17)


@pytest.fixture(autouse=True, scope="module")
def options():
    """Every validation is of the same noise, on purpose; compiling takes most of the time."""
    jax.config.update("jax_debug_key_reuse", False)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(autouse=True, scope="module")
def compile_once():
    with shared_by_commands():
        yield


class Trained(NamedTuple):
    run: str
    command: list[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run of each family, made when it is asked for: that of the VAE, whose results are
    looked at, is trained, and the others took no step."""
    made: dict[str, Trained] = {}

    def trained(name: str) -> Trained:
        if name not in made:
            run = str(tmp_path_factory.mktemp("runs") / name)
            flags = [f"--model={name}", *TINY, *FAMILIES[name], f"--run={run}"]
            made[name] = Trained(run, ["train", *flags])
            main.main(made[name].command) if name == "vae" else untrained(*flags)
        return made[name]

    return trained


@pytest.fixture
def without_results(monkeypatch):
    """Training ends with its last checkpoint, for tests of what is done with that."""
    monkeypatch.setattr(train, "finish_seeds", lambda *args: None)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Tests work in an empty folder, and their caches are elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def refused(capfd):
    """main(argv) exits with 2 after one message without a traceback; returns it in one line."""

    def refused(*argv: str) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main.main(argv)
        out, err = capfd.readouterr()
        assert (stopped.value.code, out) == (2, "")
        assert err.strip() and "Traceback" not in err
        return " ".join(err.split())

    return refused


def tree(folder: str | Path) -> dict[str, str]:
    """Every file below and the hash of its bytes."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else ""
        for p in Path(folder).rglob("*")
    }


def read(path: str) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def levels_of(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """[rows columns 8 8 1] levels of a grid of cells, each framed by a pixel of grey."""
    scale = CELL // 8
    assert picture.shape == (rows * (CELL + 1) + 1, columns * (CELL + 1) + 1)
    assert (picture[:: CELL + 1] == 128).all() and (picture[:, :: CELL + 1] == 128).all()
    cells = picture[1:, 1:].reshape(rows, CELL + 1, columns, CELL + 1).swapaxes(1, 2)
    small = cells[:, :, :CELL:scale, :CELL:scale]
    assert (small.repeat(scale, 2).repeat(scale, 3) == cells[:, :, :CELL, :CELL]).all()
    return np.round(small * (16 / 255)).astype(np.uint8)[..., None]


def sample(*argv: str, out: str = "x.npz") -> dict[str, np.ndarray]:
    main.main(["sample", f"--out={out}", *argv])
    return dict(np.load(out))


# A run's directory, and the same command again.


@pytest.mark.parametrize("name", some(FAMILIES, ["vae"]))
def test_train_leaves_a_run_that_says_what_it_is(name, trained, capfd):
    run = Path(trained(name).run)
    if name != "vae":
        main.main(trained(name).command)
    names = {p.name for p in run.iterdir()}
    assert names >= {
        *("run.json", "metrics.jsonl", "results.json", "report.html", "features.npz"),
        *("checkpoints", "samples", "tensorboard"),
    }
    assert {p.name for p in (run / "samples").iterdir()} >= {
        "step_0000010.png",
        "step_0000020.png",
    }
    record = json.loads((run / "run.json").read_text())
    assert record["model_name"] == name and record["train"]["steps"] == 20
    assert record["dataset"]["fingerprint"] == load(DataConfig(**record["data"])).fingerprint
    results = json.loads((run / "results.json").read_text())
    assert results["images"] == 447 and results["split"] == "test"
    assert (results["likelihood"] is None) == (name == "gan")
    saved = load_run(run)
    assert (saved.run.name, saved.step) == (name, results["step"])
    assert load_run(run, "latest").step == 20


@pytest.mark.parametrize("name", some(["vae", "gan"], ["vae"]))
def test_the_same_command_on_a_finished_run_trains_no_more(name, trained, capfd):
    run, command = trained(name)
    kept = ["checkpoints", "samples", "features.npz", "metrics.jsonl"]
    before = {n: h for n, h in tree(run).items() if n.startswith(tuple(kept))}
    results = json.loads(Path(run, "results.json").read_text())
    Path(run, "results.json").unlink()
    main.main(command)
    assert {n: h for n, h in tree(run).items() if n.startswith(tuple(kept))} == before
    again = json.loads(Path(run, "results.json").read_text())
    assert {**again, "seconds": 0} == {**results, "seconds": 0}
    out, err = capfd.readouterr()
    assert "step" not in err.replace("at step 20 of 20", "") and "report:" in out


def test_another_configuration_is_refused_and_nothing_is_touched(trained, refused):
    run, command = trained("vae")
    before = tree(run)
    message = refused(*command, "--vae.latents=5", "--steps=10", "--binarize=static")
    assert f"--run={run}" in message
    for line in (
        "model.latents: 4 -> 5",
        "train.steps: 20 -> 10",
        'data.binarize: "none" -> "static"',
    ):
        assert line in message
    assert "another --run" in message
    message = refused(
        *[w.replace("vae", "gan") for w in command[:6]], f"--run={run}", "--devices=1"
    )
    assert 'model_name: "vae" -> "gan"' in message
    assert tree(run) == before


def test_more_steps_lengthen_a_run_and_both_are_kept(trained, refused, capfd, tmp_path):
    run = shutil.copytree(trained("vae").run, tmp_path / "longer")
    longer = [*trained("vae").command[:-1], f"--run={run}", "--steps=4e1"]
    before = Path(run, "metrics.jsonl").read_text()
    capfd.readouterr()
    main.main(longer)
    err = capfd.readouterr().err
    assert "lengthened from 20 to 40 steps; schedules count steps of their own" in err
    assert "learning rate is 0" not in err and "at step 20 of 40" in err
    record = json.loads(Path(run, "run.json").read_text())
    assert record["train"]["steps"] == 40 and record["grown"] == ["train.steps: 20 -> 40"]
    assert "train.steps: 20 -&gt; 40" in Path(run, "report.html").read_text()
    assert Path(run, "metrics.jsonl").read_text().startswith(before)
    assert load_run(run, "latest").step == 40
    assert "train.steps: 40 -> 20" in refused(*longer[:-1])


def test_a_schedule_that_has_ended_is_told():
    flags = ["--model=vae", "--vae.optimizer.decay_steps=1000", "--steps=3000"]
    run, _, _ = parse.parse_run(flags, "")
    told = "with optimizer.decay_steps=1000 the learning rate is 0 from there on"
    assert told in lengthened(run, 1000)
    assert "learning rate" not in lengthened(
        dataclasses.replace(run, train=dataclasses.replace(run.train, steps=1000)), 500
    )


@pytest.mark.slow
def test_home_is_a_place_for_runs_and_files(trained, tmp_path, monkeypatch):
    run = trained("vae").run  # at the usual home: matplotlib makes a folder in it when it is loaded
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    shutil.copytree(run, home / "run")
    main.main(["sample", "--run=~/run", "--num=2", "--out=~/x.npz"])
    main.main(["reconstruct", "--run=~/run", "--count=2", "--out=~/x.png"])
    main.main(["evaluate", "--run=~/run", "--split=validation", "--k=1"])
    assert {p.name for p in home.iterdir()} == {"run", "x.npz", "x.png"}
    assert (home / "run/results_validation_k1.json").exists()
    flags = trained("vae").command[1:-1]
    assert parse.parse_run([*flags, "--run=~/new"], "")[1] == home / "new"
    assert parse.parse_run(flags, "")[1] == Path.cwd() / "runs/vae-digits"
    assert load_run("~/run").step == load_run(trained("vae").run).step
    assert tree(".") == {}


def test_one_function_makes_paths_of_flags():
    for file in Path(main.__file__).parent.glob("*.py"):
        calls = [n.func for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
        assert "Path" not in map(ast.unparse, calls), file


def test_a_run_in_use_is_refused(trained, refused):
    run, command = trained("vae")
    with lock(run):
        before = tree(run)
        message = refused(*command)
        assert tree(run) == before
    assert f"--run={run} is in use by" in message and f"pid {os.getpid()}" in message


COMMANDS = ["sample", "evaluate", "interpolate", "complete", "reconstruct"]


@pytest.mark.parametrize("command", COMMANDS)
def test_directories_that_are_no_run_are_refused(command, refused, trained):
    here = Path.cwd()
    assert f"--run={here}/nowhere is not a directory" in refused(command, "--run=nowhere")
    Path("empty").mkdir()
    assert f"--run={here}/empty is not a run" in refused(command, "--run=empty")
    Path("half").mkdir()
    text = Path(trained("vae").run, "run.json").read_text()
    Path("half/run.json").write_text(text[: len(text) // 2])
    assert "run.json is damaged or half written" in refused(command, "--run=half")
    Path("half/run.json").write_text(text)
    assert "has no usable checkpoint" in refused(command, "--run=half")
    Path("half/run.json").write_text(text.replace('"latents"', '"lantents"'))
    assert "lantents, latents" in refused(command, "--run=half")
    Path("half/run.json").write_text(text.replace(f'"format": {FORMAT}', '"format": 99'))
    assert "format 99" in refused(command, "--run=half")
    assert set(tree(".")) == {"empty", "half", "half/run.json"}


def test_train_refuses_a_folder_of_other_things(refused):
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(b"")
    assert f"--run={Path.cwd()}/photos holds other files (a.png" in refused(
        "train", "--model=vae", *TINY, "--run=photos"
    )
    assert set(tree(".")) == {"photos", "photos/a.png"}


# sample


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_i_depends_on_seed_and_i_alone(name, trained):
    run = f"--run={trained(name).run}"
    many = sample(run, "--num=20")["x"]
    assert many.shape == (20, 8, 8, 1) and many.dtype == np.uint8 and many.max() <= 16
    assert len(np.unique(many, axis=0)) > 10
    assert (sample(run, "--num=5")["x"] == many[:5]).all()
    assert (sample(run, "--num=5", "--seed=1")["x"] != many[:5]).any()


def test_sample_draws_what_the_model_does(trained):
    run = trained("vae").run
    saved = load_run(run)
    direct = jax.jit(saved.model.sample, static_argnums=2)(jax.random.key(0), saved.state, 20)
    same = np.asarray(direct) == sample(f"--run={run}", "--num=20")["x"]
    assert same.mean() > 0.999  # where it is compiled otherwise, rounding may differ


def test_sample_grid_folder_and_npz_hold_the_same_images(trained):
    run = f"--run={trained('vae').run}"
    images = sample(run, "--num=12")["x"]
    main.main(["sample", run, "--num=12", "--out=grid.png"])
    picture = levels_of(read("grid.png"), 2, 10)
    assert (picture.reshape(20, 8, 8, 1)[:12] == images).all()
    assert (read("grid.png")[CELL + 2 :, 2 * (CELL + 1) + 1 :] == 128).all()  # the cells to spare
    main.main(["sample", run, "--num=12", "--out=folder"])
    files = sorted(Path("folder").iterdir())
    assert [f.name for f in files] == [f"{i:06d}.png" for i in range(12)]
    assert (load_images(files, SPEC) == images).all()


def test_sample_temperature(trained):
    for name in FAMILIES:
        run = f"--run={trained(name).run}"
        plain = sample(run, "--num=20")["x"]
        assert (sample(run, "--num=20", "--temperature=1.0")["x"] == plain).all()
        cold = sample(run, "--num=20", "--temperature=0.05")["x"]
        spread = [np.std(x.astype(float), axis=0).mean() for x in (cold, plain)]
        assert spread[0] < 0.8 * spread[1]


def test_sample_label(trained):
    run = f"--run={trained('pixelcnn').run}"
    turns = sample(run, "--num=20")
    assert (turns["label"] == np.arange(20) % 10).all()
    threes = sample(run, "--num=20", "--label=3")
    assert (threes["label"] == 3).all()
    # The same noise: where the label is the same, so is the image.
    same = (threes["x"] == turns["x"]).all((1, 2, 3))
    assert same[[3, 13]].all()
    assert "label" not in sample(f"--run={trained('vae').run}", "--num=5")


def test_sample_checkpoints(trained, refused):
    run = f"--run={trained('vae').run}"
    latest = sample(run, "--num=5", "--checkpoint=latest")["x"]
    assert (sample(run, "--num=5", "--checkpoint=20")["x"] == latest).all()
    assert (sample(run, "--num=5", "--checkpoint=10")["x"] != latest).any()
    assert "no checkpoint 15 (usable steps: [10, 20])" in refused("sample", run, "--checkpoint=15")
    assert "--checkpoint=first" in refused("sample", run, "--checkpoint=first")


def test_sample_mistakes(trained, refused):
    run = f"--run={trained('pixelcnn').run}"
    assert "--temperature" in refused("sample", run, "--temperature=0")
    assert "--temperature" in refused("sample", run, "--temperature=nan")
    assert "--num" in refused("sample", run, "--num=0")
    assert "--label=99: the run's classes are 0..9" in refused("sample", run, "--label=99")
    assert "--label=-1" in refused("sample", run, "--label=-1")
    message = refused("sample", f"--run={trained('vae').run}", "--label=3")
    assert "--label=3" in message and "--conditional" in message
    assert tree(".") == {}
    assert f"--out={Path.cwd()}/x.jpg" in refused("sample", run, "--num=1", "--out=x.jpg")
    assert "--out=/dev/null/x.png cannot be written" in refused(
        "sample", run, "--num=1", "--out=/dev/null/x.png"
    )
    Path("full").mkdir()
    Path("full/file").write_text("")
    assert f"--out={Path.cwd()}/full is not empty" in refused(
        "sample", run, "--num=1", "--out=full"
    )
    assert set(tree(".")) == {"full", "full/file"}


# evaluate


@pytest.mark.parametrize("name", some(["pixelcnn", "gan"], ["gan"]))
def test_evaluate_is_the_average_over_the_split(name, trained, capfd):
    run = trained(name).run
    main.main(["evaluate", f"--run={run}", "--split=validation"])
    out = capfd.readouterr().out
    results = json.loads(Path(run, "results_validation.json").read_text())
    assert results["split"] == "validation" and results["images"] == 350
    saved = load_run(run)
    split = load(saved.run.data).splits["validation"]
    batch = {"x": split.x, "label": split.label, "index": np.arange(350)}
    if name == "gan":
        del batch["label"]
    # The key is one of the run's own; D of real images needs none.
    values = jax.jit(saved.model.eval_step)(jax.random.key(0), saved.state, batch)
    if name == "gan":
        d_real = np.asarray(values["d_real"]).mean()
        np.testing.assert_allclose(results["metrics"]["d_real"]["mean"], d_real, rtol=1e-4)
        return
    nll = np.asarray(values["nll"], np.float64)
    ours = results["likelihood"]["model"]
    np.testing.assert_allclose(ours["nats"], nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(ours["nats_se"], nll.std(ddof=1) / 350**0.5, rtol=1e-4)
    np.testing.assert_allclose(ours["bits_per_dim"], nll.mean() / (64 * np.log(2)), rtol=1e-5)
    uniform = results["likelihood"]["baselines"]["uniform"]["nats"]
    np.testing.assert_allclose(uniform, 64 * np.log(17), rtol=1e-6)
    assert f"{ours['nats']:.2f}"[:5] in out


def test_evaluate_k_tightens_the_bound(trained, refused):
    run = trained("vae").run
    found = {}
    for k in (1, 30):
        main.main(["evaluate", f"--run={run}", f"--k={k}"])
        found[k] = json.loads(Path(run, f"results_test_k{k}.json").read_text())
    five = json.loads(Path(run, "results.json").read_text())
    nats = [r["likelihood"]["model"]["nats"] for r in (found[1], five, found[30])]
    assert nats[0] > nats[1] > nats[2]
    # The ELBO is k = 1, by other draws of z.
    elbo = five["metrics"]["elbo"]
    assert abs(nats[0] + elbo["mean"]) < 4 * elbo["se"]
    assert "--k=0" in refused("evaluate", f"--run={run}", "--k=0")
    assert "--k=5: gan has no likelihood that takes draws" in refused(
        "evaluate", f"--run={trained('gan').run}", "--k=5"
    )


def test_evaluate_refuses_other_data(trained, refused):
    run = trained("vae").run
    record = Path(run, "run.json").read_text()
    try:
        Path(run, "run.json").write_text(record.replace('"levels": 0', '"levels": 4'))
        message = refused("evaluate", f"--run={run}")
    finally:
        Path(run, "run.json").write_text(record)
    assert f"--run={run}: the data have changed since it was trained" in message
    assert "17 levels to digits" in message and "--data_dir" in message


# interpolate, complete, reconstruct


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_interpolate_walks_between_samples_of_the_prior(name, trained):
    run = trained(name).run
    main.main(["interpolate", f"--run={run}", "--pairs=3", "--steps=5", "--out=x.png"])
    images = levels_of(read("x.png"), 3, 5)
    saved = load_run(run)
    key, model = jax.random.key(0), saved.model

    @jax.jit
    def decoded(state):
        ends = model.draw_latents(key, state, 6)
        return model.spec.from_float(model.decode(key, state, ends))

    direct = np.asarray(decoded(saved.state))
    near = np.abs(images[:, [0, -1]].astype(int) - np.stack([direct[:3], direct[3:]], 1)).max()
    assert near <= 1  # the slerp's ends, to rounding
    assert (images[:, 0] != images[:, -1]).any()


def test_complete_keeps_what_is_known(trained):
    run = trained("pixelcnn").run
    test = load(DataConfig()).splits["test"].x[:3]
    hidden = {"bottom": np.s_[:, 4:], "left": np.s_[:, :, :4]}
    for mask, where in hidden.items():
        main.main(
            ["complete", f"--run={run}", "--count=3", "--num=4", f"--mask={mask}", "--out=x.png"]
        )
        rows = levels_of(read("x.png"), 3, 6)
        known = np.ones((3, 8, 8, 1), bool)
        known[where] = False
        assert (rows[:, 0] == test).all()
        assert (rows[:, 1] == np.where(known, test, 0)).all()
        for i in range(4):
            assert (rows[:, 2 + i][known] == test[known]).all()
        assert (rows[:, 2] != rows[:, 3])[~known].any()


def test_complete_of_files_and_a_mask_from_a_file(refused, without_results, tmp_path_factory):
    """An unconditional run, since files have no labels."""
    run = str(tmp_path_factory.mktemp("runs") / "plain")
    flags = ["--made.hidden=8", "--made.random_orders=0"]
    with contextlib.suppress(SystemExit):
        main.main(["train", "--model=made", *TINY, *flags, f"--run={run}"])
    rng = np.random.default_rng(0)
    given = rng.integers(0, 17, (2, 8, 8, 1), np.uint8)
    for i, image in enumerate(given):
        Image.fromarray(np.round(image[..., 0] * (255 / 16)).astype(np.uint8)).save(f"{i}.png")
    missing = rng.random((8, 8)) < 0.5
    Image.fromarray(np.where(missing, 255, 0).astype(np.uint8)).save("mask.png")
    files = ["--images", "0.png", "1.png", "--mask=mask.png"]
    main.main(["complete", f"--run={run}", *files, "--num=2", "--out=x.png"])
    rows = levels_of(read("x.png"), 2, 4)
    for column in (0, 2, 3):
        assert (rows[:, column][:, ~missing] == given[:, ~missing]).all()
    assert (rows[:, 1] == np.where(missing[..., None], 0, given)).all()
    assert (rows[:, 2] != given)[:, missing].any()
    assert "--mask=lower" in refused("complete", f"--run={run}", "--mask=lower")
    Image.fromarray(np.zeros((8, 9), np.uint8)).save("wide.png")
    assert "wide.png is 9x8 pixels" in refused("complete", f"--run={run}", "--images", "wide.png")
    told = refused("complete", f"--run={run}", "--images", "none.png")
    assert "none.png is not a readable image (there is no such file)" in told
    assert "--num" in refused("complete", f"--run={run}", "--num=0")


def test_reconstruct_shows_the_images_and_the_means(trained, refused):
    run = trained("vae").run
    main.main(["reconstruct", f"--run={run}", "--count=4", "--out=x.png"])
    given, decoded = levels_of(read("x.png"), 2, 4)
    test = load(DataConfig()).splits["test"].x[:4]
    assert (given == test).all()
    saved = load_run(run)
    batch = {"x": test, "index": np.arange(4)}
    key, model = jax.random.key(0), saved.model

    @jax.jit
    def reconstructed(state):
        code = model.encode(key, state, batch)
        return model.spec.from_float(model.decode(key, state, code))

    direct = np.asarray(reconstructed(saved.state))
    assert np.abs(decoded.astype(int) - direct).max() <= 1 and (decoded != test).any()
    assert "--count" in refused("reconstruct", f"--run={run}", "--count=0")


@pytest.mark.parametrize(
    ("command", "name", "use"),
    [
        ("interpolate", "pixelcnn", "use one of vae, "),
        ("complete", "gan", "use one of pixelcnn, gated"),
        ("complete", "vae", "use one of pixelcnn, gated"),
        ("reconstruct", "gan", "use one of autoencoder, vae"),
        ("reconstruct", "pixelcnn", "use one of autoencoder, vae"),
        ("translate", "gan", "use one of pix2pix, pix2pix_l1, cyclegan"),
        ("compress", "vae", "use one of pixelcnn, gated"),
    ],
)
def test_what_a_family_cannot_do_is_told(command, name, use, trained, refused):
    message = refused(command, f"--run={trained(name).run}")
    assert name in message and use in message
    assert tree(".") == {}


def test_files_have_no_labels(trained, refused):
    message = refused("complete", f"--run={trained('pixelcnn').run}", "--images", "a.png")
    assert "--images have no labels" in message


# list, describe, help


def test_list_names_every_model(capfd, refused):
    main.main(["list"])
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(MODELS)
    assert all(len(line.split()) > 4 for line in lines)
    assert len({line.split(maxsplit=1)[1] for line in lines}) == len(lines)
    assert "jaxgen list takes no arguments" in refused("list", "vae")


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (["vae", "--vae.hidden", "5", "3", "--vae.latents=2", "--vae.likelihood=logistic"],
         (64 * 5 + 5) + (5 * 3 + 3) + (3 * 4 + 4) + (2 * 3 + 3) + (3 * 5 + 5) + (5 * 128 + 128)),
        (["vae", "--vae.hidden=5", "--vae.latents=2", "--conditional", "--binarize=threshold"],
         (74 * 5 + 5) + (5 * 4 + 4) + (12 * 5 + 5) + (5 * 64 + 64)),
        (["pixelcnn", "--pixelcnn.features=4", "--pixelcnn.blocks=2", "--pixelcnn.head=6"],
         None),
    ],
)  # fmt: skip
def test_describe_counts_the_parameters(argv, count, capfd):
    main.main(["describe", *argv])
    out = capfd.readouterr().out
    shown = int(out.split("parameters")[1].split()[0].replace(",", ""))
    if count is None:
        # Causal kernels hold their live weights alone, or whole; biases are per output.
        run, _, _ = parse.parse_run([f"--model={argv[0]}", *argv[1:]], "")
        state = jax.eval_shape(run.model.init, jax.random.key(0), run.model.spec.example(1))
        count = sum(x.size for x in jax.tree.leaves(state.net.params))
        rows = 3 * 7 * 8 + 3 * 8  # the first kernel above, and to the left of the middle
        block = (8 * 4 + 4) + (3 * 4 * 4 + 2 * 4 * 4 + 4) + (4 * 8 + 8)
        assert count >= rows + 8 + 2 * block + (8 * 6 + 6) + (6 * 17 + 17)
    assert shown == count
    assert re.search(r"[1-9.]+ [Mk]FLOP per image", out) and "8x8x1" in out
    assert tree(".") == {}


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ([], "jaxgen train --model=NAME"),
        (["--help"], "jaxgen prepare DATASET"),
        (["train", "--help"], "jaxgen train --model=NAME"),
        (["train", "--model=vae", "--help"], "--vae.latents INT"),
        (["train", "--model=gan", "--help"], "--gan.g_optimizer.learning_rate FLOAT"),
        (["train", "--model=pixelcnn", "--help"], "--eval_every INT"),
        (["describe", "--help"], "jaxgen describe NAME"),
        (["describe", "vae", "--help"], "--vae.latents INT"),
        (["sample", "--help"], "--temperature FLOAT"),
        (["evaluate", "--help"], "--split {train,validation,test}"),
        (["interpolate", "--help"], "--pairs INT"),
        (["complete", "--help"], "--mask STR"),
        (["reconstruct", "--help"], "--count INT"),
        (["prepare", "--help"], "--data_dir"),
        (["list", "--help"], "pixelcnn"),
    ],
)
def test_help(argv, shown, capfd):
    with contextlib.suppress(SystemExit) if "--help" in argv else contextlib.nullcontext() as _:
        main.main(argv)
    out, err = capfd.readouterr()
    assert shown in out and err == ""
    assert not re.search(r"\bspec\b", out)
    assert tree(".") == {}


# Mistakes


def make_folders():
    """Folders of images: none, one that is damaged, of two sizes, and good but unlabelled."""
    for name in ("none", "damaged", "mixed", "good"):
        Path(name).mkdir()
    for i in range(30):
        image = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(image).save(f"good/{i:02d}.png")
        Image.fromarray(image).save(f"damaged/{i:02d}.png")
        Image.fromarray(image[:, : 8 - i % 2]).save(f"mixed/{i:02d}.png")
    Path("damaged/07.png").write_bytes(b"not a picture")


MISTAKES = {
    "no model": ("train", "--model is missing; choose from pixelcnn, gated"),
    "model": ("train --model=vea", "--model=vea is unknown; choose from pixelcnn, gated"),
    "two models": ("train --model=vae --model=gan", "--model is given twice"),
    "command": ("trian --model=vae", "unknown command 'trian'; choose from train, sample"),
    "data set": (
        "train --model=vae --dataset=mnits",
        "unknown --dataset=mnits; did you mean mnist",
    ),
    "flag": ("train --model=vae --vae.latent=3", "--vae.latents"),
    "flag of another model": ("train --model=vae --gan.loss=hinge", "--gan.loss=hinge"),
    "trainer's flag": ("train --model=vae --batchsize=3", "--batch_size"),
    "choice": ("train --model=gan --gan.loss=hing", "--gan.loss"),
    "whole number": ("train --model=vae --steps=ten", "--steps"),
    "number": ("train --model=vae --vae.beta=high", "--vae.beta"),
    "word": ("train --model=vae more", "more"),
    "not prepared": (
        "train --model=vae --dataset=mnist --data_dir=none",
        "--dataset=mnist is not prepared",
    ),
    "no TFDS directory": (
        "train --model=vae --dataset=mnist --data_dir=nowhere",
        "here/nowhere is not a directory",
    ),
    "folder unnamed": ("train --model=vae --dataset=folder", "needs --data_dir=PATH"),
    "folder empty": (
        "train --model=vae --dataset=folder --data_dir=none",
        "here/none holds no images",
    ),
    "damaged image": (
        "train --model=vae --dataset=folder --data_dir=damaged",
        "damaged/07.png is not a readable image",
    ),
    "two sizes": ("train --model=vae --dataset=folder --data_dir=mixed", "give --size=N"),
    "no labels": (
        "train --model=vae --dataset=folder --data_dir=good --conditional",
        "--conditional needs labels",
    ),
    "batch too large": (
        "train --model=vae --batch_size=1004",
        "--batch_size 1004: a step takes 1004 examples and the train split has 1000; use "
        "--batch_size 1000 or less",
    ),
    "batch too large for a GAN": (  # of which 250 would do, but for groups of 8
        "train --model=gan --batch_size=400 --gan.d_steps=4 --devices=1",
        "use --batch_size 248 or less",
    ),
    "batch not divided": (
        "train --model=vae --batch_size=50 --devices=4",
        "--batch_size 50 cannot be divided over 4 devices; use a multiple of 4, such as 48",
    ),
    "devices": ("train --model=vae --devices=5", "--devices=5: there are 4"),
    "levels": ("train --model=vae --vae.likelihood=bernoulli", "--binarize=dynamic"),
    "too many levels": ("train --model=vae --levels=18", "--levels=18 is more than the 17"),
    "scale": ("train --model=vae --vae.scale=shared --vae.likelihood=categorical", "--vae.scale"),
    "penalty": ("train --model=gan --gan.d_norm=batch", "set --gan.d_norm=none, or --gan.r1=0"),
    "kernel": ("train --model=pixelcnn --pixelcnn.kernel=4", "--pixelcnn.kernel must be odd"),
    "width": ("train --model=vae --vae.hidden=-3", "--vae"),
    "filters": ("train --model=gan --gan.filters=0", "--gan"),
    "not writable": ("train --model=vae --run=/dev/null/x", "--run=/dev/null/x cannot be used"),
    "steps that are not whole": ("train --model=vae --steps=1.5e0", "--steps"),
    "steps without end": ("train --model=vae --steps=1e99", "--steps must lie in 1..2^31-1"),
    "no steps": ("train --model=vae --steps=0", "--steps must lie in 1..2^31-1"),
    "negative seed": ("train --model=vae --seed=-1", "--seed"),
    "described": ("describe vea", "--model=vea is unknown"),
    "nothing described": ("describe", "--model is missing"),
    "no run": ("sample", "--run STR"),
    "no name": ("prepare", "The TFDS name"),
    "split": ("evaluate --run=x --split=dev", "--split"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_flag_and_leaves_nothing(name, refused, tmp_path):
    command, told = MISTAKES[name]
    if "--data_dir" in command:
        make_folders()
    before = tree(".")
    assert told in refused(*command.split())
    assert tree(".") == before
    assert not list(Path(tmp_path).glob("cache/**/*.npy"))


# The codec, on a run (more of it in test_codec.py).


def test_a_split_is_compressed_and_comes_back_with_its_labels(trained, refused, capfd):
    run = trained("pixelcnn").run
    main.main(["evaluate", f"--run={run}"])
    capfd.readouterr()
    main.main(["compress", f"--run={run}", "--out=test.jxg"])
    out = " ".join(capfd.readouterr().out.split())
    found = json.loads(Path(run, "results_test.json").read_text())
    measured = found["likelihood"]["model"]["nats"]
    assert out.startswith(f"447 images written to {Path.cwd()}/test.jxg")
    assert f"{measured:.2f} nats per image and the labels" in out
    assert "of it labels 186 bytes" in out
    size = 447 * (measured / np.log(2) + np.log2(10)) / 8
    assert size < Path("test.jxg").stat().st_size < 1.01 * size + 180
    main.main(["decompress", f"--run={run}", "--file=test.jxg"])
    test = load(DataConfig(conditional=True)).splits["test"]
    found = np.load("images.npz")
    np.testing.assert_array_equal(found["x"], test.x)
    np.testing.assert_array_equal(found["label"], test.label)
    shutil.copytree(run, "other")
    with Checkpoints(Path("other/checkpoints")) as checkpoints:
        progress, _ = checkpoints.restore(shapes(load_run(run).model), 1)
        checkpoints.save(2, jax.tree.map(np.zeros_like, progress), monitor=1.0)
    told = refused("decompress", "--run=other", "--checkpoint=2", "--file=test.jxg", "--out=x")
    assert "give the run, and the --checkpoint, that compressed it" in told
    Image.new("L", (8, 8)).save("a.png")
    assert "have no labels" in refused("compress", f"--run={run}", "--images", "a.png")
    assert not Path("images.jxg").exists()


# With TFDS data, and as processes.


@pytest.fixture
def tfds():
    root = os.environ.get("TFDS_DATA_DIR")
    if not root or not Path(root, "mnist").is_dir():
        pytest.skip("TFDS_DATA_DIR names no directory with a prepared mnist")
    return root


def test_no_labels_in_binarized_mnist(tfds, refused):
    if not Path(tfds, "binarized_mnist").is_dir():
        pytest.skip("binarized_mnist is not prepared in TFDS_DATA_DIR")
    message = refused("train", "--model=vae", "--dataset=binarized_mnist", "--conditional")
    assert "--conditional needs labels" in message


@pytest.mark.slow
def test_train_on_tfds_without_tensorflow(tfds):
    """Of a VAE on MNIST that is binarized anew in every epoch."""
    argv = [
        *("train", "--model=vae", "--dataset=mnist", "--binarize=dynamic", "--steps=3"),
        *("--vae.hidden=8", "--draws=1", "--samples=10", "--batch_size=20", "--run=run"),
    ]
    code = (
        "import sys\nfrom unittest import mock\n"
        "from jaxgen.cli import main\nfrom jaxgen.report import finish\n"
        "with mock.patch.object(finish, 'finish'):\n"  # whose baselines take a minute on MNIST
        f"    main.main({argv!r})\n"
        "assert 'tensorflow_datasets' in sys.modules\nassert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    saved = load_run("run")
    assert (saved.step, saved.model.spec) == (3, DataSpec(28, 28, 1, 2))
    assert "train binarized anew every epoch" in saved.record["dataset"]["protocol"]
    images = sample("--run=run", "--num=4")["x"]
    assert set(np.unique(images)) == {0, 1}


@pytest.mark.parametrize("error", [
    MemoryError("Unable to allocate 32 GiB"),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while allocating 32 GiB"),
])  # fmt: skip
def test_too_little_memory_is_told_in_one_line(error, monkeypatch, capfd):
    def train(argv):
        raise error

    monkeypatch.setattr(main, "train", train)
    with pytest.raises(SystemExit) as stopped:
        main.main(["train", "--model=vae"])
    out, err = capfd.readouterr()
    assert (stopped.value.code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("out of memory (") and "32 GiB" in err


def test_train_py_is_jaxgen_train():
    """One mistake, through the file: the exit code reaches the shell."""
    run = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--model=vae", "--steps=0"],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr == "error: --steps must lie in 1..2^31-1; got 0\n"


def test_damage_is_told_and_the_older_checkpoint_is_used(trained, capfd):
    """Nothing in the run changes: commands only read."""
    run = trained("vae").run
    path = Path(run, "checkpoints/20/meta/metadata")
    good = path.read_bytes()
    try:
        path.write_bytes(good.replace(b"sha256", b"sha257"))
        before = tree(run)
        images = sample(f"--run={run}", "--num=5", "--checkpoint=latest")["x"]
        err = capfd.readouterr().err
        assert tree(run) == before
    finally:
        path.write_bytes(good)
    assert "checkpoint 20 is unusable" in err and "checkpoint 10 is used instead" in err
    assert (sample(f"--run={run}", "--num=5", "--checkpoint=10")["x"] == images).all()
    assert digest.digest(load_run(run, 20).state) != digest.digest(load_run(run, 10).state)


# Features.


def test_features_are_the_model_s_with_the_labels_of_the_data(trained, refused):
    run = trained("vae").run
    main.main(["features", f"--run={run}", "--split=validation", "--out=f.npz"])
    found, data = np.load("f.npz"), load(DataConfig()).splits["validation"]
    saved = load_run(run)
    batch = {"x": jnp.asarray(data.x), "index": jnp.arange(len(data.x))}
    expected = jax.jit(saved.model.embed)(saved.state, batch)
    np.testing.assert_allclose(found["features"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["label"], data.label)
    assert found["class_names"].tolist() == [str(d) for d in range(10)]
    assert "ends in .npz" in refused("features", f"--run={run}", "--out=f.png")


def test_probe_stands_beside_raw_data_components_and_no_training(trained, capfd, monkeypatch):
    monkeypatch.setattr(probe, "DRAWS", 2)
    monkeypatch.setattr(probe, "STRENGTHS", (0.1,))
    run = trained("vae").run
    main.main(["probe", f"--run={run}"])
    out = capfd.readouterr().out
    size = load_run(run).model.latents
    for row in (f"vae ({size})", "raw images (64)", f"principal components ({size})",
                f"vae, untrained ({size})"):  # fmt: skip
        assert row in out
    kept = json.loads(Path(run, "probe.json").read_text())
    assert [len(v) for v in kept["accuracy"]["raw images (64)"].values()] == [2, 1]
    assert kept["accuracy"]["raw images (64)"]["1000"][0] > 0.85
    main.main(["probe", f"--run={run}", "--classifier=nearest"])
    assert "of the nearest neighbour's label" in capfd.readouterr().out
    nearest = json.loads(Path(run, "probe_nearest.json").read_text())["accuracy"]
    assert nearest["raw images (64)"]["1000"][0] > 0.9
    assert json.loads(Path(run, "probe.json").read_text()) == kept


@pytest.mark.slow
def test_probe_needs_labels(refused, without_results, tmp_path):
    np.save("p.npy", np.random.default_rng(0).normal(size=(300, 2)))
    run = f"--run={tmp_path / 'points'}"
    with contextlib.suppress(SystemExit):
        main.main(["train", "--model=vae", "--vae.hidden", "4", "--vae.latents=2", *TINY,
                   "--dataset=points", "--data_dir=p.npy", run])  # fmt: skip
    assert "has no labels" in refused("probe", run)
