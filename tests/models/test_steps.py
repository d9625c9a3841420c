"""One step, run in every way there is, for every model of the registry: always the same result."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxgen.data import shuffle
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import Split
from jaxgen.model import Model
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.models.autoregressive.pixelcnnpp import PixelCNNPP
from jaxgen.models.autoregressive.wavenet import WaveNet
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.mesh import AXIS, SPLIT, WHOLE, data_parallel, make_mesh, on_every_device
from jaxgen.registry import MODELS
from jaxgen.runs.state import start
from jaxgen.spec import ImageSpec
from jaxgen.training.feed import Feed
from jaxgen.training.steps import compile_steps, member_of, stack

SPEC = ImageSpec(4, 4, 1, 5, 3)
ROW = ImageSpec(1, 16, 1, 5, 3)
BATCH, STEPS = 8, 3
SEEDS = (5, 6, 7)


def _small(model):
    """The model on tiny images: each field that sets a size is cut, each optimizer is SGD."""
    sizes = {"features": 4, "blocks": 1, "layers": 1, "head": 4, "first_kernel": 3, 
             "filters": 2, "hidden": (8, 8), "latents": 3, "scales": 1,
             # Random mixtures have scales of a thousandth, which magnify the rounding of gradients.
             "output": "categorical"}  # fmt: skip
    fields = {name: value for name, value in sizes.items() if hasattr(model, name)}
    for field in dataclasses.fields(model):
        if isinstance(getattr(model, field.name), Optimizer):
            # PixelCNN++'s gradients are large where its parameters are random.
            rate = 0.002 if isinstance(model, PixelCNNPP) else 0.02
            fields[field.name] = Optimizer("sgd", rate, b1=0.9)
    if isinstance(model, WaveNet):
        return dataclasses.replace(model, spec=ROW, **{**fields, "layers": 2, "skips": 4})
    return dataclasses.replace(model, spec=SPEC, **fields)


SMALL = {name: _small(preset.model) for name, preset in MODELS.items()}
SMALL["gan, two discriminator steps"] = dataclasses.replace(
    SMALL["gan"], network="mlp", hidden=(6,), d_steps=2, d_norm="none", r1=0.5
)
SMALL["vae, in two parts"] = dataclasses.replace(SMALL["vae"], accumulate=2)


AUTOREGRESSIVE = {n for n, preset in MODELS.items() if isinstance(preset.model, Autoregressive)}
SHARE = AUTOREGRESSIVE - {"pixelcnn", "made"}
"""They share PixelCNN's train step, to the letter."""
SLOW = SHARE | {"vae, in two parts", "gan, two discriminator steps"}
"""Only the first test is not slow for these."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in SMALL],
)
def model(request):
    return SMALL[request.param]


@pytest.fixture(autouse=True)
def compiled_in_full(request, compiled_quickly):
    """Sums in parts round by more without the usual optimizations."""
    if "in two parts" not in request.node.name:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def _dataset(num=40, spec=SPEC):
    rng = np.random.default_rng(0)
    images = rng.integers(spec.levels, size=(num, *spec.shape)).astype(np.uint8)
    split = Split(images, rng.integers(spec.num_classes, size=num).astype(np.int32))
    names = tuple("abc")
    splits = dict.fromkeys(("train", "validation", "test"), split)
    return Dataset("random", spec, splits, names, "", "random images")


def _batch(num, spec=SPEC):
    split = _dataset(num, spec).splits["train"]
    return {"image": jnp.asarray(split.images), "label": jnp.asarray(split.labels),
            "index": jnp.arange(num)}  # fmt: skip


def _close(a, b, atol=1e-5):
    """To rounding: an entry that is a difference of large ones carries their last bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)

    def check(a, b):
        largest = float(np.abs(np.asarray(b, np.float64)).max())
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol + 2.0**-23 * largest)

    jax.tree.map(check, a, b)


def _same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _replicas_agree(tree):
    for leaf in jax.tree.leaves(tree):
        first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
        for other in others:
            np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("name", SMALL)
