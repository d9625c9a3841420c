"""The loop: train, look, save, resume. It knows no model and never looks inside a state."""

import contextlib
import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen.abilities import Samples, Translates, Watches, drawn
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import Split
from jaxgen.errors import Stopped, UserError, warn
from jaxgen.media.kinds import ROOM, save_samples
from jaxgen.model import Model
from jaxgen.parallel import inference
from jaxgen.parallel.inference import Score
from jaxgen.parallel.mesh import WHOLE, check_batch_size, make_mesh, on_every_device, put
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.config import Run, TrainConfig, runs_by_seed
from jaxgen.runs.log import Log
from jaxgen.runs.state import Progress, keys_of, start
from jaxgen.training.feed import Feed, first_examples
from jaxgen.training.levels import Level, examples_before, examples_per_step, levels_of
from jaxgen.training.memory import check_memory
from jaxgen.training.meter import Meter
from jaxgen.training.pace import Pace, signals
from jaxgen.training.rollback import rolled_back
from jaxgen.training.seeds import SeedRun, means, restore
from jaxgen.training.steps import compile_steps, of_seed, stack, with_seed


def mesh_of(run: Run) -> Mesh:
    """The devices a run trains on: those asked for, or as many as divide each part of a batch."""
    return make_mesh(run.train.devices, run.train.batch_size // run.model.multiple)


def check(run: Run, dataset: Dataset) -> None:
    """Raises UserError for what cannot work, before anything is compiled or written."""
    check_batch_size(run.train.batch_size, mesh_of(run), run.model.multiple)
    if run.model.monitor not in run.model.metrics and len(dataset.splits["validation"]) < 2:
        raise UserError(
            f"the validation split has one example, and {run.name} is judged by how two or more "
            "are distributed: store them, or 12 in train at least, of which two are carved"
        )
    if isinstance(run.model, Translates):
        for split, mend in run.model.pairs.items():
            if "source" in dataset.splits[split].apart:
                raise UserError(
                    f"{run.name} needs each x of the {split} split beside its own source, and "
                    f"these stand apart: {mend}"
                )
    draws = run.train.draws
    if draws != TrainConfig.draws and not drawn(run.model):
        raise UserError(
            f"--draws={draws}: {run.name} has no likelihood that takes draws; leave it out"
        )
    examples = max(examples_per_step(run, level) for level in levels_of(run))
    train = dataset.splits["train"]
    num = min(len(train), *map(len, train.apart.values())) if train.apart else len(train)
    if examples > num:
        most = num * run.train.batch_size // examples
        most = max(run.model.multiple, most - most % run.model.multiple)
        raise UserError(
            f"--batch_size {run.train.batch_size}: a step takes {examples} examples and the train "
            f"split has {num}; use --batch_size {most} or less"
        )
    check_memory(run, mesh_of(run))


class Trainer:
    """One run, of one seed or several, from its first step or last checkpoint to its last step."""

    def __init__(self, run: Run, dataset: Dataset, directory: Path, score: Score | None) -> None:
        self.run, self.dataset, self.directory = run, dataset, Path(directory)
        self.mesh = mesh_of(run)
        self._runs = runs_by_seed(run, directory)
        # One function for all seeds, so that it is compiled once.
        self._init = lambda key, batch: start(run.model.at(0).init(key, batch))
        self._score = score
        self._total = run.train.steps

    def fresh(self, i: int = 0) -> Progress:
        """The state of the i-th seed before its first step, on every device."""
        seed = self.run.train.seed + i
        num = self.run.model.first or self.run.train.batch_size
        batch = first_examples(self.dataset, seed, num)
        return on_every_device(self.mesh, self._init, keys_of(seed).init, batch)

    def train(self) -> None:
        """Trains to the last step; raises Stopped if a signal or divergence ends it before."""
        with contextlib.ExitStack() as stack:
            checkpoints = [
                stack.enter_context(Checkpoints(where / "checkpoints", say=self._warn(where)))
                for _, where in self._runs
            ]
            progress, first = self._begin(checkpoints)
            with contextlib.ExitStack() as logs:
                runs = self._open(checkpoints, first, logs)
                self._announce(runs[0].log, first)
                if first < self._total:
                    self._loop(progress, first, runs)
            if not all([c.wait() for c in checkpoints]):
                told = checkpoints[0].told()
                raise Stopped(f"the last checkpoint could not be saved; {told}", 1)

    def _begin(self, checkpoints: list[Checkpoints]) -> tuple[Progress, int]:
        """Where training goes on, of all seeds together, and at what step."""
        fresh = [self.fresh(i) for i in range(len(checkpoints))]
        progress, first = restore(checkpoints, fresh)
        return stack(self.mesh, progress), first

    def _open(
        self, checkpoints: list[Checkpoints], first: int, stack: contextlib.ExitStack
    ) -> list[SeedRun]:
        """The runs, with their logs; the first one's shows the progress of all."""
        opened: list[SeedRun] = []
        examples = examples_per_step(self.run, levels_of(self.run)[0]) * len(checkpoints)
        for (run, where), saved in zip(self._runs, checkpoints, strict=True):
            beside = opened[0].log if opened else None
            log = Log(where, self._total, start=first, images_per_step=examples, beside=beside)
            keys = keys_of(run.train.seed)
            opened.append(SeedRun(run, where, keys, saved, stack.enter_context(log)))
        return opened

    def _announce(self, log: Log, first: int) -> None:
        unused = jax.device_count() - self.mesh.size
        if unused and not self.run.train.devices:
            size = self.run.train.batch_size
            log.say(f"--batch_size {size} does not divide over {unused} more devices")
        if first < self._total:  # else the results say it
            log.say("\n".join(filter(None, (self.dataset.protocol, self.dataset.labels))))
        late = [step for step in self.run.model.changes if step >= self._total]
        if late and first < self._total:
            log.say(
                f"the model changes at step {late[0]}, which a run of {self._total} steps does not "
                "reach: what it trains from then on stays as it was made"
            )
        if first:
            log.say(f"resuming {self.directory} at step {first} of {self._total}")

    def _loop(self, progress: Progress, step: int, runs: list[SeedRun]) -> None:
        meter = Meter(runs, self.run.train.max_skipped, step)
        key = on_every_device(self.mesh, _joined, [run.keys.train for run in runs])
        with signals(runs[0].log.say) as received:
            for level in levels_of(self.run):
                if step < level.end and not received:
                    progress, step = self._train_level(
                        level, progress, step, key, runs, meter, received
                    )
            meter.read()
            if received:
                name = signal.Signals(received[0]).name
                if not self._save(progress, step, runs, meter):
                    told = runs[0].checkpoints.told()
                    raise Stopped(f"{name}: stopped at step {step}, which is not saved; {told}", 1)
                then = "resumes" if step < self._total else "measures"
                raise Stopped(
                    f"{name}: stopped and saved at step {step} of {self._total}; "
                    f"the same command {then} it",
                    128 + received[0],
                )

    def _train_level(
        self,
        level: Level,
        progress: Progress,
        step: int,
        key: jax.Array,
        runs: list[SeedRun],
        meter: Meter,
        received: list[int],
    ) -> tuple[Progress, int]:
        """Trains to the end of a level, or until a signal is received."""
        config = self.run.train
        feed, steps = self._compiled(level)
        pace, every = Pace(feed.capacity), (config.log_every, config.eval_every)
        rows: list[dict[str, float]] = []
        while step < level.end and not received:
            edge = min(level.end, *(_next(step, e) for e in every))
            count = min(edge - step, pace.steps)
            chunk = feed.chunk(examples_before(self.run, step), count)
            progress, metrics = steps(progress, key, chunk, self._number(count))
            # The device works on these steps while the host reads the ones before.
            meter.read()
            meter.add(step, count, metrics, progress.in_a_row)
            pace.dispatched(count)
            step += count
            if step % config.log_every == 0 or step == self._total:
                meter.read()
                rows = meter.row(step)
            if step % config.eval_every == 0 or step == self._total:
                meter.read()
                validated = []
                for i, run in enumerate(runs):
                    mine = of_seed(self.mesh, progress, i)
                    metrics, back = self._look(level, run, mine, step, meter.notes(i))
                    validated.append(metrics)
                    if back is not None:
                        progress = with_seed(self.mesh, progress, i, back)
                told = _verdicts(level.model, runs, rows, validated)
                runs[0].log.say(f"step {step}: validation {means(validated)}{told}")
                pace.restart()
        return progress, step

    def _compiled(self, level: Level) -> tuple[Feed, Callable[..., Any]]:
        """The batches of a level, and its compiled steps."""
        config, examples = self.run.train, examples_per_step(self.run, level)
        most = min(config.log_every, config.eval_every, config.steps)
        feed = Feed(self.dataset, config.seed, examples, self.mesh, most, config.seeds)
        return feed, compile_steps(level.model, feed, self.mesh)

    def _number(self, count: int) -> jax.Array:
        return put(self.mesh, WHOLE, np.int32(count))

    def _save(self, progress: Progress, step: int, runs: list[SeedRun], meter: Meter) -> bool:
        """Saves where the run is stopped; returns whether that is safely on disk."""
        for i, run in enumerate(runs):
            if step < self._total:  # else its validation has saved it
                state = of_seed(self.mesh, progress, i)
                run.checkpoints.save(step, state, notes=meter.notes(i), planned=False)
        return all([run.checkpoints.wait() and step in run.checkpoints.steps() for run in runs])

    def _look(
        self, level: Level, run: SeedRun, progress: Progress, step: int, notes: dict[str, Any]
    ) -> tuple[dict[str, float], Progress | None]:
        """Validates a seed, draws a picture of its samples, and saves; returns the metrics, and
        what the seed is to go on from, where that is not where it is."""
        model, state, keys = level.model, progress.state, run.keys
        split = self.dataset.splits["validation"]
        size = self.run.train.batch_size
        values = inference.per_example(model, self.mesh, keys.evaluate, state, split, size)
        metrics = {name: float(value.mean()) for name, value in values.items()}
        if isinstance(model, Watches) and model.compared:
            train, evaluate = self._some_of_train, run.keys.evaluate
            seen = inference.per_example(model, self.mesh, evaluate, state, train, size)
            gaps = {gap: metrics[n] - float(seen[n].mean()) for n, gap in model.compared.items()}
            metrics |= gaps
        if isinstance(model, Samples):
            room = ROOM[model.spec.kind]
            num = room if self._score is None else max(room, self.run.train.samples)
            drawn = inference.draw(model, self.mesh, keys.sample, state, num)
            if self._score is not None:
                metrics |= self._score(drawn[: self.run.train.samples])
            name = run.directory / "samples" / f"step_{step:07d}"
            with run.log.attempt("samples"):
                run.log.image(step, "samples", save_samples(name, drawn[:room], model.spec))
        run.log.write(step, "validation", metrics)
        monitor, times = metrics[model.monitor], self.run.train.rollback
        back = rolled_back(run, progress, step, monitor, times, level.start)
        if back is None:
            run.checkpoints.save(step, progress, monitor, slack=model.slack, notes=notes)
        else:
            run.checkpoints.save(step, back, notes=notes)
        return metrics, back

    @functools.cached_property
    def _some_of_train(self) -> Split:
        """Training examples as a model sees them in epoch 0, as many as there are to validate
        on."""
        train, num = self.dataset.splits["train"], len(self.dataset.splits["validation"])
        ids = np.random.default_rng(0).choice(len(train), min(num, len(train)), replace=False)
        ids = np.sort(ids).astype(np.int32)
        columns = train.take(ids) | {name: a[ids % len(a)] for name, a in train.apart.items()}
        seen = self.dataset.observe(*jax.device_put((columns, ids, np.zeros_like(ids))))
        return Split({name: np.asarray(x) for name, x in seen.items()})

    def _warn(self, where: Path) -> Callable[[str], None]:
        """Prints warnings; with several seeds, under the name of the one they are about."""
        whose = f"{where.name}: " if self.run.train.seeds > 1 else ""
        return lambda text: warn(f"{whose}{text}")


def _joined(keys: list[jax.Array]) -> jax.Array:
    """The keys of several seeds as one array, or the key of one as it is."""
    return jnp.stack(keys) if len(keys) > 1 else keys[0]


def _verdicts(
    model: Model,
    runs: list[SeedRun],
    rows: list[dict[str, float]],
    validated: list[dict[str, float]],
) -> str:
    """What a model makes of the last log interval, if one has ended, and of the validation: a line
    for each seed it has something to tell of."""
    if not isinstance(model, Watches) or not rows:
        return ""
    lines = []
    for run, row, metrics in zip(runs, rows, validated, strict=True):
        if verdict := model.verdict({**metrics, **row}):
            whose = f"seed {run.run.train.seed}: " if len(runs) > 1 else ""
            lines.append(f"\n  {whose}{verdict}")
    return "".join(lines)


def _next(step: int, every: int) -> int:
    """The first multiple of `every` after `step`."""
    return (step // every + 1) * every
