"""What holds for every model, as checks of one: the registry's and the toys' tests run them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from tiny import BATCH, batch_of, close, dataset_of

from jaxgen.data import shuffle
from jaxgen.parallel.mesh import AXIS, SPLIT, WHOLE, data_parallel, make_mesh, on_every_device
from jaxgen.runs.state import start
from jaxgen.training.feed import Feed
from jaxgen.training.steps import compile_steps, of_seed, stack

STEPS, CLOCK = 3, 5
SEEDS = (5, 6, 7)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def replicas_agree(tree):
    for leaf in jax.tree.leaves(tree):
        first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
        for other in others:
            np.testing.assert_array_equal(first, other)


@functools.lru_cache(12)
def step_of(model):
    """One step under jit: compiled once for all checks of a model."""
    return jax.jit(model.train_step)


def _alone(model, random_state, batch):
    """States of two seeds, and what one step makes of each under jit; it moves every one."""
    states = [random_state(model, seed) for seed in (0, 1)]
    one = step_of(model)
    expected = [one(jax.random.key(i), state, batch, CLOCK) for i, state in enumerate(states)]
    expected, states = jax.device_get((expected, states))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected[0][0], states[0])
    assert max(jax.tree.leaves(moved)) > 1e-3
    return states, expected


def four_ways_to_run_a_step_agree(model, random_state):
    """jit, vmap over seeds, shard_map and pmap."""
    batch = batch_of(BATCH * model.minibatches, model.spec)
    states, expected = _alone(model, random_state, batch)

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    with_seed = lambda seed, state: model.train_step(jax.random.key(seed), state, batch, CLOCK)  # noqa: E731
    seeds = jax.device_get(jax.jit(jax.vmap(with_seed))(jnp.arange(2), stacked))
    for i in range(2):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], seeds), expected[i])

    mesh = make_mesh(4)
    step = lambda key, state, batch: model.train_step(key, state, batch, CLOCK, AXIS)  # noqa: E731
    sharded = data_parallel(step, mesh, (WHOLE, WHOLE, SPLIT), (WHOLE, WHOLE))
    result = sharded(jax.random.key(0), states[0], batch)
    close(result, expected[0])
    replicas_agree(result)

    shares = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), jax.device_get(batch))
    mapped = jax.pmap(
        lambda key, state, batch: model.train_step(key, state, batch, CLOCK, "devices"),
        axis_name="devices",
        in_axes=(None, None, 0),
        devices=jax.devices()[:2],
    )
    result = jax.device_get(mapped(jax.random.key(0), states[0], shares))
    for device in range(2):
        close(jax.tree.map(lambda leaf, d=device: leaf[d], result), expected[0])


def seeds_on_devices_are_each_alone(model, random_state):
    """vmap over seeds inside shard_map against jit: two of the four ways in one program."""
    batch, mesh = batch_of(BATCH * model.minibatches, model.spec), make_mesh(4)
    states, expected = _alone(model, random_state, batch)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)

    def step(stacked, batch):
        one = lambda seed, state: model.train_step(  # noqa: E731
            jax.random.key(seed), state, batch, CLOCK, AXIS
        )
        return jax.vmap(one)(jnp.arange(2), stacked)

    result = data_parallel(step, mesh, (WHOLE, SPLIT), WHOLE)(stacked, batch)
    replicas_agree(result)
    result = jax.device_get(result)
    for i in range(2):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], result), expected[i])


def feed_of(model, devices, seed=0):
    num = BATCH * model.minibatches
    return Feed(dataset_of(model.spec), seed, num, make_mesh(devices), STEPS)


@functools.lru_cache(12)
def resident_steps(model, devices):
    """The steps of resident data, one seed at a time: compiled once for all checks of a model."""
    feed = feed_of(model, devices)
    assert feed.resident
    return compile_steps(model, feed, make_mesh(devices))


def run(model, state, devices, chunks=((0, STEPS),)):
    """(progress, metrics of the steps) after the chunks (first, count) of steps."""
    mesh, num, feed = make_mesh(devices), BATCH * model.minibatches, feed_of(model, devices)
    resident = feed.resident
    compiled = resident_steps(model, devices) if resident else compile_steps(model, feed, mesh)
    progress = on_every_device(mesh, start, state)
    metrics = []
    for first, count in chunks:
        chunk = feed.chunk(first * num, count)
        progress, stacked = compiled(progress, jax.random.key(7), chunk, jnp.int32(count))
        replicas_agree((progress, stacked))
        assert stacked.pop("sound")
        metrics += [jax.tree.map(lambda m, i=i: np.asarray(m)[i], stacked) for i in range(count)]
    return jax.device_get(progress), metrics


def devices_and_chunks_change_nothing(model, random_state, others=(4,)):
    state = random_state(model)
    progress, metrics = run(model, state, 1)
    assert int(progress.step) == STEPS and int(progress.skipped) == 0
    assert all(m["applied"] for m in metrics)
    # Four devices, or one: gradients, statistics and metrics are those of the whole batch.
    for devices in others:
        other, other_metrics = run(model, state, devices)
        close(other, progress)
        close(other_metrics, metrics)
    # The same seed gives the same bits; so does one step at a time.
    again, again_metrics = run(model, state, 1)
    same((again, again_metrics), (progress, metrics))
    single, single_metrics = run(model, state, 1, ((0, 1), (1, 1), (2, 1)))
    same((single, single_metrics), (progress, metrics))
    # And so does a loop written by hand.
    split, by_hand = dataset_of(model.spec).splits["train"], state
    step, num = step_of(model), BATCH * model.minibatches
    for t in range(STEPS):
        ids = shuffle.indices(0, t * num, num, len(split))[0]
        index = np.arange(num, dtype=np.int32)
        batch = {**_shown(split.take(ids), model), "index": index}
        key = jax.random.fold_in(jax.random.key(7), t)
        by_hand, by_hand_metrics = step(key, by_hand, batch, t)
        close({**by_hand_metrics, "applied": True}, metrics[t])
    close(by_hand, progress.state)


def _shown(columns, model):
    return {n: x for n, x in columns.items() if n != "label" or model.spec.num_classes}


def seeds_together_are_each_alone(model, random_state):
    """Over four devices: the step is vmapped inside, with the batches and keys of each seed."""
    mesh, data, num = make_mesh(4), dataset_of(model.spec), BATCH * model.minibatches
    feeds = [feed_of(model, 4, seed) for seed in SEEDS]
    states = [random_state(model, seed) for seed in SEEDS]
    keys = jax.random.split(jax.random.key(7), len(SEEDS))

    together = Feed(data, SEEDS[0], num, mesh, STEPS, len(SEEDS))
    progress = stack(mesh, [on_every_device(mesh, start, state) for state in states])
    compiled = compile_steps(model, together, mesh)
    joined, metrics = compiled(progress, keys, together.chunk(num, STEPS), jnp.int32(STEPS))
    replicas_agree((joined, metrics))
    assert metrics.pop("sound").all()

    alone = resident_steps(model, 4)
    for i, (feed, state) in enumerate(zip(feeds, states, strict=True)):
        progress = on_every_device(mesh, start, state)
        expected = alone(progress, keys[i], feed.chunk(num, STEPS), jnp.int32(STEPS))
        assert expected[1].pop("sound")
        mine = jax.tree.map(lambda m, i=i: np.asarray(m)[:, i], metrics)
        close((of_seed(mesh, joined, i), mine), expected)


def metrics_show_whatever_is_not_finite(model, random_state):
    """A NaN in any parameter that is trained reaches a metric, so the trainer would not apply the
    step."""
    batch, step = batch_of(BATCH * model.minibatches, model.spec), step_of(model)
    state = jax.device_get(random_state(model))
    places, tree = jax.tree.flatten_with_path(state)
    moved, _ = step(jax.random.key(0), state, batch, CLOCK)
    idle = [np.array_equal(a, b) for a, (_, b) in zip(jax.tree.leaves(moved), places, strict=True)]
    for i, (path, leaf) in enumerate(places):
        if "params" not in jax.tree_util.keystr(path) or idle[i]:
            continue
        leaves = [value for _, value in places]
        leaves[i] = np.where(np.arange(leaf.size).reshape(leaf.shape) == 0, np.nan, leaf)
        leaves[i] = leaves[i].astype(leaf.dtype)
        _, metrics = step(jax.random.key(0), jax.tree.unflatten(tree, leaves), batch, CLOCK)
        shown = [not np.isfinite(value) for value in metrics.values()]
        assert any(shown) or "ema" in jax.tree_util.keystr(path), jax.tree_util.keystr(path)


def evaluation_of_a_share_is_that_of_the_whole(model, random_state):
    state, batch, mesh = random_state(model), batch_of(BATCH, model.spec), make_mesh(4)
    whole = jax.jit(model.eval_step)(jax.random.key(0), state, batch)
    spread = data_parallel(model.eval_step, mesh, (WHOLE, WHOLE, SPLIT), PartitionSpec(AXIS))
    close(spread(jax.random.key(0), state, batch), whole, atol=1e-4)


def what_it_measures_is_declared(model, random_state):
    """Every metric but norms of gradients, and the monitor, if it is no score of samples."""
    state, batch = random_state(model), batch_of(BATCH * model.minibatches, model.spec)
    _, metrics = jax.eval_shape(model.train_step, jax.random.key(0), state, batch, CLOCK)
    values = jax.eval_shape(model.eval_step, jax.random.key(0), state, batch)
    trained = {name for name in metrics if not name.endswith("grad_norm")}
    assert trained | set(values) <= set(model.metrics)
    assert all(v.shape == batch["index"].shape for v in values.values())
    assert model.monitor in values or model.monitor not in model.metrics


CHECKS = [
    devices_and_chunks_change_nothing,
    seeds_together_are_each_alone,
    metrics_show_whatever_is_not_finite,
    evaluation_of_a_share_is_that_of_the_whole,
]
"""Beside those that run for every model."""
