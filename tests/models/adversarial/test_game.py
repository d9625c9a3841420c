"""What every two-player game shares, shown by one of pairs: D sees an image beside its source."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tiny import some

from jaxgen.models.adversarial.base import Game
from jaxgen.models.adversarial.shown import Shown
from jaxgen.models.adversarial.state import GameState
from jaxgen.optim.net import create
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(2, 2, 1, 5, source=DataSpec(2, 2, 3, 5))
SGD = Optimizer("sgd", 0.05, b1=0.0)


class _Translator(nn.Module):
    """A source to x; counts its passes in a collection of its own."""

    @nn.compact
    def __call__(self, source):
        passes = self.variable("passes", "count", lambda: jnp.zeros(()))
        if self.is_mutable_collection("passes") and not self.is_initializing():
            passes.value += 1
        return jnp.tanh(nn.Dense(1)(source))


class _Patches(nn.Module):
    """A pair to a logit for every pixel."""

    @nn.compact
    def __call__(self, pair, label=None):
        return nn.Dense(1)(jnp.tanh(nn.Dense(4)(jnp.concatenate(pair, -1))))[..., 0]


@dataclass(frozen=True)
class _Pairs(Game):
    """The smallest game that is not one of latents."""

    def check(self):
        pass

    def init(self, key, batch):
        source, x = self.spec.source.to_float(batch["source"]), self.spec.to_float(batch["x"])
        g = create(_Translator(), self.g_optimizer, key, source)
        d = create(_Patches(), self.d_optimizer, key, (x, source))
        return GameState(g, d, g.variables)

    def generator(self, train, axis_name=None):
        return _Translator()

    def discriminator(self, train, axis_name=None):
        return _Patches()

    def show(self, key, g, batch):
        x, source = self.spec.to_float(batch["x"]), self.spec.source.to_float(batch["source"])
        fake, changed = g(source)
        return Shown((x, source), (fake, source), {"l1": 3 * jnp.abs(x - fake).mean()}), changed


def _batch(num):
    rng = np.random.default_rng(0)
    return {
        "x": rng.integers(5, size=(num, 2, 2, 1)).astype(np.uint8),
        "source": rng.integers(5, size=(num, 2, 2, 3)).astype(np.uint8),
        "index": np.arange(num),
    }


@pytest.mark.parametrize("r1", some([0.0, 0.7], [0.7]))
def test_step_equals_the_naive_one(r1, random_state):
    model = _Pairs(SPEC, r1=r1, ema=0.5, g_optimizer=SGD, d_optimizer=SGD)
    state, batch = random_state(model), _batch(6)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 50)
    x, source = (np.float32(batch[name]) / 2 - 1 for name in ("x", "source"))
    see = lambda d, x: _Patches().apply({"params": d}, (x, source))  # noqa: E731
    make = lambda g: _Translator().apply({**state.g.variables, "params": g}, source)  # noqa: E731
    softplus = jax.nn.softplus

    def d_loss(d):
        fake = make(state.g.params)
        value = softplus(-see(d, x)).mean() + softplus(see(d, fake)).mean()
        both = lambda x, s: _Patches().apply({"params": d}, (x, s)).sum()  # noqa: E731
        slopes = jax.grad(both, (0, 1))(x, source)
        return value + r1 / 2 * sum((s**2).sum() for s in slopes) / 6

    def g_loss(g, d):
        l1 = 3 * jnp.abs(x - make(g)).mean()
        return softplus(-see(d, make(g))).mean() + l1, l1

    moved = lambda p, g: jax.tree.map(lambda p, g: p - 0.05 * g, p, g)  # noqa: E731

    @jax.jit
    def naive(d, g):
        d = moved(d, jax.grad(d_loss)(d))
        measured, grads = jax.value_and_grad(g_loss, has_aux=True)(g, d)
        return measured, d, moved(g, grads)

    (loss, l1), d, g = naive(state.d.params, state.g.params)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, (new.d.params, new.g.params), (d, g))
    close(metrics["g_loss"], loss)
    close(metrics["l1"], l1)
    assert ("r1" in metrics) == (r1 > 0)
    # One pass of G in training; its average holds that collection too.
    count = state.g.variables["passes"]["count"]
    close(new.g.variables["passes"]["count"], count + 1)
    average = 0.5 * state.ema["passes"]["count"] + 0.5 * (count + 1)
    close(new.ema["passes"]["count"], average)


def test_evaluation_averages_over_patches(random_state):
    model = _Pairs(SPEC)
    state, batch = random_state(model), _batch(6)
    found = jax.jit(model.eval_step)(jax.random.key(0), state, batch)
    x, source = (np.float32(batch[name]) / 2 - 1 for name in ("x", "source"))
    logits = jax.jit(_Patches().apply)(state.d.variables, (x, source))
    np.testing.assert_allclose(found["d_real"], special.expit(logits).mean((1, 2)), rtol=1e-5)


def test_instance_noise_is_of_each_thing_shown(random_state):
    """Noise on one of the pair alone would tell real from fake where the other is the same."""
    quiet, noisy = _Pairs(SPEC, d_optimizer=SGD), _Pairs(SPEC, d_optimizer=SGD, instance_noise=0.5)
    state, batch = random_state(quiet), _batch(6)
    kernel = lambda s: np.asarray(s.d.params["Dense_0"]["kernel"])  # noqa: E731
    step = lambda model: jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)[0]  # noqa: E731
    difference = np.abs(kernel(step(noisy)) - kernel(step(quiet)))
    assert (difference.max(1) > 1e-5).all()  # the gradient of every input of D
