"""The trainer: resuming changes no bit, bad steps are not applied, and devices do not matter."""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import shared_by_trainers
from events import shown
from tiny import data_of, some

from jaxgen.abilities import Samples, Watches
from jaxgen.cli import main, parse
from jaxgen.data.config import DataConfig
from jaxgen.data.splits import Split
from jaxgen.distributions.normal import normal_like
from jaxgen.errors import Stopped, UserError
from jaxgen.model import Metric, Model, Request
from jaxgen.models.adversarial.gan import GAN
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.models.latent.vae import VAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import mean_over
from jaxgen.parallel.mesh import make_mesh
from jaxgen.runs import checkpoint, digest
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.log import read_metrics
from jaxgen.runs.state import keys_of, shapes
from jaxgen.spec import DataSpec
from jaxgen.training import feed, meter, pace, trainer
from jaxgen.training.trainer import Trainer, check, mesh_of

DIGITS = data_of(DataConfig())
LABELLED = DataConfig(conditional=True, binarize="dynamic")
"""Loaded when a test asks for it: its draws are a program."""
BINARY = DataSpec(8, 8, 1, 2, 10)

CONFIG = TrainConfig(steps=20, batch_size=40, log_every=5, eval_every=10, samples=50)

FAMILIES: dict[str, tuple[Model, Any]] = {
    "pixelcnn": (PixelCNN(DIGITS.spec, features=4, blocks=1, head=4, first_kernel=3), DIGITS),
    "vae": (VAE(BINARY, hidden=(8,), latents=2), LABELLED),
    "gan": (GAN(DIGITS.spec, architecture="mlp", hidden=(8, 8), latents=4), DIGITS),
}


@dataclass(frozen=True)
class Toy(Model, Samples):
    """A walk that depends on the images, their order and the step's key; quick to compile."""

    pull: float = 0.9
    target: float = 0.0
    bad_metric: tuple[int, ...] = ()
    """Steps (the first is 1) whose loss is NaN."""
    bad_state: tuple[int, ...] = ()
    """Steps whose new state is infinite, and whose loss is finite."""

    metrics: ClassVar = {"nll": Metric("distance", better="lower"), "w": Metric("w")}
    monitor: ClassVar = "nll"

    def init(self, key, batch):
        return {"w": jax.random.normal(key, (3,)), "count": jnp.zeros((), jnp.int32)}

    def train_step(self, key, state, batch, step, axis_name=None):
        x = self.spec.to_float(batch["x"]).mean((1, 2, 3))[:, None]
        noise = normal_like(key, batch["index"], (3,))
        w = self.pull * state["w"] + mean_over(axis_name, (x + noise).mean(0))
        loss = jnp.where(is_among(key, self.bad_metric), jnp.nan, jnp.square(w).sum())
        new = {
            "w": jnp.where(is_among(key, self.bad_state), jnp.inf, w),
            "count": state["count"] + 1,
        }
        return new, {"loss": loss}

    def eval_step(self, key, state, batch):
        """The distance of the number of applied steps from the target."""
        x = batch["x"].mean((1, 2, 3))
        return {"nll": jnp.abs(state["count"] - self.target) + 0.0 * x, "w": state["w"][0] + x}

    def sample(self, key, state, num, request=Request()):
        return jnp.zeros((num, *self.spec.shape), jnp.uint8)


def is_among(key, steps: tuple[int, ...]):
    """Whether this is the key of one of the steps, the first being 1, of the run of seed 0."""
    wanted = keys_of_steps()[np.array(steps, int) - 1]
    return (jax.random.key_data(key)[None] == wanted).all(-1).any()


def _keys(steps):
    one = lambda t: jax.random.fold_in(keys_of(0).train, t)  # noqa: E731
    return jax.random.key_data(jax.vmap(one)(steps))


@functools.cache
def keys_of_steps():
    """The data of the keys of all steps: constants of the toys' programs."""
    return np.asarray(jax.jit(_keys)(np.arange(20)))


def score(images: np.ndarray) -> dict[str, float]:
    return {"frechet": float(images.mean())}


def train(
    directory: Path, model: Model, dataset: Any = DIGITS, config: TrainConfig = CONFIG
) -> Trainer:
    directory.mkdir(parents=True, exist_ok=True)
    keys_of_steps()  # not within a trace
    dataset = data_of(dataset) if isinstance(dataset, DataConfig) else dataset
    needs = None if model.monitor in model.metrics else score
    made = Trainer(Run("test", model, DataConfig(), config), dataset, directory, needs)
    made.train()
    return made


