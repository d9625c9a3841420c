"""The game with an encoder: what its players see, and what they are pulled to."""

import jax
import numpy as np
import pytest
from tiny import batch_of, some

from jaxgen.errors import UserError
from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES
from jaxgen.model import example_keys
from jaxgen.models.adversarial.bigan import BiGAN
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(3, 2, 1, 5)
SGD = Optimizer("sgd", 0.05, b1=0.0)


def model_of(spec=SPEC, **fields):
    return BiGAN(spec, **{"hidden": (5,), "latents": 2, "g_optimizer": SGD, "d_optimizer": SGD,
                          **fields})  # fmt: skip


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_an_encoder_s_loss_is_the_generator_s_with_real_and_fake_exchanged(name):
    """At the middle between real and fake, 1/2 for least squares and 0 for the others, both pull
    as strongly, and in opposite directions."""
    loss, logits = ADVERSARIAL_LOSSES[name], np.linspace(-3, 3, 13, dtype=np.float32)
    mirrored = 1 - logits if name == "least_squares" else -logits
    np.testing.assert_allclose(loss.encoder(logits), loss.generator(mirrored), atol=1e-6)


@pytest.mark.parametrize("encoder", some(["deterministic", "stochastic"], ["stochastic"]))
def test_step_equals_the_naive_one(encoder, random_state):
    """D sees exactly (x, E(x)) and (G(z), z); G and E descend on both, at the updated D."""
    model = model_of(encoder=encoder)
    state, batch = random_state(model), batch_of(6, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)
    players = model.generator(True)

    def normal(key):
        return jax.vmap(lambda k: jax.random.normal(k, (2,)))(example_keys(key, batch["index"]))

    def shown(g):
        key_z, *_ = jax.random.split(jax.random.key(1), 3)
        x, noise = SPEC.to_float(batch["x"]), normal(jax.random.fold_in(key_z, 1))
        z = normal(key_z)
        apply = lambda *a, method: players.apply({"params": g}, *a, method=method)  # noqa: E731
        mean, std = apply(x, None, method="encode")
        code = mean + std * noise if encoder == "stochastic" else mean
        return (x, code), (apply(z, None, method="generate"), z)

    def judge(d, pair):
        return model.discriminator(True).apply({"params": d}, pair)

    def d_loss(d):
        real, fake = shown(state.g.params)
        return (jax.nn.softplus(-judge(d, real)) + jax.nn.softplus(judge(d, fake))).mean()

    descend = lambda p, g: jax.tree.map(lambda p, g: p - 0.05 * g, p, g)  # noqa: E731

    def g_loss(g, d):
        real, fake = shown(g)
        return (jax.nn.softplus(judge(d, real)) + jax.nn.softplus(-judge(d, fake))).mean()

    @jax.jit
    def naive(d, g):
        d_value, grads = jax.value_and_grad(d_loss)(d)
        d = descend(d, grads)
        g_value, grads = jax.value_and_grad(g_loss)(g, d)
        return d_value, g_value, d, descend(g, grads)

    d_value, g_value, d, g = naive(state.d.params, state.g.params)
    np.testing.assert_allclose(metrics["d_loss"], d_value, rtol=1e-5)
    np.testing.assert_allclose(metrics["g_loss"], g_value, rtol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, (new.d.params, new.g.params), (d, g))


def test_where_the_encoder_inverts_the_generator_the_game_is_worth_minus_log_4():
    """Data that are G(z), with E the inverse of G: both pairs have one distribution, so that the
    best D says 1/2 (here, with the same z, whatever D is: the two losses' sum is that of a coin),
    and V = -log 4."""
    spec = DataSpec(1, 1, 2, 0)
    model = model_of(spec, hidden=(), r1=0.0)
    batch = {"x": np.zeros((5, 1, 1, 2), np.float32), "index": np.arange(5)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    params = state.g.params
    params["decoder"]["out"]["kernel"], params["code"]["kernel"] = turn, turn.T
    g = state.g.replace(variables={"params": jax.tree.map(np.float32, params)})

    @jax.jit
    def shown(g):
        key_z, *_ = jax.random.split(jax.random.key(3), 3)
        x = model.generated(g, model.draws(jax.random.clone(key_z), batch), None)
        made = lambda *a: (model.generator(True).apply(g, *a), {})  # noqa: E731
        return x, model.show(key_z, made, {**batch, "x": x})[0]

    batch["x"], found = shown(g.variables)
    for real, fake in zip(found.real, found.fake, strict=True):
        np.testing.assert_allclose(real, fake, atol=1e-6)
    state = state.replace(g=g)  # and D is silent
    _, metrics = jax.jit(model.train_step)(jax.random.key(3), state, batch, 0)
    np.testing.assert_allclose(metrics["d_loss"], np.log(4), rtol=1e-6)
    # Nothing pulls D away from 1/2.
    np.testing.assert_allclose(metrics["d_grad_norm"], 0, atol=1e-6)


@pytest.mark.parametrize("spec", [DataSpec(5, 4, 3, 4, 3)], ids=["odd, labelled"])
def test_codes_decode_and_labels_count(spec, random_state):
    model = model_of(spec, architecture="conv", filters=2, encoder="stochastic")
    state, batch = random_state(model), batch_of(6, spec)
    encode = jax.jit(model.encode)
    z = encode(jax.random.key(0), state, batch)
    assert z.shape == (6, 2) and len(np.unique(z[:, 0])) == 6
    np.testing.assert_array_equal(z, encode(jax.random.key(7), state, batch))  # the mean, no draw
    other = {**batch, "label": (np.asarray(batch["label"]) + 1) % 3}
    assert (encode(jax.random.key(0), state, other) != z).any()
    embed = jax.jit(model.embed)
    np.testing.assert_array_equal(embed(state, batch), embed(state, other))
    x = jax.jit(model.decode)(jax.random.key(0), state, z, batch["label"])
    assert x.shape == (6, *spec.shape) and np.abs(x).max() <= 1


def test_what_cannot_be_is_refused():
    for fields, told in [
        ({"latents": 0}, "`latents`"), ({"hidden": (0,)}, "`hidden`"), ({"ema": 1.0}, "`ema`"),
        ({"filters": 8}, "`filters`=8 has no effect without `architecture`=conv"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=told):
            model_of(**fields)
