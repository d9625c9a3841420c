"""--seeds: models that train at once are each the run of their own seed, on disk as well."""

import contextlib
import dataclasses
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import shared_by_trainers
from events import shown
from tiny import data_of, some

from jaxgen.abilities import Samples
from jaxgen.cli import main
from jaxgen.data.config import DataConfig
from jaxgen.errors import Stopped, UserError
from jaxgen.model import Metric, Model, Request
from jaxgen.models.adversarial.gan import GAN
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.models.latent.vae import VAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.registry import load_run
from jaxgen.runs import checkpoint, digest
from jaxgen.runs.config import Run, TrainConfig, runs_by_seed
from jaxgen.runs.directory import difference, lock, read_run
from jaxgen.runs.log import read_metrics
from jaxgen.runs.state import Progress, keys_of, shapes
from jaxgen.spec import DataSpec
from jaxgen.training import feed, meter, pace
from jaxgen.training.trainer import Trainer

DIGITS = data_of(DataConfig())
LABELLED = DataConfig(conditional=True, binarize="dynamic")
"""Loaded when a test asks for it: its draws are a program."""

CONFIG = TrainConfig(
    steps=8, batch_size=20, log_every=2, eval_every=4, samples=20, seed=4, seeds=3, devices=2
)
SEEDS = (4, 5, 6)
SGD = Optimizer("sgd", 0.02, b1=0.9)