def saved(directory: Path, model: Model, step: Any = None) -> tuple[Any, int]:
    """(Progress, step) of a checkpoint, the latest by default."""
    fresh = shapes(model)
    with checkpoint.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(fresh, step)


def last_digest(directory: Path, model: Model) -> str:
    progress, step = saved(directory, model)
    assert step == int(progress.step)
    return digest.digest(progress)


def rows(directory: Path, split: str | None = None) -> list[dict[str, Any]]:
    found = read_metrics(directory / "metrics.jsonl")
    return [row for row in found if split in (None, row["split"])]


def places(directory: Path) -> list[tuple[int, str]]:
    return [(row["step"], row["split"]) for row in rows(directory)]


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


@pytest.fixture
def stop_at(monkeypatch):
    """Delivers a signal to this process as soon as so many steps were dispatched."""

    @contextlib.contextmanager
    def stop_at(steps: int, number: int = signal.SIGTERM):
        plain = meter.Meter.add

        def add(self, step, count, metrics, in_a_row):
            plain(self, step, count, metrics, in_a_row)
            if step + count == steps:
                signal.raise_signal(number)  # to this thread: it cannot come late

        with monkeypatch.context() as patch:
            patch.setattr(meter.Meter, "add", add)
            patch.setattr(pace, "SECONDS_PER_DISPATCH", 0.0)  # one step a dispatch
            yield

    return stop_at


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a run of each family that nothing interrupted; trained when asked for."""
    made: dict[str, Path] = {}

    def whole(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            train(made[name], *FAMILIES[name])
        return made[name]

    return whole


@pytest.mark.parametrize("name", some(FAMILIES, ["vae"]))
def test_resumed_is_never_stopped_bit_for_bit(name, whole, tmp_path, stop_at, capfd):
    """Parameters, optimizer, statistics, averages and counters; stopped between all intervals."""
    model, dataset = FAMILIES[name]
    with stop_at(13), pytest.raises(Stopped, match="saved at step 13 of 20") as stopped:
        train(tmp_path, model, dataset)
    assert stopped.value.code == 128 + signal.SIGTERM
    halfway, step = saved(tmp_path, model)
    assert step == 13 == int(halfway.step)
    train(tmp_path, model, dataset)
    assert "resuming" in (said := capfd.readouterr().err) and "at step 13 of 20" in said

    full, _ = saved(whole(name), model)
    assert last_digest(tmp_path, model) == digest.digest(full)
    assert digest.digest(halfway) != digest.digest(full)
    # All that is compared has moved since the stop: no part of the state is vacuously equal.
    unequal = lambda a, b: bool((np.asarray(a) != np.asarray(b)).any())  # noqa: E731
    moved = jax.tree.map(unequal, halfway.state, full.state)
    still = [p for p, m in jax.tree_util.tree_leaves_with_path(moved) if not m]
    unlike = [jax.tree_util.keystr(p) for p in still]
    assert [n for n in unlike if "label" not in n] == []

    same_to_see(tmp_path, whole(name))


def same_to_see(directory: Path, whole: Path) -> None:
    """The rows, the kept checkpoints, the pictures, and what TensorBoard shows."""
    assert rows(directory) == rows(whole)
    assert shown(directory) == shown(whole)
    for folder in ("checkpoints", "samples"):
        assert sorted(os.listdir(directory / folder)) == sorted(os.listdir(whole / folder))
    for picture in (whole / "samples").iterdir():
        assert (directory / "samples" / picture.name).read_bytes() == picture.read_bytes()


def test_many_stops_leave_no_trace(tmp_path, stop_at):
    """Within intervals, with steps that are skipped; the sums are those of single steps."""
    model = Toy(DIGITS.spec, bad_metric=(8, 13))
    config = dataclasses.replace(CONFIG, eval_every=4)
    train(tmp_path / "whole", model, config=config)
    for step in (1, 3, 7, 8, 13, 14, 19):
        with stop_at(step), pytest.raises(Stopped, match=f"saved at step {step} of 20"):
            train(tmp_path / "stops", model, config=config)
    train(tmp_path / "stops", model, config=config)
    same_to_see(tmp_path / "stops", tmp_path / "whole")


@pytest.mark.parametrize("at", [10, 20])
def test_killed_in_a_save_nothing_is_seen_twice(at, whole, tmp_path, monkeypatch):
    """Also in the very first one, where there is nothing to resume from."""
    plain = checkpoint.Checkpoints.save

    def save(self, step, *args, **kwargs):
        if step == at:
            raise KeyboardInterrupt  # stands for a kill: nothing handles it here
        return plain(self, step, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint.Checkpoints, "save", save)
        train(tmp_path, *FAMILIES["vae"])
    assert (at, "validation") in places(tmp_path)
    train(tmp_path, *FAMILIES["vae"])
    same_to_see(tmp_path, whole("vae"))


def test_lengthened_is_never_stopped(whole, tmp_path):
    model, dataset = FAMILIES["vae"]
    train(tmp_path, model, dataset, dataclasses.replace(CONFIG, steps=10))
    train(tmp_path, model, dataset)
    same_to_see(tmp_path, whole("vae"))


def test_another_thread_trains_without_handlers(tmp_path, capfd):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    model, failed = Toy(DIGITS.spec), []

    def work():
        try:
            train(tmp_path / "thread", model)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == [] and "not in the main thread" in capfd.readouterr().err
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    train(tmp_path / "main", model)
    assert "thread" not in capfd.readouterr().err
    same_to_see(tmp_path / "thread", tmp_path / "main")


def test_a_stop_that_cannot_be_saved_says_so(tmp_path, stop_at, monkeypatch):
    plain = checkpoint.digest

    def full(progress):
        if int(progress.step) == 13:
            raise OSError(28, "No space left on device")
        return plain(progress)

    monkeypatch.setattr(checkpoint, "digest", full)
    told = "stopped at step 13, which is not saved; the last good checkpoint, of step 10"
    with stop_at(13), pytest.raises(Stopped, match=told) as stopped:
        train(tmp_path, Toy(DIGITS.spec))
    assert stopped.value.code == 1


def test_samples_that_cannot_be_written_do_not_end_the_run(whole, tmp_path, capfd):
    (tmp_path / "samples").write_text("")
    train(tmp_path, *FAMILIES["vae"])
    assert "samples cannot be written" in capfd.readouterr().err
    assert rows(tmp_path) == rows(whole("vae"))


def test_interrupted_twice_and_by_the_keyboard(tmp_path, stop_at):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    model = Toy(DIGITS.spec)
    with (
        stop_at(3, signal.SIGINT),
        pytest.raises(Stopped, match="SIGINT.*saved at step 3") as first,
    ):
        train(tmp_path / "a", model)
    assert first.value.code == 130
    with stop_at(10), pytest.raises(Stopped, match="saved at step 10"):
        train(tmp_path / "a", model)
    train(tmp_path / "a", model)
    train(tmp_path / "b", model)
    assert last_digest(tmp_path / "a", model) == last_digest(tmp_path / "b", model)
    same_to_see(tmp_path / "a", tmp_path / "b")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # put back


def test_a_signal_in_the_last_step_ends_a_run_that_is_whole(tmp_path, stop_at):
    with stop_at(20), pytest.raises(Stopped, match="saved at step 20 of 20; .* measures it") as end:
        train(tmp_path, Toy(DIGITS.spec))
    assert end.value.code == 128 + signal.SIGTERM
    assert saved(tmp_path, Toy(DIGITS.spec))[1] == 20


def test_a_finished_run_is_left_as_it_is(whole, capfd):
    directory = whole("vae")
    before = {p: p.stat().st_mtime_ns for p in (directory / "checkpoints").rglob("*")}
    old = rows(directory)
    train(directory, *FAMILIES["vae"])
    assert {p: p.stat().st_mtime_ns for p in (directory / "checkpoints").rglob("*")} == before
    assert rows(directory) == old


@pytest.mark.parametrize("name", some(["vae", "gan"], ["vae"]))
def test_the_seed_names_the_run(name, whole, tmp_path):
    model, dataset = FAMILIES[name]
    train(tmp_path / "same", model, dataset)
    assert last_digest(tmp_path / "same", model) == last_digest(whole(name), model)
    assert rows(tmp_path / "same") == rows(whole(name))
    train(tmp_path / "other", model, dataset, dataclasses.replace(CONFIG, seed=1))
    assert last_digest(tmp_path / "other", model) != last_digest(whole(name), model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "gan"])
def test_streamed_batches_are_the_resident_ones(name, tmp_path, monkeypatch, fusion_emitters):
    """With labels and binarization that is drawn anew in every epoch, for the VAE."""
    model, dataset = FAMILIES[name]
    model = dataclasses.replace(model, ema=0.9)  # whose steps no other test compiled
    train(tmp_path / "resident", model, dataset)
    used = []
    plain = feed.Feed.chunk
    monkeypatch.setattr(
        feed.Feed, "chunk", lambda self, *a: (used.append(self.resident), plain(self, *a))[1]
    )
    monkeypatch.setattr(feed, "RESIDENT_BYTES", 0)
    train(tmp_path / "streamed", model, dataset)
    assert used and not any(used)
    digests = [last_digest(tmp_path / name, model) for name in ("streamed", "resident")]
    assert digests[0] == digests[1]
    assert rows(tmp_path / "streamed") == rows(tmp_path / "resident")


@pytest.mark.parametrize("bytes_", [feed.RESIDENT_BYTES, 0])
def test_a_dispatch_is_of_bounded_size(bytes_, monkeypatch):
    """However many steps there are between two rows."""
    monkeypatch.setattr(feed, "RESIDENT_BYTES", bytes_)
    monkeypatch.setattr(feed, "STREAM_BYTES", 2**16)
    made = feed.Feed(data_of(LABELLED), 0, 20, make_mesh(1), 2**31 - 1)
    held = sum(a.nbytes for n, a in made.chunk(0, 1).items() if n not in made._store)
    assert 2**15 < held < 2**17


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize("name", ["pixelcnn", "gan"])
def test_how_many_steps_a_dispatch_takes_changes_nothing(
    name, seconds, whole, tmp_path, monkeypatch
):
    model, dataset = FAMILIES[name]
    counts = []
    plain = meter.Meter.add
    monkeypatch.setattr(
        meter.Meter, "add", lambda self, s, c, *a: (counts.append(c), plain(self, s, c, *a))[1]
    )
    monkeypatch.setattr(pace, "SECONDS_PER_DISPATCH", seconds)
    train(tmp_path, model, dataset)
    assert sum(counts) == 20 and max(counts) == (1 if seconds == 0 else 5)
    assert last_digest(tmp_path, model) == last_digest(whole(name), model)
    assert rows(tmp_path) == rows(whole(name))


def test_a_row_is_the_mean_of_its_steps(tmp_path):
    model = Toy(DIGITS.spec)
    every = dataclasses.replace(CONFIG, log_every=1)
    train(tmp_path / "every", model, config=every)
    train(tmp_path / "some", model)
    steps = np.array([row["loss"] for row in rows(tmp_path / "every", "train")])
    means = [row["loss"] for row in rows(tmp_path / "some", "train")]
    np.testing.assert_allclose(means, steps.reshape(4, 5).mean(1), rtol=1e-6)


def flip_a_bit(directory: Path) -> None:
    """In each file of arrays: not every one of them is read."""
    for path in [p for p in directory.glob("**/d/*") if p.is_file()]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def test_a_damaged_checkpoint_costs_its_steps_and_no_more(whole, tmp_path, stop_at, capfd):
    model, dataset = FAMILIES["vae"]
    with stop_at(17), pytest.raises(Stopped):
        train(tmp_path, model, dataset)
    assert (15, "train") in places(tmp_path)  # which will be done, and written, again
    flip_a_bit(tmp_path / "checkpoints" / "17" / "state")
    capfd.readouterr()
    train(tmp_path, model, dataset)
    err = capfd.readouterr().err
    assert "checkpoint 17 is unusable" in err and "checkpoint 10 is used instead" in err
    assert "at step 10 of 20" in err
    assert last_digest(tmp_path, model) == last_digest(whole("vae"), model)
    assert rows(tmp_path, "validation") == rows(whole("vae"), "validation")
    assert rows(tmp_path, "train") == rows(whole("vae"), "train")


def test_the_best_checkpoint_has_the_lowest_monitor(tmp_path):
    """The toy's is |steps - 8|: the validation at step 10 is the best, though neither the first
    nor among the last."""
    model = Toy(DIGITS.spec, target=8.0)
    config = dataclasses.replace(CONFIG, steps=40, eval_every=5, log_every=5)
    train(tmp_path, model, config=config)
    monitors = {row["step"]: row["nll"] for row in rows(tmp_path, "validation")}
    assert min(monitors, key=lambda step: monitors[step]) == 10
    progress, step = saved(tmp_path, model, "best")
    assert step == 10 == int(progress.state["count"])
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"10", "35", "40"}


class Patient(Toy):
    """A toy whose monitor is held to differ by chance, by three times its lowest value."""

    slack: ClassVar = 3.0


def test_a_later_checkpoint_is_the_best_within_the_models_slack(tmp_path):
    """Validations of 1 at step 5, 4 at step 10, and 9 at step 15."""
    config = dataclasses.replace(CONFIG, steps=40, eval_every=5, log_every=5)
    train(tmp_path, Patient(DIGITS.spec, target=6.0), config=config)
    assert saved(tmp_path, Patient(DIGITS.spec, target=6.0), "best")[1] == 10
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"5", "10", "35", "40"}


def test_what_collapses_goes_on_from_its_best(tmp_path, stop_at, capfd):
    """The toy is best after 5 steps: from each later validation it goes back there, and from there
    on with other noise, since the clock goes on; a run that is stopped does the same."""
    model = Toy(DIGITS.spec, target=5.0)
    config = dataclasses.replace(CONFIG, steps=20, eval_every=5, log_every=5, rollback=3.0)
    train(tmp_path / "whole", model, config=config)
    best, _ = saved(tmp_path / "whole", model, 5)
    last, step = saved(tmp_path / "whole", model)
    assert step == 20 == int(last.step) and int(last.state["count"]) == 5
    np.testing.assert_array_equal(last.state["w"], best.state["w"])
    validated = {row["step"]: row for row in rows(tmp_path / "whole", "validation")}
    assert [validated[s]["nll"] for s in (5, 10, 15, 20)] == [0, 5, 5, 5]
    assert len({validated[s]["w"] for s in (5, 10, 15, 20)}) == 4
    assert "nll is 5, and was 0 at step 5: seed 0 goes on from there" in capfd.readouterr().err
    assert saved(tmp_path / "whole", model, "best")[1] == 5
    for at in (7, 10, 13):
        with stop_at(at), pytest.raises(Stopped):
            train(tmp_path / "stopped", model, config=config)
    train(tmp_path / "stopped", model, config=config)
    same_to_see(tmp_path / "stopped", tmp_path / "whole")
    assert last_digest(tmp_path / "stopped", model) == digest.digest(last)


def test_going_back_is_for_those_who_ask_and_for_what_is_worse(tmp_path):
    model = Toy(DIGITS.spec, target=5.0)
    config = dataclasses.replace(CONFIG, steps=10, eval_every=5)
    train(tmp_path / "never", model, config=config)
    assert int(saved(tmp_path / "never", model)[0].state["count"]) == 10
    # 95 steps from the target, and then 90: better, so it goes on.
    better = dataclasses.replace(config, rollback=1.01)
    train(tmp_path / "better", Toy(DIGITS.spec, target=100.0), config=better)
    assert int(saved(tmp_path / "better", model)[0].state["count"]) == 10
    with pytest.raises(UserError, match="--rollback must be 0 or more than 1; got 0.5"):
        dataclasses.replace(config, rollback=0.5)


@dataclass(frozen=True)
class Watchful(Toy, Watches):
    """Tells of its loss from a size on."""

    def verdict(self, means):
        return f"the loss is {means['loss']:.3f}" if means["loss"] > 0 else None


def test_what_a_model_makes_of_its_last_interval_is_told(tmp_path, capfd, monkeypatch):
    """Below the validation, of the means that the row has; and nothing where there is none."""
    train(tmp_path / "watchful", Watchful(DIGITS.spec))
    said = capfd.readouterr().err
    for step in (10, 20):
        [row] = [r for r in rows(tmp_path / "watchful", "train") if r["step"] == step]
        assert f"the loss is {row['loss']:.3f}" in said
    monkeypatch.setattr(Watchful, "verdict", lambda self, means: None)
    train(tmp_path / "content", Watchful(DIGITS.spec))
    assert "the loss is" not in capfd.readouterr().err


@dataclass(frozen=True)
class Comparing(Toy, Watches):
    """Has a metric that is taken of training examples too."""

    compared: ClassVar = {"w": "gap"}

    def verdict(self, means):
        return f"w {means['w']:.4f}, beyond {means['gap']:.4f}"


def test_what_is_known_of_training_examples_is_set_beside_the_others(tmp_path, capfd):
    """As the mean over as many examples of both; which are the same ones at each validation."""
    train(tmp_path, Comparing(DIGITS.spec))
    said, found = capfd.readouterr().err, rows(tmp_path, "validation")
    mean = {n: DIGITS.splits[n].x.mean((1, 2, 3)) for n in ("train", "validation")}
    ids = np.random.default_rng(0).choice(1000, 350, replace=False)
    expected = mean["validation"].mean() - mean["train"][ids].mean()
    assert len(found) == 2
    for row in found:
        np.testing.assert_allclose(row["gap"], expected, atol=1e-5)
        assert f"w {row['w']:.4f}, beyond {row['gap']:.4f}" in said


@pytest.mark.parametrize("flags", [
    {"binarize": "dynamic"},
    {"binarize": "dynamic", "pairing": "tint", "unpaired": True},
])  # fmt: skip
def test_training_examples_to_compare_are_as_the_model_sees_them(flags, tmp_path):
    data = data_of(DataConfig(**flags))
    trainer = Trainer(Run("toy", Comparing(data.spec), DataConfig(**flags), CONFIG), data, tmp_path,
                      None)  # fmt: skip
    found, whole = trainer._some_of_train, data.materialize("train")
    ids = np.sort(np.random.default_rng(0).choice(len(whole), len(found), replace=False))
    np.testing.assert_array_equal(found.x, whole.x[ids])
    for name, apart in whole.apart.items():
        np.testing.assert_array_equal(found.columns[name], apart[ids % len(apart)])


def test_a_bad_step_is_skipped_and_counted(tmp_path):
    model = Toy(DIGITS.spec, bad_metric=(8, 9, 14))
    train(tmp_path, model)
    progress, _ = saved(tmp_path, model)
    assert (int(progress.step), int(progress.skipped), int(progress.in_a_row)) == (20, 3, 0)
    assert int(progress.state["count"]) == 17
    assert np.isfinite(progress.state["w"]).all()
    found = rows(tmp_path, "train")
    assert [row["skipped"] for row in found] == [0, 2, 1, 0]
    assert all(np.isfinite(row["loss"]) for row in found)


def test_a_bad_step_leaves_every_bit_as_it_was(tmp_path, stop_at):
    model = Toy(DIGITS.spec, bad_metric=(20,))
    with stop_at(19), pytest.raises(Stopped):
        train(tmp_path, model)
    before, _ = saved(tmp_path, model)
    train(tmp_path, model)
    after, _ = saved(tmp_path, model)
    assert (int(before.step), int(after.step)) == (19, 20)
    assert (int(before.skipped), int(after.skipped), int(after.in_a_row)) == (0, 1, 1)
    assert digest.digest(before.state) == digest.digest(after.state)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("bad_metric", "at step 1[1-4] it was loss"),
        ("bad_state", "the state at step 1[1-5] is not finite, although"),
    ],
)
def test_divergence_stops_the_run(kind, told, seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "SECONDS_PER_DISPATCH", seconds)
    model = Toy(DIGITS.spec, **{kind: tuple(range(11, 21))})
    config = dataclasses.replace(CONFIG, max_skipped=4)
    with pytest.raises(Stopped, match=told) as stopped:
        train(tmp_path, model, config=config)
    assert stopped.value.code == 1
    assert ("4 steps in a row" in str(stopped.value)) == (kind == "bad_metric")
    assert str(tmp_path) in str(stopped.value)
    progress, step = saved(tmp_path, model)
    assert step == 10 and int(progress.state["count"]) == 10
    assert np.isfinite(progress.state["w"]).all()
    with pytest.raises(Stopped, match=told):  # and again: nothing was saved of it
        train(tmp_path, model, config=config)
    assert saved(tmp_path, model)[1] == 10


def test_divergence_before_the_first_checkpoint_promises_none(tmp_path):
    model = Toy(DIGITS.spec, bad_metric=tuple(range(1, 21)))
    with pytest.raises(Stopped, match=f"no checkpoint was saved in {tmp_path}"):
        train(tmp_path, model, config=dataclasses.replace(CONFIG, max_skipped=4))


def test_skipped_in_a_row_is_counted_across_dispatches_and_resumes(tmp_path, stop_at):
    model = Toy(DIGITS.spec, bad_metric=(9, 10, 11, 12, 14, 15, 16))
    config = dataclasses.replace(CONFIG, max_skipped=5)
    train(tmp_path / "runs", model, config=config)
    assert int(saved(tmp_path / "runs", model)[0].skipped) == 7
    config = dataclasses.replace(CONFIG, max_skipped=4)
    with stop_at(11), pytest.raises(Stopped) as stopped:
        train(tmp_path / "stops", model, config=config)
    assert stopped.value.code == 143
    assert int(saved(tmp_path / "stops", model)[0].in_a_row) == 3
    with pytest.raises(Stopped, match="at step 12 it was loss"):
        train(tmp_path / "stops", model, config=config)


def test_a_learning_rate_that_explodes_stops_the_run(tmp_path):
    huge = Optimizer(name="sgd", learning_rate=1e30, b1=0.0)
    model = VAE(DIGITS.spec, hidden=(8,), latents=2, optimizer=huge)
    config = dataclasses.replace(CONFIG, max_skipped=3)
    with pytest.raises(Stopped, match="lower learning rate") as stopped:
        train(tmp_path, model, config=config)
    assert stopped.value.code == 1


@pytest.mark.slow
def test_the_number_of_devices_changes_rounding_alone(tmp_path):
    """Of a GAN: BatchNorm, two players, and noise for every example."""
    sgd = Optimizer(name="sgd", learning_rate=0.05, b1=0.5)
    model, dataset = (
        dataclasses.replace(FAMILIES["gan"][0], g_optimizer=sgd, d_optimizer=sgd),
        DIGITS,
    )
    states, logs = [], []
    for devices in (1, 4):
        config = dataclasses.replace(CONFIG, steps=10, devices=devices)
        made = train(tmp_path / str(devices), model, dataset, config)
        assert made.mesh.size == devices
        states.append(saved(tmp_path / str(devices), model)[0].state)
        logs.append([list(row.values()) for row in rows(tmp_path / str(devices))])
    fresh = jax.jit(model.init)(keys_of(0).init, model.spec.example(1))
    for other, log in zip(states[1:], logs[1:], strict=True):
        for a, b, first in zip(*map(jax.tree.leaves, (states[0], other, fresh)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
            far = np.abs(np.asarray(a, np.float64) - first).max()
            assert far == 0 or far > 20 * np.abs(np.asarray(a, np.float64) - b).max()
        for ours, theirs in zip(logs[0], log, strict=True):
            assert ours[:2] == theirs[:2]
            np.testing.assert_allclose(ours[2:], theirs[2:], rtol=1e-4, atol=1e-5)


def test_check_refuses_before_anything_is_written(tmp_path):
    labelled = data_of(LABELLED)

    def refused(match: str, model: Model = FAMILIES["vae"][0], **config: Any) -> None:
        run = Run("vae", model, DataConfig(), dataclasses.replace(CONFIG, **config))
        with pytest.raises(UserError, match=match):
            check(run, labelled)

    refused("--batch_size 42 cannot be divided over 4 devices", batch_size=42, devices=4)
    refused("--batch_size 1004.*use --batch_size 1000 or less", batch_size=1004)
    refused("--devices=9", devices=9)
    halves = dataclasses.replace(FAMILIES["vae"][0], accumulate=2)
    match = "40 cannot be divided over 4 devices, 3 or a multiple of it on each; use .*, such as 36"
    refused(match, dataclasses.replace(halves, accumulate=3), devices=4)
    refused("12 cannot be divided over 4 devices, 2 or", halves, batch_size=12, devices=4)
    refused("25 is no multiple of 2.*one, such as 24", halves, batch_size=25, devices=1)
    # Asked for no number of devices, it takes as many as divide each part.
    run = Run("vae", halves, DataConfig(), dataclasses.replace(CONFIG, batch_size=12))
    check(run, labelled)
    assert mesh_of(run).size == 3
    with pytest.raises(UserError, match="`hidden` must be positive"):
        VAE(BINARY, hidden=(-3,))
    gan = GAN(BINARY, architecture="mlp", hidden=(8,), d_steps=3)
    refused("a step takes 1200 examples.*use --batch_size 333 or less", gan, batch_size=400)
    vast = VAE(BINARY, hidden=(2**16,) * 64)
    one = {**labelled.splits, "validation": Split(labelled.splits["validation"].take(slice(1)))}
    few = dataclasses.replace(labelled, splits=one)
    check(run, few)  # one is enough where it has a likelihood
    with pytest.raises(UserError, match="validation split has one example, and vae is judged by"):
        check(dataclasses.replace(run, model=gan), few)
    refused("vae of these sizes takes .* GiB for its state alone", vast)
    refused("takes .* GiB for its state alone", seeds=2**20)
    refused("--draws=3: vae has no likelihood that takes draws; leave it out", gan, draws=3)


def test_the_data_and_its_labels_are_shown_before_training(tmp_path):
    """Which label is which class; nothing is said again where nothing is left to train."""
    data = dataclasses.replace(data_of(LABELLED), class_names=tuple("abcdefghij"))
    run = Run("vae", FAMILIES["vae"][0], DataConfig(), dataclasses.replace(CONFIG, devices=4))
    said = []
    log = SimpleNamespace(say=said.append)
    Trainer(run, data, tmp_path, None)._announce(log, 0)
    assert said[0].splitlines()[0] == data.protocol
    assert said[0].splitlines()[1].startswith("labels: 0 = a, 1 = b, 2 = c") and len(said) == 1
    Trainer(run, data, tmp_path, None)._announce(log, CONFIG.steps)
    assert "resuming" in said[1] and len(said) == 2


@pytest.mark.slow
def test_killed_in_the_middle_the_same_command_finishes(
    tmp_path, monkeypatch, capfd, quick_environment
):
    """kill -9 of train.py, no chance to save: only what was saved before counts."""
    monkeypatch.chdir(tmp_path)
    flags = [
        *("--model=vae", "--vae.hidden=8", "--vae.latents=2", "--draws=2", "--samples=10"),
        *("--steps=300", "--eval_every=20", "--log_every=10", "--devices=1", "--batch_size=50"),
    ]
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "train.py"), *flags, "--run=killed"]
    options = {"PYTHONPATH": str(root), **quick_environment}
    with open("out", "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | options)
        try:
            deadline = time.monotonic() + 120
            while not Path("killed/checkpoints/40").exists():
                assert process.poll() is None and time.monotonic() < deadline, Path(
                    "out"
                ).read_text()
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not Path("killed/checkpoints/300").exists() and not Path("killed/results.json").exists()

    main.main(["train", *flags, "--run=killed"])
    assert f"resuming {tmp_path}/killed at step" in capfd.readouterr().err
    run, directory, dataset = parse.parse_run([*flags, "--run=whole"], "train.py")
    directory.mkdir()
    Trainer(run, dataset, directory, None).train()
    assert last_digest(Path("killed"), run.model) == last_digest(directory, run.model)
    Path("killed/samples/final.png").unlink()  # which the report of the finished run made
    same_to_see(Path("killed"), directory)
    results = json.loads(Path("killed/results.json").read_text())
    assert results["step"] == saved(directory, run.model, "best")[1]


# The hot loop


def test_nothing_is_traced_after_the_first_dispatch(tmp_path, monkeypatch):
    """Dispatches of any length, up to the last, run the program of the first."""
    traces: list[int] = []
    at_dispatch: list[int] = []

    class Counting(Toy):
        def train_step(self, key, state, batch, step, axis_name=None):
            traces.append(1)
            return super().train_step(key, state, batch, step, axis_name)

    plain = meter.Meter.add

    def add(self, step, count, metrics, in_a_row):
        at_dispatch.append(len(traces))
        plain(self, step, count, metrics, in_a_row)

    monkeypatch.setattr(meter.Meter, "add", add)
    config = dataclasses.replace(CONFIG, steps=37, log_every=10, eval_every=20)
    train(tmp_path, Counting(DIGITS.spec), config=config)
    assert len(at_dispatch) >= 4
    assert len(set(at_dispatch)) == 1


@pytest.mark.parametrize("resident", [True, False])
def test_the_loop_transfers_nothing_implicitly(resident, tmp_path, monkeypatch):
    """What goes to the device is put there by name; what comes back is asked for once a dispatch,
    the one before."""
    if not resident:
        monkeypatch.setattr(feed, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(trainer.Trainer, "_look", lambda *_: ({"nll": 0.0}, None))
    fetched: list[int] = []
    plain = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda x: fetched.append(1) or plain(x))
    signals = pace.signals

    @contextlib.contextmanager
    def guarded(say):  # what signals is around, is the loop
        with signals(say) as received, jax.transfer_guard("disallow"):
            yield received

    monkeypatch.setattr(trainer, "signals", guarded)
    dispatches: list[int] = []
    paced = pace.Pace.dispatched
    monkeypatch.setattr(pace.Pace, "dispatched", lambda s, n: dispatches.append(n) or paced(s, n))
    model, dataset = FAMILIES["vae"]
    train(tmp_path, model, dataset)
    assert len(fetched) == len(dispatches)
