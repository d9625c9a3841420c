"""The game that grows: what each stage trains and shows, and how it goes on from any step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import batch_of

from jaxgen.cli import main, train
from jaxgen.errors import UserError
from jaxgen.models.adversarial.progan import ProGAN
from jaxgen.optim.optimizer import Optimizer
from jaxgen.registry import MODELS, load_run
from jaxgen.runs import digest
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.state import shapes
from jaxgen.spec import DataSpec

SPEC = DataSpec(8, 8, 1, 5)
ADAM = Optimizer("adam", 0.01, b1=0.0, b2=0.99)
MODEL = ProGAN(
    SPEC, filters=2, latents=3, deviation_group=2, stage_steps=40, fade=0.1, r1=0.3,
    g_optimizer=ADAM, d_optimizer=ADAM,
)  # fmt: skip
BATCH = batch_of(8, SPEC)


@pytest.fixture(scope="module", autouse=True)
def options():
    """Training under --seeds stacks keys, which the check of reuse does not follow."""
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", True)


@functools.cache
def initial():
    return jax.jit(MODEL.init)(jax.random.key(0), BATCH)


@pytest.fixture(scope="module")
def history():
    """What the traces were of, and the states before these steps, in which the model takes its
    first, and those from the edge of a stage on."""
    traced = []

    def step(model, state, t):
        traced.append(model.now)
        return model.train_step(jax.random.key(0), state, BATCH, t)[0]

    compiled = jax.jit(step, static_argnums=0)
    states = {0: initial()}
    steps = [0, 1, 39, 40, 41, 42, 43, 44]
    for t, then in zip(steps, [*steps[1:], 45], strict=True):
        states[then] = compiled(MODEL.at(t), states[t], jnp.int32(t))
    return traced, jax.device_get(states)


def test_one_trace_a_stage(history):
    assert history[0] == [1, 2]
    assert MODEL.changes == (40,) and MODEL.at(39).stages == 1 and MODEL.at(40).stages == 2
    three = dataclasses.replace(MODEL, spec=DataSpec(28, 28, 1, 5))
    assert three.changes == (40, 80) and [three.at(s).stages for s in (0, 79, 80)] == [1, 2, 3]
    assert dataclasses.replace(three, stages=2).at(999).stages == 2
    assert dataclasses.replace(MODEL, stage_steps=0, fade=0.5).changes == ()


def test_what_has_not_joined_is_untouched(history):
    """Parameters, the optimizer, its count, and the average, to the last bit."""
    _, states = history
    first, before, after = states[0], states[40], states[41]
    for player, ends in (("g", "to_image_1"), ("d", "from_image_1")):
        nets = [getattr(state, player) for state in (first, before, after)]
        for block in ("block_1", ends):
            blocks = [(net.params[block], net.opt_state[block]) for net in nets]
            jax.tree.map(np.testing.assert_array_equal, blocks[0], blocks[1])
            assert blocks[2][1][0].count == 1
        assert nets[2].opt_state["block_0"][0].count == 4
    for block in ("block_1", "to_image_1"):
        jax.tree.map(
            np.testing.assert_array_equal, first.ema["params"][block], before.ema["params"][block]
        )
    assert (first.ema["params"]["block_0"]["EqualizedDense_0"]["kernel"]
            != before.ema["params"]["block_0"]["EqualizedDense_0"]["kernel"]).any()  # fmt: skip


def test_a_block_that_joins_late_takes_a_first_step_of_one_learning_rate(history):
    """By the count of those before it, it would be up to ten times as long."""
    _, states = history
    for player, ends in (("g", "to_image_1"), ("d", "from_image_1")):
        for block in ("block_1", ends):
            a, b = (getattr(states[t], player).params[block] for t in (40, 41))
            moved = max(np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, (a, b)),
                                                            strict=True))  # fmt: skip
            assert 0.5 * 0.01 < moved <= 1.01 * 0.01


def test_alpha_is_of_the_clock_and_in_the_state(history):
    _, states = history
    assert [float(MODEL.at(40).alpha(t)) for t in (39, 40, 41, 43, 99)] == [0.0, 0.25, 0.5, 1, 1]
    for t, alpha in ((40, 1.0), (41, 0.25), (43, 0.75), (45, 1.0)):
        for variables in (states[t].g.variables, states[t].d.variables, states[t].ema):
            assert variables["fade"]["alpha"] == alpha
    assert float(dataclasses.replace(MODEL, fade=0.0).at(40).alpha(40)) == 1.0


def test_samples_are_of_the_full_size_in_every_stage(history):
    """Those of the first are of 2x2 pixels that are one."""
    _, states = history
    draw = lambda model, state: np.asarray(  # noqa: E731
        jax.jit(model.sample, static_argnums=2)(jax.random.key(5), state, 6)
    )
    low, high = draw(MODEL.at(39), states[40]), draw(MODEL.at(44), states[45])
    assert low.shape == high.shape == (6, *SPEC.shape)
    np.testing.assert_array_equal(low, low[:, ::2, ::2].repeat(2, 1).repeat(2, 2))
    assert (high[:, ::2] != high[:, 1::2]).any()


def test_d_sees_real_images_as_the_stage_has_them():
    model, state = MODEL.at(40), initial()

    @jax.jit
    def show(state):
        state = model.clocked(state, 40)
        g = lambda *x: (model.generator(True).apply(state.g.variables, *x), {})  # noqa: E731
        return model.show(jax.random.key(1), g, BATCH)[0]

    shown = show(state)
    x = np.asarray(SPEC.to_float(BATCH["x"]))
    mean = x.reshape(8, 4, 2, 4, 2, 1).mean((2, 4)).repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(shown.real, 0.25 * x + 0.75 * mean, atol=1e-6)


@pytest.mark.parametrize("fields, told", [
    ({"spec": DataSpec(9, 9, 1, 5)}, "9x9: --size=8 makes such images"),
    ({"spec": DataSpec(22, 44, 1, 5)}, "22x44: --size=20 makes such images"),
    ({"spec": DataSpec(2, 2, 1, 5)}, "2x2: --size=4 makes such images"),
    ({"spec": DataSpec(1, 64, 1, 256, rate=4000)}, "x is sound"),
    ({"spec": DataSpec(1, 1, 2, 0, ranges=((-1, 1), (-1, 1)))}, "x is points"),
    ({"stages": 3}, r"`stages` must lie in 0..2, since x is doubled from 4x4 to 8x8; got 3"),
    ({"fade": 1.1}, r"`fade` must lie in \[0, 1\]"),
    ({"deviation_group": 1}, "`deviation_group` must be 0, or at least 2"),
    ({"filters": 0}, "`filters` and `latents` must be at least 1"),
])  # fmt: skip
def test_what_cannot_be_is_refused(fields, told):
    with pytest.raises(UserError, match=told):
        dataclasses.replace(MODEL, **fields)


def states_of(run):
    model = load_run(run).model
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        fresh = shapes(model)
        return {s: digest.digest(checkpoints.restore(fresh, s)[0]) for s in checkpoints.steps()}


@pytest.mark.slow
@pytest.mark.parametrize("seeds, stops", [(1, (2, 4, 6)), (2, (4,))])
def test_resuming_changes_no_bit(seeds, stops, tmp_path, monkeypatch):
    """From before a stage's edge, from the edge, and from within the fade after it."""
    monkeypatch.setattr(train, "finish_seeds", lambda *args: None)
    small = ["filters=2", "latents=3", "stage_steps=4", "fade=1.0"]
    flags = [
        *("train", "--model=progan", "--batch_size=40", "--devices=1", "--samples=50"),
        *("--log_every=2", "--eval_every=2", f"--seeds={seeds}"),
        *(f"--progan.{flag}" for flag in small),
    ]
    names = [f"seed_{i}" for i in range(seeds)] if seeds > 1 else ["."]
    found = []
    for stop in (8, *stops):
        run = tmp_path / f"by_{stop}"
        for steps in dict.fromkeys((stop, 8)):
            main.main([*flags, f"--steps={steps}", f"--run={run}"])
        rows = [(run / name / "metrics.jsonl").read_bytes() for name in names]
        found.append((rows, [states_of(run / name)[8] for name in names]))
    assert all(other == found[0] for other in found)


@pytest.mark.slow
def test_the_preset_reaches_the_digits_stage():
    model = MODELS["progan"].model
    assert isinstance(model, ProGAN) and model.changes[-1] < MODELS["progan"].train.steps / 2
