"""What every latent-variable model shares, shown by a small one, and the pieces of inspection."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Bounds, Embeds, Encodes, Generates
from jaxgen.distributions.normal import kl_standard_normal, normal_like, normal_log_prob
from jaxgen.model import example_keys
from jaxgen.models.latent.base import LatentVariable
from jaxgen.models.latent.draws import Draw, Terms
from jaxgen.nn.norm import Norm
from jaxgen.optim.net import apply_in
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(1, 1, 3, 0)


class _Net(nn.Module):
    """A posterior of unit variance, behind BatchNorm, and a linear mean of x."""

    train: bool = False
    axis_name: str | None = None

    def setup(self):
        self.norm = Norm("batch", self.train, self.axis_name)
        self.to_z, self.to_x = nn.Dense(2), nn.Dense(3)

    def encode(self, x):
        return self.to_z(self.norm(x.reshape(len(x), -1)))

    def decode(self, z):
        return self.to_x(z)[:, None, None]

    def __call__(self, x, label=None):
        return self.decode(self.encode(x))


@dataclass(frozen=True)
class _Linear(LatentVariable):
    """The smallest model: its hooks are all that it has."""

    def check(self):
        pass

    @property
    def groups(self):
        return (2,)

    @property
    def network(self):
        return _Net()

    def infer(self, key, variables, batch, training=None):
        network, changed = _Net(), {}
        if training is not None:
            network = _Net(True, training.axis_name)
            settings = {"method": "encode", "mutable": ["batch_stats"]}
            mean, changed = apply_in(self.precision, network, variables, batch["x"], **settings)
        else:
            mean = network.apply(variables, batch["x"], method="encode")
        return Draw(mean + normal_like(key, batch["index"], (2,)), mean, changed)

    def score(self, variables, draw, batch, training=None):
        z, mean = draw.z, draw.q
        x = _Net().apply(variables, z, method="decode")
        log_px = normal_log_prob(batch["x"], x, 0.0).sum((1, 2, 3))
        ratio = normal_log_prob(z, 0.0, 0.0) - normal_log_prob(z, mean, 0.0)
        return Terms(log_px, kl_standard_normal(mean, jnp.zeros_like(mean)), ratio.sum(-1))

    def posterior_mean(self, variables, batch):
        return self.network.apply(variables, batch["x"], method="encode")

    def decode(self, key, state, z, label=None, start=0):
        return self.network.apply(state.ema, z, method="decode")

    def sample_x(self, keys, variables, z, label, temperature):
        x = self.network.apply(variables, z, method="decode")
        return x + temperature * jax.vmap(lambda k: jax.random.normal(k, SPEC.shape))(keys)


def _batch(num=6, shift=0.0):
    x = np.random.default_rng(0).normal(size=(num, *SPEC.shape)) * 2 + shift
    return {"x": x.astype(np.float32), "index": np.arange(num)}


def _model(**fields):
    return _Linear(SPEC, ema=0.5, optimizer=Optimizer("sgd", 1e-2, 0.0), **fields)


def test_a_model_of_hooks_alone_has_every_ability(random_state):
    model, batch = _model(), _batch()
    state = random_state(model)
    for ability in (Bounds, Embeds, Encodes, Generates):
        assert isinstance(model, ability)
    mean = jax.jit(model.posterior_mean)(state.ema, batch)
    encode, embed = jax.jit(model.encode), jax.jit(model.embed)
    np.testing.assert_array_equal(encode(jax.random.key(0), state, batch), mean)
    np.testing.assert_array_equal(embed(state, batch), mean)

    # One draw: the weight is the ELBO with its KL drawn instead of in closed form.
    def terms_of(key):
        return model.score(state.ema, model.infer(key, state.ema, batch), batch)

    @jax.jit
    @jax.vmap
    def drawn(key):
        return model.log_weight(jax.random.clone(key), state, batch), terms_of(key)

    num = 4000
    weight, terms = jax.device_get(drawn(jax.random.split(jax.random.key(2), num)))
    np.testing.assert_allclose(weight, terms.log_px + terms.log_ratio)
    gap = weight + terms.kl.sum(-1) - terms.log_px
    assert (np.abs(gap.mean(0)) < 5 * gap.std(0) / num**0.5).all()


def test_statistics_move_in_training_and_evaluation_uses_their_average(random_state):
    model, batch = _model(), _batch(shift=5.0)
    state = random_state(model)
    new, _ = jax.jit(model.train_step)(jax.random.key(0), state, batch, 100)
    state, new = jax.device_get((state, new))
    x = batch["x"].reshape(6, 3)
    old = state.net.variables["batch_stats"]["norm"]["BatchNorm_0"]["mean"]
    moved = 0.9 * old + 0.1 * x.mean(0)
    now = new.net.variables["batch_stats"]["norm"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(now, moved, rtol=1e-5)
    ema = jax.tree.map(lambda e, v: 0.5 * e + 0.5 * v, state.ema, new.net.variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), new.ema, ema)
    # Nothing but the average enters an evaluation.
    evaluate = jax.jit(model.eval_step)
    other = new.replace(net=state.net)
    for name, value in evaluate(jax.random.key(1), new, batch).items():
        np.testing.assert_array_equal(evaluate(jax.random.key(1), other, batch)[name], value)


def test_latents_and_dropout_share_no_noise(random_state, monkeypatch):
    """Each example has a key for each, and all of them differ."""
    model, batch, seen = _model(), _batch(), []
    infer = _Linear.infer

    def watched(self, key, variables, batch, training=None):
        latent = example_keys(jax.random.clone(key), batch["index"])
        both = jax.random.key_data(latent), jax.random.key_data(training.keys)
        jax.debug.callback(lambda *keys: seen.extend(np.concatenate(keys).tolist()), *both)
        return infer(self, key, variables, batch, training)

    monkeypatch.setattr(_Linear, "infer", watched)
    step = jax.jit(lambda *given: model.train_step(*given))  # a function that is not yet compiled
    jax.block_until_ready(step(jax.random.key(0), random_state(model), batch, 0))
    jax.effects_barrier()
    assert len(seen) == len(set(map(tuple, seen))) == 12


def test_warmup_follows_the_clock(random_state):
    batch, key = _batch(), jax.random.key(0)
    state = random_state(_model())
    step = lambda at, **fields: jax.jit(_model(**fields).train_step)(key, state, batch, at)  # noqa: E731
    for at, beta in ((0, 0.2), (4, 1.0), (50, 2.0)):
        warm, _ = step(at, beta=2.0, warmup=10)
        flat, _ = step(at, beta=beta)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), warm.net, flat.net
        )


def test_the_average_decays_by_the_clock(random_state):
    model, batch = _model(), _batch()
    state = random_state(model)
    new, _ = jax.jit(model.train_step)(jax.random.key(0), state, batch, 2)  # 3 / 12 < 0.5
    state, new = jax.device_get((state, new))
    ema = jax.tree.map(lambda e, v: 0.25 * e + 0.75 * v, state.ema, new.net.variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), new.ema, ema)


def test_inspection_of_a_model(random_state):
    model, batch = _model(), _batch()
    state = random_state(model)
    shown = jax.jit(model.inspect)(jax.random.key(0), state, batch)
    assert int(shown.numbers["latents"]) == 2
    mean = np.asarray(jax.jit(model.posterior_mean)(state.ema, batch), np.float64)
    kl = (0.5 * mean**2).mean(0)  # of unit variance
    np.testing.assert_allclose(shown.heatmaps["KL of each latent (nats)"][0, 0, 0], kl, rtol=1e-5)
