"""An optimizer's update: schedules by the clock, decay apart from momentum, averages of all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxgen.optim.net import Net, average, create_state, descend
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import gather_over, train_net
from jaxgen.parallel.mesh import AXIS, SPLIT, data_parallel, make_mesh


def net_of(optimizer, **params):
    return Net({"params": params}, optimizer.make().init(params))


def test_the_learning_rate_follows_the_clock_not_the_number_of_updates():
    """A step that was skipped, as the trainer skips what is not finite, leaves no schedule
    behind."""
    optimizer = Optimizer("sgd", 0.5, b1=0.0, decay_steps=10)
    schedule = optax.cosine_decay_schedule(0.5, 10)
    net, grads = net_of(optimizer, w=jnp.zeros(2)), {"w": jnp.ones(2)}
    for step in (0, 1, 7, 12):  # the steps between were skipped
        moved = descend(optimizer, net, grads, {}, step)
        np.testing.assert_allclose(moved.params["w"] - net.params["w"], -schedule(step), atol=1e-7)
        net = moved
    assert float(optimizer.rate(12)) == 0.0


@pytest.mark.parametrize(("decay", "half"), [("linear", 0.5), ("cosine", 0.5)])
def test_a_rate_is_constant_and_then_falls(decay, half):
    """Linearly (Zhu et al. 2017, arXiv:1703.10593, appendix 7.1), or as half a cosine."""
    rate = Optimizer(learning_rate=0.2, decay_steps=100, constant_steps=50, decay=decay).rate
    assert float(rate(0)) == float(rate(50)) == pytest.approx(0.2)
    assert float(rate(100)) == pytest.approx(0.2 * half)
    assert float(rate(75)) == pytest.approx(0.2 * (0.75 if decay == "linear" else 0.853553))
    assert float(rate(150)) == float(rate(400)) == pytest.approx(0.0, abs=1e-8)


def test_adam_equals_optax():
    optimizer = Optimizer("adam", 0.1, weight_decay=0.01)
    theirs = optax.adamw(0.1, weight_decay=0.01, mask=lambda p: {"m": True, "v": False})
    params = {"m": jnp.ones((2, 2)), "v": jnp.ones(2)}
    net, state = net_of(optimizer, **params), theirs.init(params)
    for step in range(5):
        grads = {"m": jnp.full((2, 2), 0.3 * step - 0.5), "v": jnp.full(2, 0.2)}
        net = descend(optimizer, net, grads, {}, step)
        updates, state = theirs.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name in params:
            np.testing.assert_allclose(net.params[name], params[name], rtol=1e-6)


def test_weight_decay_does_not_pass_through_momentum():
    """With no gradient each step shrinks matrices by rate times decay, and no more."""
    optimizer = Optimizer("sgd", 0.5, b1=0.9, weight_decay=0.2)
    net = net_of(optimizer, m=jnp.ones((2, 2)), v=jnp.ones(2))
    zeros = {"m": jnp.zeros((2, 2)), "v": jnp.zeros(2)}
    for step in range(3):
        net = descend(optimizer, net, zeros, {}, step)
    np.testing.assert_allclose(net.params["m"], 0.9**3, rtol=1e-6)
    np.testing.assert_array_equal(net.params["v"], 1.0)


def test_average_covers_every_collection_and_copies_what_is_no_float():
    old = {"params": {"w": jnp.zeros(2)}, "stats": {"mean": jnp.zeros(2), "count": jnp.int32(1)}}
    new = {"params": {"w": jnp.ones(2)}, "stats": {"mean": jnp.ones(2), "count": jnp.int32(5)}}
    for step, decay in ((0, 0.1), (10_000, 0.9)):  # min(decay, (1 + t) / (10 + t))
        found = average(old, new, 0.9, step)
        np.testing.assert_allclose(found["params"]["w"], 1 - decay, rtol=1e-6)
        np.testing.assert_allclose(found["stats"]["mean"], 1 - decay, rtol=1e-6)
        assert int(found["stats"]["count"]) == 5


@pytest.mark.parametrize("parts", [1, 2])
def test_collections_that_a_loss_changes_are_kept(parts):
    """As BatchNorm's statistics are; those of parts and devices are averaged."""
    optimizer = Optimizer("sgd", 0.1)
    variables = {"params": {"w": jnp.float32(1.0)}, "stats": {"mean": jnp.float32(0.0)}}
    state = create_state(Net(variables, optimizer.make().init(variables["params"])))
    batch = {"x": jnp.arange(4.0)}

    def loss(variables, batch):
        mean = batch["x"].mean()
        return variables["params"]["w"] * mean, ({"loss": mean}, {"stats": {"mean": mean}})

    new, metrics = train_net(optimizer, 0.9, state, loss, batch, 0, None, parts)
    assert float(metrics["loss"]) == float(new.net.variables["stats"]["mean"]) == 1.5
    np.testing.assert_allclose(new.ema["stats"]["mean"], 0.9 * 1.5, rtol=1e-6)


def test_gathered_examples_are_in_the_order_of_their_index():
    x = jnp.arange(8.0).reshape(8, 1)
    gather = data_parallel(lambda x: gather_over(AXIS, x), make_mesh(4), (SPLIT,), PartitionSpec())
    np.testing.assert_array_equal(gather(x), x)
    np.testing.assert_array_equal(jax.jit(lambda x: gather_over(None, x))(x), x)