FAMILIES: dict[str, tuple[Model, Any]] = {
    "pixelcnn": (
        PixelCNN(DIGITS.spec, features=4, blocks=1, head=4, first_kernel=3, optimizer=SGD),
        DIGITS,
    ),
    "vae": (VAE(DataSpec(8, 8, 1, 2, 10), hidden=(8,), latents=2, optimizer=SGD), LABELLED),
    "gan": (
        GAN(
            DIGITS.spec, architecture="mlp", hidden=(8,), latents=4, g_optimizer=SGD,
            d_optimizer=SGD,
        ),
        DIGITS,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Toy(Model, Samples):
    """Quick to compile; the run of seed 5 is not finite from step `bad` on."""

    bad: int = 1000

    metrics: ClassVar = {"nll": Metric("loss", better="lower")}
    monitor: ClassVar = "nll"

    def init(self, key, batch):
        mine = (jax.random.key_data(key) == jax.random.key_data(keys_of(5).init)).all()
        return {"w": jax.random.normal(key, (3,)), "count": jnp.int32(0), "mine": mine}

    def train_step(self, key, state, batch, step, axis_name=None):
        bad = state["mine"] & (state["count"] >= self.bad)
        w = 0.9 * state["w"] + jax.random.normal(key, (3,))
        loss = jnp.where(bad, jnp.nan, jnp.square(w).sum())
        return {**state, "w": w, "count": state["count"] + 1}, {"loss": loss}

    def eval_step(self, key, state, batch):
        """The later, the better."""
        return {"nll": state["w"][0] - 100.0 * state["count"] + 0.0 * batch["index"]}

    def sample(self, key, state, num, request=Request()):
        return jnp.zeros((num, *self.spec.shape), jnp.uint8)


def score(images: np.ndarray) -> dict[str, float]:
    return {"frechet": float(images.mean())}


def train(directory: Path, model: Model, dataset: Any = DIGITS, **config: Any) -> None:
    dataset = data_of(dataset) if isinstance(dataset, DataConfig) else dataset
    needs = None if model.monitor in model.metrics else score
    run = Run("test", model, DataConfig(), dataclasses.replace(CONFIG, **config))
    for _, where in runs_by_seed(run, directory):
        where.mkdir(parents=True, exist_ok=True)
    Trainer(run, dataset, directory, needs).train()


def train_alone(directory: Path, seed: int, model: Model, dataset: Any = DIGITS) -> None:
    train(directory, model, dataset, seed=seed, seeds=1)


def saved(directory: Path, model: Model, step: Any = None) -> Progress:
    """The Progress of a checkpoint, the latest by default."""
    fresh = shapes(model)
    with checkpoint.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(fresh, step)[0]


def digests(directory: Path, model: Model) -> list[str]:
    return [digest.digest(saved(directory / f"seed_{s}", model)) for s in SEEDS]


def steps_of(directory: Path) -> set[str]:
    return {p.name for p in (directory / "checkpoints").iterdir()}


def close(a: Any, b: Any) -> None:
    """To rounding, of the largest entry."""

    def check(a, b):
        largest = float(np.abs(np.asarray(b, np.float64)).max())
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 + 2.0**-22 * largest)

    jax.tree.map(check, a, b)


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
    with shared_by_trainers():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of three seeds of a family that nothing interrupted."""
    made: dict[str, Path] = {}

    def whole(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            train(made[name], *FAMILIES[name])
        return made[name]

    return whole


@pytest.fixture
def stop_at(monkeypatch):
    """Delivers SIGTERM to this process as soon as so many steps were dispatched."""

    @contextlib.contextmanager
    def stop_at(steps: int):
        plain = meter.Meter.add

        def add(self, step, count, metrics, in_a_row):
            plain(self, step, count, metrics, in_a_row)
            if step + count == steps:
                signal.raise_signal(signal.SIGTERM)  # to this thread: it cannot come late

        with monkeypatch.context() as patch:
            patch.setattr(meter.Meter, "add", add)
            patch.setattr(pace, "SECONDS_PER_DISPATCH", 0.0)  # one step a dispatch
            yield

    return stop_at


@pytest.mark.parametrize("name", some(FAMILIES, ["vae"]))
def test_each_seed_is_its_lone_run(name, whole, tmp_path):
    """To rounding: the state, and every number that is logged; with the same files."""
    model, dataset = FAMILIES[name]
    assert {p.name for p in whole(name).iterdir()} == {f"seed_{s}" for s in SEEDS}
    for seed in SEEDS:
        ours, theirs = whole(name) / f"seed_{seed}", tmp_path / str(seed)
        train_alone(theirs, seed, model, dataset)
        close(saved(ours, model), saved(theirs, model))
        assert steps_of(ours) == steps_of(theirs)
        rows = [read_metrics(where / "metrics.jsonl") for where in (ours, theirs)]
        assert len(rows[0]) == len(rows[1]) == 6
        for mine, alone in zip(*rows, strict=True):
            assert mine.pop("split") == alone.pop("split")
            close(mine, alone)
        assert {p.name for p in ours.iterdir()} == {p.name for p in theirs.iterdir()}
        assert {p.name for p in (ours / "samples").iterdir()} == {
            "step_0000004.png",
            "step_0000008.png",
        }
    assert len(set(digests(whole(name), model))) == len(SEEDS)


@pytest.mark.slow
def test_streamed_batches_are_the_resident_ones(tmp_path, monkeypatch, fusion_emitters):
    """With labels, and binarization that is drawn anew in every epoch."""
    model, dataset = FAMILIES["vae"]
    model = dataclasses.replace(model, ema=0.9)  # whose steps no other test compiled
    train(tmp_path / "resident", model, dataset)
    monkeypatch.setattr(feed, "RESIDENT_BYTES", 0)
    train(tmp_path / "streamed", model, dataset)
    found = [digests(tmp_path / name, model) for name in ("streamed", "resident")]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", some(FAMILIES, ["vae"]))
def test_resumed_is_never_stopped_bit_for_bit(name, whole, tmp_path, stop_at, capfd):
    model, dataset = FAMILIES[name]
    with stop_at(5), pytest.raises(Stopped, match="saved at step 5 of 8") as stopped:
        train(tmp_path, model, dataset)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert [int(saved(tmp_path / f"seed_{s}", model).step) for s in SEEDS] == [5, 5, 5]
    train(tmp_path, model, dataset)
    err = capfd.readouterr().err
    assert err.count("at step 5 of 8") == 1 and err.count("step 8: validation") == 1
    assert digests(tmp_path, model) == digests(whole(name), model)
    for seed in SEEDS:
        same_to_see(tmp_path / f"seed_{seed}", whole(name) / f"seed_{seed}")


def same_to_see(directory: Path, whole: Path) -> None:
    """The rows, the kept checkpoints, and what TensorBoard shows."""
    rows = [read_metrics(where / "metrics.jsonl") for where in (directory, whole)]
    assert rows[0] == rows[1]
    assert steps_of(directory) == steps_of(whole)
    assert shown(directory) == shown(whole)


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.parametrize("step", some([4, 8], [4]))
@pytest.mark.parametrize("before", some([1, 2], [1]))
def test_killed_between_the_saves_of_two_members(step, before, whole, tmp_path, monkeypatch, capfd):
    """All go on from the step that all have; at first that is none."""
    model, dataset = FAMILIES["vae"]
    plain, done = checkpoint.Checkpoints.save, []

    def save(self, at, *args, **kwargs):
        if at == step and len(done) == before:
            raise Killed
        done.append(at) if at == step else None
        return plain(self, at, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint.Checkpoints, "save", save)
        train(tmp_path, model, dataset)
    have = [str(step) in steps_of(tmp_path / f"seed_{s}") for s in SEEDS]
    assert have == [i < before for i in range(3)]
    capfd.readouterr()
    train(tmp_path, model, dataset)
    err = capfd.readouterr().err
    assert ("resuming" in err) == (step == 8) and (step == 4 or "at step 4 of 8" in err)
    assert digests(tmp_path, model) == digests(whole("vae"), model)
    for seed in SEEDS:
        same_to_see(tmp_path / f"seed_{seed}", whole("vae") / f"seed_{seed}")


def test_a_damaged_checkpoint_of_one_takes_all_back(tmp_path, stop_at, capfd):
    model = Toy(DIGITS.spec)
    with stop_at(5), pytest.raises(Stopped):
        train(tmp_path, model)
    # All of the array files: of so small a state, one may hold nothing that is read.
    for path in (tmp_path / "seed_5/checkpoints/5/state").glob("**/d/*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    capfd.readouterr()
    train(tmp_path, model)
    err = capfd.readouterr().err
    assert "seed_5: checkpoint 5 is unusable" in err and "at step 4 of 8" in err
    train(tmp_path / "whole", model)
    assert digests(tmp_path, model) == digests(tmp_path / "whole", model)


@dataclass(frozen=True)
class Collapses(Toy):
    """The run of seed 5 is worse from step 5 on."""

    def eval_step(self, key, state, batch):
        collapsed = state["mine"] & (state["count"] > 4)
        return {"nll": jnp.where(collapsed, 1000.0, 100.0 - state["count"]) + 0.0 * batch["index"]}


@pytest.mark.slow
def test_one_that_collapses_goes_back_and_leaves_the_others_alone(tmp_path):
    model = Collapses(DIGITS.spec)
    train(tmp_path / "without", model, eval_every=2)
    train(tmp_path / "with", model, eval_every=2, rollback=2.0)
    plain, back = (digests(tmp_path / name, model) for name in ("without", "with"))
    assert plain[0] == back[0] and plain[1] != back[1] and plain[2] == back[2]
    last = saved(tmp_path / "with/seed_5", model)
    best = saved(tmp_path / "with/seed_5", model, "best")
    assert (int(best.step), int(last.step)) == (4, 8)
    np.testing.assert_array_equal(last.state["w"], best.state["w"])


def test_a_member_that_went_on_alone_is_kept(tmp_path, stop_at, capfd):
    model = Toy(DIGITS.spec)
    with stop_at(5), pytest.raises(Stopped):
        train(tmp_path, model)
    train_alone(tmp_path / "seed_5", 5, model)
    ahead = digest.digest(saved(tmp_path / "seed_5", model))
    train(tmp_path, model)
    assert "at step 4 of 8" in capfd.readouterr().err
    assert digest.digest(saved(tmp_path / "seed_5", model)) == ahead
    assert [int(saved(tmp_path / f"seed_{s}", model).step) for s in SEEDS] == [8, 8, 8]


def test_no_common_step_is_refused_until_all_are_finished(tmp_path, stop_at, capfd):
    model, long = Toy(DIGITS.spec), {"steps": 16}
    with stop_at(5), pytest.raises(Stopped):
        train(tmp_path, model, **long)
    train(tmp_path / "seed_5", model, seed=5, seeds=1, **long)
    rows = read_metrics(tmp_path / "seed_5/metrics.jsonl")
    before = {s: steps_of(tmp_path / f"seed_{s}") for s in SEEDS}
    assert before == {4: {"4", "5"}, 5: {"12", "16"}, 6: {"4", "5"}}
    with pytest.raises(UserError, match="no checkpoint of the same step") as refused:
        train(tmp_path, model, **long)
    assert "seed_5: [12, 16]" in str(refused.value)
    assert {s: steps_of(tmp_path / f"seed_{s}") for s in SEEDS} == before
    assert read_metrics(tmp_path / "seed_5/metrics.jsonl") == rows
    for seed in (4, 6):
        train(tmp_path / f"seed_{seed}", model, seed=seed, seeds=1, **long)
    capfd.readouterr()
    train(tmp_path, model, **long)
    assert ": validation" not in capfd.readouterr().err


def test_divergence_of_one_stops_all_and_is_told_by_its_seed(tmp_path):
    with pytest.raises(Stopped, match="seed 5: 2 steps in a row.*at step [67] it was") as stopped:
        train(tmp_path, Toy(DIGITS.spec, bad=5), max_skipped=2)
    assert stopped.value.code == 1 and str(tmp_path / "seed_5") in str(stopped.value)


def test_a_step_is_skipped_by_its_own_seed_alone(tmp_path):
    model = Toy(DIGITS.spec, bad=5)
    train(tmp_path, model)
    found = [saved(tmp_path / f"seed_{s}", model) for s in SEEDS]
    assert [int(p.skipped) for p in found] == [0, 3, 0]
    assert [int(p.state["count"]) for p in found] == [8, 5, 8]
    rows = [read_metrics(tmp_path / f"seed_{s}/metrics.jsonl") for s in SEEDS]
    skipped = [[row["skipped"] for row in r if row["split"] == "train"] for r in rows]
    assert skipped == [[0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 0, 0]]


def test_seeds_that_cannot_be(tmp_path):
    for wrong in (0, -1):
        with pytest.raises(UserError, match="--seeds must lie in 1"):
            TrainConfig(seeds=wrong)
    assert TrainConfig(seed=2**31 - 2, seeds=2).seeds == 2
    with pytest.raises(UserError, match="--seeds=2: the last seed would be 2147483648"):
        TrainConfig(seed=2**31 - 1, seeds=2)


# The command.

TINY = {
    "vae": ("--vae.hidden=8", "--draws=2", "--vae.latents=2", "--conditional"),
    "gan": ("--gan.architecture=mlp", "--gan.hidden=8", "--gan.latents=4"),
}


@pytest.fixture(scope="module", params=some(TINY, ["vae"]))
def command(request, tmp_path_factory):
    """The command of a run of two seeds, which was run once."""
    run = tmp_path_factory.mktemp("runs") / request.param
    argv = [
        *("train", f"--model={request.param}", "--steps=4", "--eval_every=2", "--log_every=2"),
        *("--samples=50", "--batch_size=40", "--devices=1", *TINY[request.param]),
    ]
    main.main([*argv, "--seeds=2", f"--run={run}"])
    return argv, run


@pytest.fixture
def refused(capfd):
    """main(argv) exits with 2 after one message without a traceback; returns it in one line."""

    def refused(*argv: str) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main.main(argv)
        out, err = capfd.readouterr()
        assert (stopped.value.code, out) == (2, "") and "Traceback" not in err
        return " ".join(err.split())

    return refused


def numbers(results: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Every number that a model is measured by."""
    found = {("metrics", n): x["mean"] for n, x in results["metrics"].items()}
    found |= {("scores", n): x for n, x in results["scores"]["model"].items()}
    found |= {("inspection", n): x for n, x in results["inspection"].items()}
    if results["likelihood"]:
        ours = results["likelihood"]["model"]
        found |= {("likelihood", n): ours[n] for n in ("nats", "bits_per_dim")}
    return found


@pytest.mark.slow
def test_the_parent_holds_mean_and_deviation_of_its_members(command):
    _, run = command
    found = [numbers(json.loads((run / f"seed_{s}/results.json").read_text())) for s in (0, 1)]
    summary = json.loads((run / "results.json").read_text())
    assert summary["seeds"] == [0, 1] and summary["model"] == run.name
    assert {(s, n) for s in ("likelihood", "metrics", "scores", "inspection")
            for n in summary[s]} == set(found[0])  # fmt: skip
    for section, name in found[0]:
        values = [f[section, name] for f in found]
        ours = summary[section][name]
        assert ours["values"] == values
        np.testing.assert_allclose(ours["mean"], np.mean(values), rtol=1e-12)
        np.testing.assert_allclose(ours["std"], np.std(values, ddof=1), rtol=1e-9, atol=1e-12)
    assert any(x["std"] > 0 for x in summary["metrics"].values())


@pytest.mark.slow
def test_a_member_is_the_directory_of_its_lone_command(command, tmp_path):
    """The same files, the same run.json but for what ran, and results equal to rounding."""
    argv, run = command
    main.main([*argv, "--seed=1", f"--run={tmp_path / 'alone'}"])
    assert {p.name for p in (run / "seed_1").iterdir()} == {
        p.name for p in (tmp_path / "alone").iterdir()
    }
    records = [read_run(where) for where in (run / "seed_1", tmp_path / "alone")]
    assert [r.pop("environment") != {} for r in records] == [True, True]
    assert difference(*records) == []
    ours, theirs = (
        json.loads((where / "results.json").read_text())
        for where in (run / "seed_1", tmp_path / "alone")
    )
    assert {**ours, **dict.fromkeys(("metrics", "scores", "inspection", "likelihood", "seconds"))
            } == {**theirs, **dict.fromkeys(("metrics", "scores", "inspection", "likelihood",
                                             "seconds"))}  # fmt: skip
    # A rounded sample changes a share among 50 or 447 by little.
    for name, value in numbers(ours).items():
        np.testing.assert_allclose(value, numbers(theirs)[name], rtol=1e-3, atol=0.05)
    images = run / "seed_1" / "x.npz"
    main.main(["sample", f"--run={run / 'seed_1'}", "--num=4", f"--out={images}"])
    assert np.load(images)["x"].shape == (4, 8, 8, 1)
    images.unlink()
    assert load_run(run / "seed_1").run.train.seed == 1


@pytest.mark.slow
def test_the_same_command_reports_again_and_trains_no_more(command, capfd):
    argv, run = command
    results, page = run / "results.json", run / "seed_1" / "report.html"
    before = json.loads(results.read_text())
    results.unlink()
    page.unlink()
    main.main([*argv, "--seeds=2", f"--run={run}"])
    out, err = capfd.readouterr()
    assert ": validation" not in err and "of seeds 0, 1, test split" in out
    assert json.loads(results.read_text()) == before and page.exists()


@pytest.mark.slow
def test_mistakes_with_the_parent(command, refused):
    argv, run = command
    for name in main.COMMANDS:
        message = refused(name, f"--run={run}")
        assert f"give one of them, --run={run}/seed_0 to {run}/seed_1" in message
    assert "train.seeds: 2 -> 3" in refused(*argv, "--seeds=3", f"--run={run}")
    assert "train.seed: 0 -> 1" in refused(*argv, "--seeds=2", "--seed=1", f"--run={run}")
    assert "train.seeds: 2 -> 1" in refused(*argv, f"--run={run}")
    with lock(run / "seed_1"):
        assert "seed_1 is in use by" in refused(*argv, "--seeds=2", f"--run={run}")
    assert {p.name for p in run.iterdir()} == {
        *(".lock", ".holder", "run.json", "results.json", "seed_0", "seed_1")
    }
