"""The loop: train, look, save, resume. It knows no model and never looks inside a state."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import evaluate, loop
from jaxgen.checkpoint import Checkpoints, NoCheckpoint
from jaxgen.data import Dataset
from jaxgen.errors import UserError
from jaxgen.feed import Feed
from jaxgen.log import Log
from jaxgen.parallel import check_batch_size, make_mesh, on_every_device
from jaxgen.pictures import grid, save_png
from jaxgen.run import Run

Score = Callable[[np.ndarray], dict[str, float]]
"""Metrics of samples, uint8 [n h w c]: for models that have no likelihood to validate by."""

SECONDS_PER_DISPATCH = 1.0
"""About how long one compiled call may run: signals and progress wait for it."""


class Stopped(Exception):
    """The run ended before its last step; `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Keys:
    """The run's independent streams of randomness."""

    init: jax.Array
    train: jax.Array
    evaluate: jax.Array
    sample: jax.Array


def keys_of(seed: int) -> Keys:
    return Keys(*jax.random.split(jax.random.key(seed), 4))


def check(run: Run, dataset: Dataset) -> None:
    """Raises UserError for what cannot work, before anything is compiled or written."""
    mesh = make_mesh(run.train.devices, run.train.batch_size)
    check_batch_size(run.train.batch_size, mesh)
    for name, split in dataset.splits.items():
        if len(split.images) < 2:
            raise UserError(f"the {name} split has {len(split.images)} images; at least 2 needed")
    examples = run.train.batch_size * run.model.minibatches
    num = len(dataset.splits["train"].images)
    if examples > num:
        raise UserError(
            f"--batch_size {run.train.batch_size}: a step takes {examples} examples and the train "
            f"split has {num}; use --batch_size {num // run.model.minibatches} or less"
        )


class Trainer:
    """One run, from its first step or its last checkpoint to its last step."""

    def __init__(self, run: Run, dataset: Dataset, directory: Path, score: Score | None) -> None:
        self.run, self.dataset, self.directory = run, dataset, Path(directory)
        self.mesh = make_mesh(run.train.devices, run.train.batch_size)
        self.keys = keys_of(run.train.seed)
        self._score = score
        self._total = run.train.steps

    def fresh(self) -> loop.Progress:
        """The state before the first step, on every device."""
        init = lambda key: loop.start(self.run.model.init(key))  # noqa: E731
        return on_every_device(self.mesh, init, self.keys.init)

    def train(self) -> None:
        """Trains to the last step; raises Stopped if a signal or divergence ends it before."""
        with Checkpoints(self.directory / "checkpoints", say=_warn) as checkpoints:
            progress, first = self.fresh(), 0
            with contextlib.suppress(NoCheckpoint):
                progress, first = checkpoints.restore(progress)
            examples = self.run.train.batch_size * self.run.model.minibatches
            with Log(self.directory, self._total, start=first, images_per_step=examples) as log:
                unused = jax.device_count() - self.mesh.size
                if unused and not self.run.train.devices:
                    size = self.run.train.batch_size
                    log.say(f"--batch_size {size} does not divide over {unused} more devices")
                if first:
                    log.say(f"resuming {self.directory} at step {first} of {self._total}")
                if first < self._total:
                    self._loop(progress, first, checkpoints, log)
            if not checkpoints.wait():
                raise Stopped("the last checkpoint could not be saved; the earlier ones are", 1)

    def _loop(self, progress: loop.Progress, step: int, checkpoints: Checkpoints, log: Log) -> None:
        config = self.run.train
        examples = config.batch_size * self.run.model.minibatches
        feed = Feed(self.dataset, config.seed, examples, self.mesh, config.log_every)
        steps = loop.compile_steps(self.run.model, feed, self.mesh)
        pace, meter = Pace(config.log_every), Meter(log, config.max_skipped, self.directory)
        with _signals() as received:
            while step < self._total and not received:
                edge = min(
                    self._total, *(_next(step, e) for e in (config.log_every, config.eval_every))
                )
                count = min(edge - step, pace.steps)
                chunk = feed.chunk(step, count)
                progress, metrics = steps(progress, self.keys.train, chunk, np.int32(count))
                # The device works on these steps while the host reads the ones before.
                meter.read()
                meter.add(step, count, metrics, progress.in_a_row)
                pace.dispatched(count)
                step += count
                if step % config.log_every == 0 or step == self._total:
                    meter.read()
                    meter.row(step)
                if step % config.eval_every == 0 or step == self._total:
                    meter.read()
                    self._look(progress, step, checkpoints, log)
                    pace.restart()
            meter.read()
            if received and step < self._total:
                checkpoints.save(step, progress)
                checkpoints.wait()
                name = signal.Signals(received[0]).name
                raise Stopped(
                    f"{name}: stopped and saved at step {step} of {self._total}; "
                    "the same command resumes it",
                    128 + received[0],
                )

    def _look(self, progress: loop.Progress, step: int, checkpoints: Checkpoints, log: Log) -> None:
        """Validates, draws a picture of samples, and saves."""
        model, state = self.run.model, progress.state
        split = self.dataset.splits["validation"]
        size = self.run.train.batch_size
        values = evaluate.per_example(model, self.mesh, self.keys.evaluate, state, split, size)
        metrics = {name: float(value.mean()) for name, value in values.items()}
        shown = evaluate.draw(model, self.mesh, self.keys.sample, state, 100)
        if self._score is not None:
            num = self.run.train.samples
            drawn = evaluate.draw(model, self.mesh, self.keys.sample, state, num)
            metrics |= self._score(drawn)
        picture = grid(shown, model.spec.levels, columns=10)
        (self.directory / "samples").mkdir(exist_ok=True)
        save_png(self.directory / "samples" / f"step_{step:07d}.png", picture)
        log.image(step, "samples", picture)
        log.write(step, "validation", metrics)
        log.say(f"step {step}: validation " + ", ".join(f"{n} {v:.4g}" for n, v in metrics.items()))
        checkpoints.save(step, progress, monitor=metrics[model.monitor])


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


class Pace:
    """How many steps to dispatch at once, from how long the last ones took."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.steps = 1
        self._since: float | None = None

    def dispatched(self, count: int) -> None:
        """Tells that `count` steps were dispatched, and all earlier ones are done."""
        now = time.monotonic()
        if self._since is not None:
            wanted = count * SECONDS_PER_DISPATCH / max(now - self._since, 1e-3)
            self.steps = int(min(max(1, wanted), 4 * self.steps, self._most))
        self._since = now

    def restart(self) -> None:
        """Forgets the clock: something other than training took the time."""
        self._since = None


class Meter:
    """Per-step metrics of a log interval, fetched one dispatch late; watches for divergence."""

    def __init__(self, log: Log, max_skipped: int, directory: Path) -> None:
        self._log, self._max_skipped, self._directory = log, max_skipped, directory
        self._pending: tuple[int, int, Any, Any] | None = None
        self._steps: list[dict[str, np.ndarray]] = []
        self._skipped = 0

    def add(self, step: int, count: int, metrics: dict[str, jax.Array], in_a_row: Any) -> None:
        # A copy, since `in_a_row` is donated to the next dispatch.
        self._pending = (step, count, metrics, jnp.copy(in_a_row))

    def read(self) -> None:
        """Waits for the pending steps, keeps their metrics, and raises Stopped on divergence."""
        if self._pending is None:
            return
        step, count, stacked, in_a_row = self._pending
        self._pending = None
        values = {name: np.asarray(v)[:count] for name, v in jax.device_get(stacked).items()}
        applied = values.pop("applied")
        self._skipped += int(count - applied.sum())
        self._steps.append({name: v[applied] for name, v in values.items()})
        means = {name: v[applied].mean() for name, v in values.items() if applied.any()}
        self._log.progress(step + count, means)
        if int(in_a_row) >= self._max_skipped or _longest(~applied) >= self._max_skipped:
            raise Stopped(self._diverged(step, values, applied), 1)

    def row(self, step: int) -> None:
        """Writes the interval's means over its applied steps."""
        names = self._steps[0]
        joined = {name: np.concatenate([s[name] for s in self._steps]) for name in names}
        means = {name: v.mean() if v.size else float("nan") for name, v in joined.items()}
        self._log.write(step, "train", {**means, "skipped": self._skipped})
        self._steps, self._skipped = [], 0

    def _diverged(self, step: int, values: dict[str, np.ndarray], applied: np.ndarray) -> str:
        worst = int(np.argmin(applied))
        bad = [name for name, v in values.items() if not np.isfinite(v[worst])]
        what = ", ".join(bad) or "the update of the parameters (its metrics were finite)"
        return (
            f"stopped: {self._max_skipped} steps in a row were not finite and were not applied; "
            f"at step {step + worst + 1} it was {what}. The last good checkpoint is kept in "
            f"{self._directory}; train a new --run with a lower learning rate"
        )


def _longest(bad: np.ndarray) -> int:
    """The longest run of True."""
    longest = run = 0
    for b in bad:
        run = run + 1 if b else 0
        longest = max(longest, run)
    return longest


def _next(step: int, every: int) -> int:
    """The first multiple of `every` after `step`."""
    return (step // every + 1) * every


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Records SIGTERM and SIGINT, for the loop to act on after the steps under way.

    A second one acts at once, as it would have without us.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def record(number: int, frame: Any) -> None:
        received.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    for watched in (signal.SIGTERM, signal.SIGINT):
        before[watched] = signal.signal(watched, record)
    try:
        yield received
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
