"""The map between two domains without pairs: planted ones are found; cyclegan begins with it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import batch_of, close

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.models.adversarial.alignment import RANK, Aligned, aligned
from jaxgen.models.adversarial.cyclegan import CycleGAN
from jaxgen.nn.translation import UNet
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.state import shapes
from jaxgen.spec import DataSpec
from jaxgen.training.feed import first_examples
from jaxgen.training.trainer import Trainer

find = jax.jit(aligned)
SIZES = {"filters": 2, "halvings": 1, "d_filters": 2, "d_halvings": 1, "pool": 0}


def planted(rng, num, dims, made):
    """Rows that are skewed along axes of their own, and an isometry of them with a shift."""
    rows = rng.exponential(size=(num, dims)) * np.geomspace(4.0, 0.5, dims)
    turn = np.linalg.qr(rng.normal(size=(made, dims)))[0].T
    shift = rng.normal(size=made)
    return rows, lambda x: x @ turn + shift


@pytest.mark.parametrize("made", [6, 9])
def test_rows_in_another_order_are_matched_exactly(made):
    rng = np.random.default_rng(made)
    a, isometry = planted(rng, 300, 6, made)
    b = isometry(a)
    found = find(a, rng.permutation(b))
    np.testing.assert_allclose(found(a), b, atol=1e-4)
    np.testing.assert_allclose(found.inverse(b), a, atol=1e-4)
    # What lies across the axes is lost on the way, as the map is no more than an isometry.
    np.testing.assert_allclose(found.inverse(found(a)), a, atol=1e-4)


def test_rows_of_their_own_are_matched_in_distribution():
    """No row of one side is on the other; those of a third set tell how far off the map is."""
    rng = np.random.default_rng(0)
    rows, isometry = planted(rng, 1000, 6, 6)
    a, b, c = rows[:400], isometry(rows[400:800]), rows[800:]
    off = np.linalg.norm(find(a, b)(c) - isometry(c), axis=1).mean()
    assert off < 0.2 * np.linalg.norm(c - c.mean(0), axis=1).mean()


def test_fewer_rows_than_axes_give_the_same_shapes():
    rng = np.random.default_rng(0)
    few, many = (
        jax.eval_shape(aligned, *(jnp.zeros((num, d)) for d in (150, 200))) for num in (1, 300)
    )
    assert few == many and few.axes.shape == (150, RANK) and few.made_axes.shape == (200, RANK)
    found = find(*(rng.normal(size=(4, d)) for d in (6, 9)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_a_quarter_turn_is_found_before_the_first_step(compiled_in_full, tmp_path):
    """By the run's own first examples: the error on the test split, both ways, is at most a sixth
    of doing nothing's."""
    data = load(DataConfig(pairing="rotate", unpaired=True))
    model = CycleGAN(data.spec, aligned=500, **SIZES)
    run = Run("turned", model, DataConfig(pairing="rotate", unpaired=True), TrainConfig())
    state = Trainer(run, data, tmp_path, None).fresh().state
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, shapes(model).state)
    first = first_examples(data, run.train.seed, 500)
    x, source = (a.reshape(500, -1) for a in model.pair(first))
    close(state.forth.variables["aligned"]["map"], find(source, x))
    batch = data.materialize("test")
    batch = {"x": batch.x, **batch.columns, "index": np.arange(len(batch.x))}
    error = jax.jit(functools.partial(model.eval_step, jax.random.key(0)))(state, batch)
    nothing = np.abs(np.subtract(*model.pair(batch))).mean()
    assert error["l1_forth"].mean() < nothing / 6 and error["l1_back"].mean() < nothing / 6


def test_a_step_moves_neither_the_map_nor_its_average():
    spec = DataSpec(4, 4, 1, 5, source=DataSpec(4, 4, 3, 5))
    model, batch = CycleGAN(spec, aligned=100, **SIZES), batch_of(100, spec)
    state = model.init(jax.random.key(0), batch)
    step = jax.jit(model.train_step)
    new, _ = step(jax.random.key(1), state, {n: a[:8] for n, a in batch.items()}, 0)
    assert np.abs(state.forth.variables["aligned"]["map"].axes).max() > 0.1
    for way in ("forth", "back"):
        was = getattr(state, way).variables["aligned"]
        jax.tree.map(np.testing.assert_array_equal, getattr(new, way).variables["aligned"], was)
        close(new.ema[way]["aligned"], was)


def test_the_network_adds_to_the_map():
    net = UNet(shape=(4, 4, 3), filters=2, halvings=1, output="linear")
    both = Aligned(shape=(4, 4, 3), rank=5, net=net)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    variables = both.init(jax.random.key(1), x)
    keys = iter(jax.random.split(jax.random.key(2), 4))
    found = jax.tree.map(
        lambda a: jax.random.normal(next(keys), a.shape), variables["aligned"]["map"]
    )
    moved = found(x.reshape(2, -1)).reshape(2, 4, 4, 3)
    expected = moved + net.apply({"params": variables["params"]["net"]}, moved)
    close(both.apply({**variables, "aligned": {"map": found}}, x), expected)


def test_too_few_examples_are_refused():
    spec = load(DataConfig(pairing="rotate", unpaired=True)).spec
    for num in (-1, 5):
        with pytest.raises(UserError, match="`aligned` must be 0, or 100 examples or more"):
            CycleGAN(spec, aligned=num)
    model = CycleGAN(spec, aligned=100)
    assert (model.first, model.rank) == (100, 64)
    assert dataclasses.replace(model, aligned=0).rank == 0
