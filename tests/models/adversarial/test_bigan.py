"""The game with an encoder: what its players see, and what they are pulled to."""

import jax
import jax.numpy as jnp
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
    loss, logits = ADVERSARIAL_LOSSES[name], jnp.linspace(-3, 3, 13)
    mirrored = 1 - logits if name == "least_squares" else -logits
    np.testing.assert_allclose(loss.encoder(logits), loss.generator(mirrored), atol=1e-6)


@pytest.mark.parametrize("encoder", some(["deterministic", "stochastic"], ["stochastic"]))
def test_step_equals_the_naive_one(encoder, random_state):
    """D sees exactly (x, E(x)) and (G(z), z); G and E descend on both, at the updated D."""
    model = model_of(encoder=encoder)
    state, batch = random_state(model), batch_of(6, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)
    key_z, *_ = jax.random.split(jax.random.key(1), 3)
    normal = lambda key: jax.vmap(  # noqa: E731
        lambda k: jax.random.normal(k, (2,))
    )(example_keys(key, batch["index"]))
    z, noise = normal(key_z), normal(jax.random.fold_in(key_z, 1))
    x, players = SPEC.to_float(batch["x"]), model.generator(True)

    def shown(g):
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
    value, grads = jax.jit(jax.value_and_grad(d_loss))(state.d.params)
    np.testing.assert_allclose(metrics["d_loss"], value, rtol=1e-5)
    d = descend(state.d.params, grads)

    def g_loss(g):
        real, fake = shown(g)
        return (jax.nn.softplus(judge(d, real)) + jax.nn.softplus(-judge(d, fake))).mean()

    value, grads = jax.jit(jax.value_and_grad(g_loss))(state.g.params)
    np.testing.assert_allclose(metrics["g_loss"], value, rtol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, new.d.params, d)
    jax.tree.map(close, new.g.params, descend(state.g.params, grads))


def test_where_the_encoder_inverts_the_generator_the_game_is_worth_minus_log_4():
    """Data that are G(z), with E the inverse of G: both pairs have one distribution, so that the
    best D says 1/2 (here, with the same z, whatever D is: the two losses' sum is that of a coin),
    and V = -log 4."""
    spec = DataSpec(1, 1, 2, 0)
    model = model_of(spec, hidden=(), r1=0.0)
    batch = {"x": jnp.zeros((5, 1, 1, 2)), "index": jnp.arange(5)}
    state = jax.jit(model.init)(jax.random.key(0), batch)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    params = jax.tree.map(np.zeros_like, jax.device_get(state.g.params))
    params["decoder"]["out"]["kernel"], params["code"]["kernel"] = turn, turn.T
    g = state.g.replace(variables={"params": jax.tree.map(jnp.float32, params)})
    key_z, *_ = jax.random.split(jax.random.key(3), 3)
    z = model.draws(key_z, batch)
    batch["x"] = model.generated(g.variables, z, None)
    found, _ = model.show(
        key_z, lambda *a: (model.generator(True).apply(g.variables, *a), {}), batch
    )
    for real, fake in zip(found.real, found.fake, strict=True):
        np.testing.assert_allclose(real, fake, atol=1e-6)
    silent = state.d.replace(variables=jax.tree.map(jnp.zeros_like, state.d.variables))
    state = state.replace(g=g, d=silent)
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
    other = {**batch, "label": (batch["label"] + 1) % 3}
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
