"""BatchNorm in training: its statistics move, and evaluation uses their average."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn.norm import Norm
from jaxgen.optim.net import create, create_state
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net
from jaxgen.parallel.mesh import AXIS, SPLIT, WHOLE, data_parallel, make_mesh

SGD = Optimizer("sgd", 0.1, 0.0)


class _Net(nn.Module):
    train: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(Norm("batch", self.train, self.axis_name)(x))[:, 0]


def _step(state, batch, step, axis_name=None):
    def loss(variables, batch):
        network = _Net(True, axis_name)
        y, changed = network.apply(variables, batch["x"], mutable=["batch_stats"])
        value = (y**2).mean()
        return value, ({"loss": value}, changed)

    return train_net(SGD, 0.5, state, loss, batch, step, axis_name)


@pytest.fixture
def start(key):
    x = 3.0 + np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    made = jax.jit(lambda x: create_state(create(_Net(), SGD, key, x)))
    return made(x), {"x": x, "index": np.arange(8)}


def test_statistics_move_and_are_averaged(start):
    state, batch = start
    state = state.replace(
        net=state.net.replace(opt_state=Optimizer("sgd", 0.1, 0.0).make().init({}))
    )
    step = jax.jit(_step)
    new, _ = step(state, batch, 100)
    stats = lambda v: v["batch_stats"]["Norm_0"]["BatchNorm_0"]["mean"]  # noqa: E731
    mean = batch["x"].mean(0)
    np.testing.assert_allclose(stats(new.net.variables), 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats(new.ema), 0.05 * mean, rtol=1e-5)
    for t in range(60):
        new, _ = step(new, batch, 101 + t)
    # What evaluation is given normalizes what training saw.
    np.testing.assert_allclose(stats(new.ema), mean, rtol=1e-2)


def test_statistics_are_those_of_all_devices(start):
    state, batch = start
    state = state.replace(
        net=state.net.replace(opt_state=Optimizer("sgd", 0.1, 0.0).make().init({}))
    )
    one, _ = jax.jit(_step)(state, batch, 100)
    step = lambda state, batch: _step(state, batch, 100, AXIS)  # noqa: E731
    four, _ = data_parallel(step, make_mesh(4), (WHOLE, SPLIT), (WHOLE, WHOLE))(state, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), four, one)


def test_without_a_norm_nothing_changes():
    x = jnp.ones((2, 3))
    assert Norm("none", True, None).init(jax.random.key(0), x) == {}
    np.testing.assert_array_equal(Norm("none", True, None).apply({}, x), x)
