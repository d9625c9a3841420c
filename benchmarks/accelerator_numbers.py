"""Test figures at a full budget: trained until time is up, chosen on validation, tested once."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import accelerator_data
import common
import jax
import jax.numpy as jnp
import numpy as np
from accelerator_items import Context, Item

import jaxgen
from jaxgen.abilities import Bounds
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import Split
from jaxgen.evaluation.bounds import importance_weighted
from jaxgen.evaluation.describe import parameters
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from jaxgen.models.autoregressive.pixelrnn import DiagonalBiLSTM, RowLSTM
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.inference import mean_and_error, per_example
from jaxgen.parallel.mesh import make_mesh, on_every_device
from jaxgen.runs.state import keys_of, start
from jaxgen.training import steps
from jaxgen.training.feed import Feed, first_examples

LOOKS = 12
"""Validations, evenly spread."""
EVALUATED = 500
"""Images in a batch of an evaluation."""


class Plan(NamedTuple):
    """A model, how it is trained, and what was published for the same data."""

    data: str
    """static or dynamic MNIST."""
    make: Callable[[jaxgen.DataSpec, int], Any]
    """(spec, steps over which the learning rate decays) -> model."""
    batch: int
    epochs: float
    """At most."""
    published: str
    test_s: float = 25.0
    """Kept for compiling and running the test."""
    capacity: int = 50
    """Steps per dispatch."""
    draws: int = 5000
    """Of the importance-weighted bound, where there is one."""


def _pixelcnn(spec: Any, steps: int) -> Any:
    rate = Optimizer(learning_rate=2e-3, decay_steps=steps)
    return jaxgen.PixelCNN(spec, features=32, blocks=10, dropout=0.0, ema=0.999, optimizer=rate)


def _gated(spec: Any, steps: int) -> Any:
    rate = Optimizer(learning_rate=2e-3, decay_steps=steps)
    return GatedPixelCNN(spec, features=48, dropout=0.0, ema=0.999, optimizer=rate)


def _rnn(kind: Any, spec: Any, steps: int) -> Any:
    rate = Optimizer(learning_rate=2e-3, decay_steps=steps)
    return kind(spec, features=32, blocks=4, dropout=0.0, ema=0.999, optimizer=rate)


def _vae(spec: Any, steps: int) -> Any:
    """Burda et al.'s one-layer network."""
    rate = Optimizer(learning_rate=2e-3, decay_steps=steps)
    return jaxgen.VAE(
        spec, hidden=(200, 200), activation="tanh", latents=50, dropout=0.0, ema=0.999,
        warmup=min(6000, steps // 5), optimizer=rate,
    )  # fmt: skip


_row = functools.partial(_rnn, RowLSTM)
_PAPER = "van den Oord et al. 2016a"
PLANS = {
    "pixelcnn-static": Plan("static", _pixelcnn, 64, 150, f"81.30, {_PAPER}, the same files"),
    "gated-dynamic": Plan(
        "dynamic", _gated, 64, 150, "81.50, pytorch-generative, another draw of the test split"
    ),
    "vae-static": Plan(
        "static", _vae, 100, 1000, "L_5000 88.71, Burda et al. 2016, one layer, k = 1, the same "
        "files, 3,280 epochs", 40.0, 500,
    ),
    "rowlstm-dynamic": Plan("dynamic", _row, 64, 100, "none known"),
    "rowlstm-static": Plan("static", _row, 64, 100, f"80.54, {_PAPER}, 7 layers, the same files"),
    "pixelcnn-dynamic": Plan(
        "dynamic", _pixelcnn, 64, 150, "81.45, pytorch-generative, 457 epochs, another draw"
    ),
    "diagonal-static": Plan(
        "static", functools.partial(_rnn, DiagonalBiLSTM), 64, 100,
        f"79.20, {_PAPER}, 7 layers, the same files",
    ),
}  # fmt: skip
LIMITS = {"pixelcnn-static": 170.0, "vae-static": 110.0}


class Steps:
    """Train steps of one model from its first on, a dispatch at a time."""

    def __init__(self, model: Any, dataset: Dataset, batch: int, capacity: int) -> None:
        mesh, self.keys = make_mesh(1), keys_of(0)
        self.feed = Feed(dataset, 0, batch, mesh, capacity)
        self._run = steps.compile_steps(model, self.feed, mesh)
        init = lambda key, batch: start(model.init(key, batch))  # noqa: E731
        first = first_examples(dataset, 0, batch)
        self.progress = on_every_device(mesh, init, self.keys.init, first)
        self.done, self._examples = 0, batch

    def dispatch(self, count: int) -> dict[str, Any]:
        """Takes up to a dispatch of steps, and waits for them."""
        count = min(count, self.feed.capacity)
        chunk = self.feed.chunk(self.done * self._examples, count)
        self.progress, metrics = self._run(self.progress, self.keys.train, chunk, np.int32(count))
        self.done += count
        return jax.block_until_ready(metrics)


def budget(plan: Plan, dataset: Dataset, seconds: float, quick: bool) -> tuple[int, float]:
    """How many steps fit into so many seconds, one more compilation included, and the seconds of a
    step; from a few steps of the same program."""
    most = int(plan.epochs * len(dataset.splits["train"]) / plan.batch)
    start = time.perf_counter()
    trial = Steps(_model(plan, dataset, most, quick), dataset, plan.batch, plan.capacity)
    trial.dispatch(1)
    compiling, start = time.perf_counter() - start, time.perf_counter()
    for _ in range(1 if quick else 4):
        trial.dispatch(plan.capacity)
    each = (time.perf_counter() - start) / (trial.done - 1)
    # Validations, and compiling them, take the rest.
    left = 0.85 * (seconds - 2 * compiling - 4 * plan.capacity * each)
    return (4 if quick else max(plan.capacity, min(most, int(left / each)))), each


def _model(plan: Plan, dataset: Dataset, steps: int, quick: bool) -> Any:
    model = plan.make(dataset.spec, steps)
    if not quick:
        return model
    small = {"features": 4, "blocks": 1, "head": 4, "hidden": (8,), "latents": 3}
    return dataclasses.replace(model, **{k: v for k, v in small.items() if hasattr(model, k)})


def number(context: Context, name: str) -> None:
    """Trains, chooses, tests once; figures are kept at every validation."""
    plan, began = PLANS[name], time.perf_counter()
    dataset = _dataset(context, plan.data)
    seconds = context.left() - plan.test_s
    total, each = budget(plan, dataset, seconds, context.quick)
    model, stop = _model(plan, dataset, total, context.quick), context.end - plan.test_s
    context.add(
        model=repr(model), protocol=dataset.protocol, fingerprint=dataset.fingerprint,
        published=plan.published, batch=plan.batch, planned_steps=total, step_s=each,
    )  # fmt: skip
    steps = Steps(model, dataset, plan.batch, plan.capacity)
    best, state, marks = float("inf"), steps.progress.state, _marks(total)
    while steps.done < total and time.time() < stop:
        steps.dispatch(min(total, marks[0]) - steps.done)
        if steps.done >= marks[0] or time.time() >= stop:
            marks = [m for m in marks if m > steps.done] or [total]
            nats = _nats(model, steps.progress.state, dataset.splits["validation"])[0]
            epochs = steps.done * plan.batch / len(dataset.splits["train"])
            row = {"step": steps.done, "epochs": epochs, "validation_nats": nats}
            context.append("validations", row)
            if nats < best:
                best, state = nats, jax.tree.map(jnp.copy, steps.progress.state)
                context.add(chosen_step=steps.done, validation_nats=nats)
    epochs = steps.done * plan.batch / len(dataset.splits["train"])
    context.add(
        steps=steps.done, epochs=epochs, train_s=time.perf_counter() - began,
        skipped=int(steps.progress.skipped), parameters=parameters(state),
    )  # fmt: skip
    _test(context, model, state, dataset, 10 if context.quick else plan.draws)


def _marks(total: int) -> list[int]:
    """The steps at which is validated."""
    return sorted({-(-total * (i + 1) // LOOKS) for i in range(LOOKS)})


def _test(context: Context, model: Any, state: Any, dataset: Dataset, draws: int) -> None:
    """The whole test split, as the final report evaluates; once more at the highest precision of
    matrix products, to see what that changes."""
    for precision in ("default", "highest"):
        with jax.default_matmul_precision(precision):
            nats, error = _nats(model, state, dataset.materialize("test"), draws)
        bound = f"L_{draws}" if isinstance(model, Bounds) else "exact"
        context.add(**{f"test_{precision}": {"nats": nats, "se": error, "kind": bound}})
        context.say(f"test, {precision} precision: {nats:.2f} ± {error:.2f} nats ({bound})")
    context.say(f"{context.found['epochs']:.1f} epochs; published: {context.found['published']}")


def _nats(model: Any, state: Any, split: Split, draws: int = 0) -> tuple[float, float]:
    """The mean NLL and its standard error; by the bound of so many draws, where there is one."""
    mesh, key = make_mesh(1), keys_of(0).evaluate
    if draws and isinstance(model, Bounds):
        bound = importance_weighted(model, mesh, key, state, split, EVALUATED, (draws,))
        nll = -bound.values[:, 0]
    else:
        nll = per_example(model, mesh, key, state, split, EVALUATED)["nll"]
    found = mean_and_error({"nll": nll})
    return found["nll"], found["nll_se"]


def _dataset(context: Context, name: str) -> Dataset:
    file = accelerator_data.path(context.data, name)
    if not context.quick or file.exists():
        found = accelerator_data.read(file)
    else:
        made = common.synthetic(jaxgen.DataSpec(8, 8, 1, 2), 200)
        found = dataclasses.replace(made, splits={
            part: made.splits["train"] for part in ("train", "validation", "test")
        })  # fmt: skip
    if context.quick:
        few = {part: Split.of(split.x[:100]) for part, split in found.splits.items()}
        found = dataclasses.replace(found, splits=few)
    return found


ITEMS = [
    Item(f"numbers.{name}", f"test nats, {plan.data} MNIST; published: {plan.published}",
         functools.partial(number, name=name), LIMITS.get(name, 140.0), plan.test_s + 35,
         (plan.data,))
    for name, plan in PLANS.items()
]  # fmt: skip
