"""One step, run in every way there is, for every model of the registry: always the same result."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import contract
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import STEPS, run
from tiny import BATCH, SPEC, TINY, close, dataset_of, some

from jaxgen.model import Metric, Model
from jaxgen.models.adversarial.gan import GAN
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.mesh import make_mesh, on_every_device
from jaxgen.runs.state import start
from jaxgen.spec import DataSpec
from jaxgen.training import feed
from jaxgen.training.feed import Feed
from jaxgen.training.steps import compile_steps

SMALL = {
    **TINY,
    "vae": dataclasses.replace(TINY["vae"], hidden=(6,)),
    "gan, two discriminator steps": dataclasses.replace(
        TINY["gan"],
        architecture="mlp",
        filters=GAN.filters,
        hidden=(6,),
        d_steps=2,
        d_norm="none",
        r1=0.5,
    ),
    "gan, packed": dataclasses.replace(
        TINY["gan"],
        spec=dataclasses.replace(TINY["gan"].spec, num_classes=0),
        d_norm="spectral",
        r1=0.5,
        slope_penalty=0.5,
        penalty_every=5,
        pack=2,
    ),
    "gan, augmented": dataclasses.replace(
        TINY["gan"],
        d_norm="none",
        augment="color,translation,cutout",
        augment_target=0.6,
        augment_move=0.5,
        deviation_group=2,
    ),
    "gan, classifying": dataclasses.replace(
        TINY["gan"], d_norm="spectral", condition_by="auxiliary"
    ),
    "gan, unrolled": dataclasses.replace(
        TINY["gan"],
        architecture="mlp",
        filters=GAN.filters,
        hidden=(6,),
        d_norm="none",
        r1=0.5,
        penalty_every=5,
        unrolled=2,
    ),
    "gan, residual": GAN(
        DataSpec(8, 8, 1, 5),
        architecture="resnet",
        filters=2,
        latents=3,
        loss="hinge",
        d_norm="spectral",
        g_optimizer=TINY["gan"].g_optimizer,
        d_optimizer=TINY["gan"].d_optimizer,
    ),
    "vae, in two parts": dataclasses.replace(TINY["vae"], accumulate=2),
}

QUICK = {"pixelcnn", "vae", "gan"}
"""One of each base; most tests of the others are slow tests."""

AS_OTHERS = {"betavae", "vae, in two parts", "ali", "gan2014", "lsgan", "sngan", "wgan",
             "gan, two discriminator steps", "gan, unrolled", "gan, residual"}  # fmt: skip
"""Those that measure nothing that another one of their class does not: the packed GAN has both
penalties."""


@pytest.fixture(scope="module", params=some(SMALL, QUICK))
def model(request):
    return SMALL[request.param]


@pytest.fixture(autouse=True)
def parts_compiled_in_full(request):
    """Sums in parts round by more without the usual optimizations."""
    if "in two parts" in request.node.name:
        request.getfixturevalue("compiled_in_full")


@pytest.mark.parametrize("name", some(SMALL, ["gan"]))
def test_four_ways_to_run_a_step_agree(name, random_state):
    """Quick tests of the trainer's steps have the other two on devices, and vmapped over seeds."""
    contract.four_ways_to_run_a_step_agree(SMALL[name], random_state)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SMALL if n not in QUICK])
def test_seeds_on_devices_are_each_alone(name, random_state):
    contract.seeds_on_devices_are_each_alone(SMALL[name], random_state)


@pytest.mark.parametrize("name", some(SMALL, SMALL.keys() - AS_OTHERS))
def test_what_it_measures_is_declared(name):
    def shapes(model):  # nothing is computed
        return jax.eval_shape(lambda: model.init(jax.random.key(0), model.spec.example(1)))

    model = SMALL[name]
    if name == "stylegan2":  # one resolution less, of many operations
        model = dataclasses.replace(model, spec=DataSpec(4, 4, 1, 5, num_classes=3))
    contract.what_it_measures_is_declared(model, shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_two_devices_change_nothing(name, random_state):
    """Quick tests have four, and pmap over two."""
    contract.devices_and_chunks_change_nothing(SMALL[name], random_state, (2,))


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_contract(check, model, random_state):
    check(model, random_state)


def test_streamed_batches_equal_resident_ones(random_state, monkeypatch):
    state = random_state(SMALL["vae"])
    resident, metrics = run(SMALL["vae"], state, 4)
    monkeypatch.setattr(feed, "RESIDENT_BYTES", 0)
    streamed, streamed_metrics = run(SMALL["vae"], state, 4)
    close((streamed, streamed_metrics), (resident, metrics), atol=1e-6)
    # Chunks that hold fewer steps than were asked for bound the memory.
    monkeypatch.setattr(feed, "STREAM_BYTES", 2 * BATCH * (SPEC.dims + 4))  # and labels
    assert Feed(dataset_of(), 0, BATCH, make_mesh(4), STEPS).capacity == 2
    short, short_metrics = run(SMALL["vae"], state, 4, ((0, 2), (2, 1)))
    close((short, short_metrics), (resident, metrics), atol=1e-6)


@flax.struct.dataclass
class _FakeState:
    params: jax.Array
    stats: jax.Array


@dataclass(frozen=True)
class _Fake(Model[_FakeState]):
    """Counts its steps, and is poisoned at those whose key draws below 0.4."""

    spec: DataSpec = SPEC
    metrics: ClassVar = {"loss": Metric("loss")}
    monitor: ClassVar = "loss"

    def init(self, key, batch):
        return _FakeState(jnp.zeros(3), jnp.zeros(()))

    def train_step(self, key, state, batch, step, axis_name=None):
        bad = jnp.where(jax.random.uniform(key) < 0.4, jnp.nan, 0.0)
        return _FakeState(state.params + 1 + bad, state.stats + 1), {"loss": state.stats + bad}

    eval_step = train_step


def test_a_step_that_is_not_finite_is_not_applied():
    model, mesh, num = _Fake(), make_mesh(2), 12
    feed = Feed(dataset_of(), 0, BATCH, mesh, num)
    key = jax.random.key(11)
    draws = [jax.random.uniform(jax.random.fold_in(jax.random.key(11), t)) for t in range(num)]
    good = np.array(draws) >= 0.4
    assert 3 < good.sum() < 10
    progress = on_every_device(mesh, start, model.init(jax.random.key(0), {}))
    compiled = compile_steps(model, feed, mesh)
    progress, metrics = compiled(progress, key, feed.chunk(0, num), jnp.int32(num))
    np.testing.assert_array_equal(metrics["applied"], good)
    np.testing.assert_array_equal(progress.state.params, np.full(3, good.sum()))
    assert float(progress.state.stats) == good.sum()
    assert int(progress.step) == num and int(progress.skipped) == (~good).sum()
    assert int(progress.in_a_row) == good[::-1].argmax()


def test_a_state_that_is_not_finite_is_told(random_state):
    inf = Optimizer("adam", float("inf"))
    model = dataclasses.replace(SMALL["vae"], optimizer=inf)
    chunk = contract.feed_of(model, 1).chunk(0, 1)
    for chosen, sound in ((model, False), (SMALL["vae"], True)):
        progress = on_every_device(make_mesh(1), start, random_state(chosen))
        run = contract.resident_steps(chosen, 1)
        _, metrics = run(progress, jax.random.key(0), chunk, jnp.int32(1))
        assert bool(metrics["sound"]) == sound
