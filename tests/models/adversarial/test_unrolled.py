"""Unrolled games: the generator's gradient through the discriminator's next updates, by hand."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import TINY, batch_of, some

from jaxgen.errors import UserError
from jaxgen.model import example_keys
from jaxgen.models.adversarial.bigan import BiGAN
from jaxgen.models.adversarial.gan import GAN
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(1, 1, 3, 0)
SGD = Optimizer("sgd", 0.3, b1=0.0)


def gan(**fields):
    return GAN(SPEC, hidden=(4,), latents=2, g_norm="none", d_norm="none",
               **{"g_optimizer": SGD, "d_optimizer": SGD, **fields})  # fmt: skip


@pytest.mark.parametrize("updates", some(["alternating", "simultaneous"], ["alternating"]))
def test_two_updates_ahead_are_those_by_hand(updates, random_state):
    """G descends on its loss at D after two more steps, as a function of G through these; D itself
    is that of the step without them."""
    model = gan(unrolled=2, updates=updates)
    state, batch = random_state(model), batch_of(6, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)
    see = lambda d, x: model.discriminator(True).apply({"params": d}, x)  # noqa: E731
    moved = lambda p, g: jax.tree.map(lambda p, g: p - 0.3 * g, p, g)  # noqa: E731
    softplus = jax.nn.softplus

    def d_loss(d, fake):
        return softplus(-see(d, batch["x"])).mean() + softplus(see(d, fake)).mean()

    @jax.jit
    def naive(d, g):
        """D, the loss of G and its slopes, and these without the way through D's updates."""
        key_z, *_ = jax.random.split(jax.random.key(1), 3)
        z = jax.vmap(lambda k: jax.random.normal(k, (2,)))(example_keys(key_z, batch["index"]))
        make = lambda g: model.generator(True).apply({"params": g}, z)  # noqa: E731
        first = moved(d, jax.grad(d_loss)(d, make(g)))
        judge = first if updates == "alternating" else d

        def g_loss(g, follow):
            d, fake = judge, make(g)
            for _ in range(2):
                d = moved(d, jax.grad(d_loss)(d, fake))
            return softplus(-see(d if follow else jax.lax.stop_gradient(d), fake)).mean()

        value, grads = jax.value_and_grad(lambda g: g_loss(g, True))(g)
        return first, value, grads, jax.grad(lambda g: g_loss(g, False))(g)

    first, value, grads, blind = jax.device_get(naive(state.d.params, state.g.params))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    close(metrics["g_loss"], value)
    jax.tree.map(close, new.g.params, moved(jax.device_get(state.g.params), grads))
    jax.tree.map(close, new.d.params, first)
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), grads, blind)
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_a_linear_game_in_closed_form():
    """Least squares with G(z) = theta and D(x) = psi x + b at b = 0, real data at 1, updates at
    once. D's loss is 1/2 (b + psi - 1)^2 + 1/2 (b + psi theta)^2; one step ahead, b = -h (psi - 1 +
    psi theta) and psi' = psi - h (psi - 1 + psi theta^2). G sees D(theta) = b + psi' theta, whose
    slope in theta is psi' - h psi - 2 h psi theta^2: without the way through D, psi' alone."""
    h, theta, psi = 0.3, 0.4, 0.5
    model = GAN(
        DataSpec(1, 1, 1, 0), hidden=(), latents=1, g_norm="none", d_norm="none", unrolled=1,
        loss="least_squares", updates="simultaneous", g_optimizer=SGD, d_optimizer=SGD,
    )  # fmt: skip
    batch = {"x": np.ones((4, 1, 1, 1), np.float32), "index": np.arange(4)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    layer = {"Dense_0": {"kernel": np.zeros((1, 1), "f4"), "bias": np.float32([theta])}}
    judge = {"Dense_0": {"kernel": np.float32([[psi]]), "bias": np.zeros(1, "f4")}}
    state = state.replace(g=state.g.replace(variables={"params": layer}),
                          d=state.d.replace(variables={"params": judge}))  # fmt: skip
    new, metrics = jax.jit(model.train_step)(jax.random.key(0), state, batch, 0)
    ahead = psi - h * (psi - 1 + psi * theta**2)
    judged = ahead * theta - h * (psi - 1 + psi * theta)
    np.testing.assert_allclose(metrics["g_loss"], (judged - 1) ** 2 / 2, rtol=1e-5)
    expected = theta - h * (judged - 1) * (ahead - h * psi - 2 * h * psi * theta**2)
    np.testing.assert_allclose(new.g.params["Dense_0"]["bias"], [expected], rtol=1e-5)


def test_adam_s_root_turns_nothing_into_nan(random_state):
    """Where parameters of D have no gradient: behind a first layer of zeros."""
    model = gan(unrolled=2, d_optimizer=Optimizer())
    state, batch = jax.device_get(random_state(model)), batch_of(6, SPEC)
    state = state.replace(d=jax.tree.map(np.zeros_like, state.d))
    new, metrics = jax.jit(model.train_step)(jax.random.key(0), state, batch, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new, metrics)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bigan", "pix2pix", "progan", "stylegan2"])
def test_every_game_looks_ahead(name, random_state):
    """With the same D as without, and another G."""
    plain = TINY[name]
    state, batch = random_state(plain), batch_of(8, plain.spec)
    (one, _), (two, metrics) = (
        jax.jit(model.train_step)(jax.random.key(0), state, batch, 3)
        for model in (plain, dataclasses.replace(plain, unrolled=2))
    )
    assert all(np.isfinite(value) for value in metrics.values())
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, one.d.params, two.d.params)
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one.g.params, two.g.params)
    assert max(jax.tree.leaves(apart)) > 1e-6


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="`unrolled`.* must not be negative"):
        BiGAN(SPEC, unrolled=-1)