def test_four_ways_to_run_a_step_agree(name, random_state):
    model = SMALL[name]
    batch = _batch(BATCH * model.minibatches, model.spec)
    states = [random_state(model, seed) for seed in (0, 1)]
    one = jax.jit(model.train_step)
    expected = [one(jax.random.key(i), state, batch) for i, state in enumerate(states)]
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), expected[0][0], states[0])
    assert max(jax.tree.leaves(moved)) > 1e-3

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    with_seed = lambda seed, state: model.train_step(jax.random.key(seed), state, batch)  # noqa: E731
    seeds = jax.jit(jax.vmap(with_seed))(jnp.arange(2), stacked)
    for i in range(2):
        _close(jax.tree.map(lambda leaf, i=i: leaf[i], seeds), expected[i])

    mesh = make_mesh(4)
    step = lambda key, state, batch: model.train_step(key, state, batch, AXIS)  # noqa: E731
    sharded = data_parallel(step, mesh, (WHOLE, WHOLE, SPLIT), (WHOLE, WHOLE))
    result = sharded(jax.random.key(0), states[0], batch)
    _close(result, expected[0])
    _replicas_agree(result)

    shares = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), batch)
    mapped = jax.pmap(
        lambda key, state, batch: model.train_step(key, state, batch, "devices"),
        axis_name="devices",
        in_axes=(None, None, 0),
        devices=jax.devices()[:2],
    )
    result = mapped(jax.random.key(0), states[0], shares)
    for device in range(2):
        _close(jax.tree.map(lambda leaf, d=device: leaf[d], result), expected[0])


def _run(model, state, devices, chunks=((0, STEPS),), compiled=None):
    """(progress, metrics of the steps, compiled) after the chunks (first, count) of steps."""
    mesh = make_mesh(devices)
    feed = Feed(_dataset(spec=model.spec), 0, BATCH * model.minibatches, mesh, STEPS)
    compiled = compiled or compile_steps(model, feed, mesh)
    progress = on_every_device(mesh, start, state)
    metrics = []
    for first, count in chunks:
        chunk = feed.chunk(first, count)
        progress, stacked = compiled(progress, jax.random.key(7), chunk, jnp.int32(count))
        _replicas_agree((progress, stacked))
        assert stacked.pop("sound")
        metrics += [jax.tree.map(lambda m, i=i: np.asarray(m)[i], stacked) for i in range(count)]
    return jax.device_get(progress), metrics, compiled


def test_any_number_of_devices_and_any_chunking(model, random_state):
    state = random_state(model)
    progress, metrics, compiled = _run(model, state, 1)
    assert int(progress.step) == STEPS and int(progress.skipped) == 0
    assert all(m["applied"] for m in metrics)
    # Four devices, two, one: gradients, statistics and metrics are those of the whole batch.
    for devices in (2, 4):
        other, other_metrics, _ = _run(model, state, devices)
        _close(other, progress)
        _close(other_metrics, metrics)
    # The same seed gives the same bits; so does one step at a time.
    again, again_metrics, _ = _run(model, state, 1, compiled=compiled)
    _same((again, again_metrics), (progress, metrics))
    single, single_metrics, _ = _run(model, state, 1, ((0, 1), (1, 1), (2, 1)), compiled)
    _same((single, single_metrics), (progress, metrics))
    # And so does a loop written by hand.
    split, by_hand = _dataset(spec=model.spec).splits["train"], state
    step = jax.jit(model.train_step)
    for t in range(STEPS):
        ids = shuffle.indices(0, t, BATCH * model.minibatches, len(split.images))[0]
        batch = {"image": split.images[ids], "label": split.labels[ids],
                 "index": np.arange(len(ids), dtype=np.int32)}  # fmt: skip
        by_hand, by_hand_metrics = step(jax.random.fold_in(jax.random.key(7), t), by_hand, batch)
        _close({**by_hand_metrics, "applied": True}, metrics[t])
    _close(by_hand, progress.state)


def test_streamed_batches_equal_resident_ones(random_state, monkeypatch):
    state = random_state(SMALL["vae"])
    resident, metrics, _ = _run(SMALL["vae"], state, 2)
    monkeypatch.setattr(feed, "RESIDENT_BYTES", 0)
    streamed, streamed_metrics, _ = _run(SMALL["vae"], state, 2)
    _close((streamed, streamed_metrics), (resident, metrics), atol=1e-6)
    # Chunks that hold fewer steps than were asked for bound the memory.
    monkeypatch.setattr(feed, "STREAM_BYTES", 2 * BATCH * SPEC.dims)
    assert Feed(_dataset(), 0, BATCH, make_mesh(2), STEPS).capacity == 2
    short, short_metrics, _ = _run(SMALL["vae"], state, 2, ((0, 2), (2, 1)))
    _close((short, short_metrics), (resident, metrics), atol=1e-6)


def test_seeds_trained_together_are_each_alone(model, random_state):
    """Over two devices: the step is vmapped inside, with the batches and keys of each seed."""
    mesh, data, num = make_mesh(2), _dataset(spec=model.spec), BATCH * model.minibatches
    feeds = [Feed(data, seed, num, mesh, STEPS) for seed in SEEDS]
    states = [random_state(model, seed) for seed in SEEDS]
    keys = jax.random.split(jax.random.key(7), len(SEEDS))

    together = Feed(data, SEEDS[0], num, mesh, STEPS, len(SEEDS))
    progress = stack(mesh, [on_every_device(mesh, start, state) for state in states])
    run = compile_steps(model, together, mesh)
    joined, metrics = run(progress, keys, together.chunk(1, STEPS), jnp.int32(STEPS))
    _replicas_agree((joined, metrics))
    assert metrics.pop("sound").all()

    alone = compile_steps(model, feeds[0], mesh)
    for i, (feed, state) in enumerate(zip(feeds, states, strict=True)):
        progress = on_every_device(mesh, start, state)
        expected = alone(progress, keys[i], feed.chunk(1, STEPS), jnp.int32(STEPS))
        assert expected[1].pop("sound")
        mine = jax.tree.map(lambda m, i=i: m[:, i], metrics)
        _close((member_of(mesh, joined, i), mine), expected)


@flax.struct.dataclass
class _FakeState:
    params: jax.Array
    stats: jax.Array


@dataclass(frozen=True)
class _Fake(Model[_FakeState]):
    """Counts its steps, and is poisoned at those whose key draws below 0.4."""

    spec: ImageSpec = SPEC
    monitor: ClassVar[str] = "nll"

    def init(self, key):
        return _FakeState(jnp.zeros(3), jnp.zeros(()))

    def train_step(self, key, state, batch, axis_name=None):
        bad = jnp.where(jax.random.uniform(key) < 0.4, jnp.nan, 0.0)
        return _FakeState(state.params + 1 + bad, state.stats + 1), {"loss": state.stats + bad}

    eval_step = sample = train_step


def test_a_step_that_is_not_finite_is_not_applied():
    model, mesh, num = _Fake(), make_mesh(2), 12
    feed = Feed(_dataset(), 0, BATCH, mesh, num)
    key = jax.random.key(11)
    draws = [jax.random.uniform(jax.random.fold_in(jax.random.key(11), t)) for t in range(num)]
    good = np.array(draws) >= 0.4
    assert 3 < good.sum() < 10
    progress = on_every_device(mesh, start, model.init(jax.random.key(0)))
    compiled = compile_steps(model, feed, mesh)
    progress, metrics = compiled(progress, key, feed.chunk(0, num), jnp.int32(num))
    np.testing.assert_array_equal(metrics["applied"], good)
    np.testing.assert_array_equal(progress.state.params, np.full(3, good.sum()))
    assert float(progress.state.stats) == good.sum()
    assert int(progress.step) == num and int(progress.skipped) == (~good).sum()
    assert int(progress.in_a_row) == good[::-1].argmax()


def test_metrics_show_whatever_is_not_finite(model, random_state):
    """A NaN in any parameter reaches a metric, so the trainer would not apply the step."""
    batch, step = _batch(BATCH * model.minibatches, model.spec), jax.jit(model.train_step)
    state = random_state(model)
    places, tree = jax.tree.flatten_with_path(state)
    for i, (path, leaf) in enumerate(places):
        if "params" not in jax.tree_util.keystr(path):
            continue
        leaves = [value for _, value in places]
        leaves[i] = leaf.at[(0,) * leaf.ndim].set(jnp.nan)
        _, metrics = step(jax.random.key(0), jax.tree.unflatten(tree, leaves), batch)
        shown = [not np.isfinite(value) for value in metrics.values()]
        assert any(shown) or "ema" in jax.tree_util.keystr(path), jax.tree_util.keystr(path)


def test_a_state_that_is_not_finite_is_told(random_state):
    inf = Optimizer("adam", float("inf"))
    model = dataclasses.replace(SMALL["vae"], optimizer=inf)
    feed = Feed(_dataset(), 0, BATCH, make_mesh(1), 1)
    for chosen, sound in ((model, False), (SMALL["vae"], True)):
        progress = on_every_device(make_mesh(1), start, random_state(chosen))
        run = compile_steps(chosen, feed, make_mesh(1))
        _, metrics = run(progress, jax.random.key(0), feed.chunk(0, 1), jnp.int32(1))
        assert bool(metrics["sound"]) == sound


def test_evaluation_of_a_share_is_that_of_the_whole(model, random_state):
    state, batch, mesh = random_state(model), _batch(BATCH, model.spec), make_mesh(4)
    whole = jax.jit(model.eval_step)(jax.random.key(0), state, batch)
    spread = data_parallel(model.eval_step, mesh, (WHOLE, WHOLE, SPLIT), PartitionSpec(AXIS))
    _close(spread(jax.random.key(0), state, batch), whole, atol=1e-4)
