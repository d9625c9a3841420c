"""The game with two levels of latents: what its players see, and how the levels compose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import batch_of

from jaxgen.errors import UserError
from jaxgen.model import example_keys
from jaxgen.models.adversarial.hali import HALI
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(3, 2, 1, 5)
SGD = Optimizer("sgd", 0.05, b1=0.0)


def model_of(spec=SPEC, **fields):
    return HALI(spec, **{"hidden": (5,), "middle": (4,), "latents": (3, 2), "g_optimizer": SGD,
                         "d_optimizer": SGD, **fields})  # fmt: skip


def _normal_by(params, name):
    """h -> mean and standard deviation, by that layer."""

    def given(h):
        mean, log = jnp.split(h @ params[name]["kernel"] + params[name]["bias"][None], 2, -1)
        return mean, jnp.exp(jnp.clip(log, -7, 3))

    return given


def _layers(params, x, slope):
    for i in range(len(params)):
        [layer] = [v for n, v in params.items() if n.endswith(f"_{i}")]
        h = x @ layer["kernel"] + layer["bias"][None]
        x = jnp.where(h > 0, h, slope * h)
    return x


def by_hand(params):
    """(E1: x -> z1, E2: z1 -> z2, P: z2 -> z1, G: z1 -> x), densities as (mean, std)."""

    def made(z1):
        hidden = {n: v for n, v in params["decoder"].items() if n != "out"}
        h = _layers(hidden, z1, 0.0)
        h = h @ params["decoder"]["out"]["kernel"] + params["decoder"]["out"]["bias"][None]
        return jnp.tanh(h).reshape(-1, *SPEC.shape)

    first, second, prior = (_normal_by(params, n) for n in ("code", "code_above", "prior"))
    return (
        lambda x: first(_layers(params["encoder"], x.reshape(len(x), -1), 0.2)),
        lambda z1: second(_layers(params["up"], z1, 0.2)),
        lambda z2: prior(_layers(params["down"], z2, 0.0)),
        made,
    )


def test_step_equals_the_naive_one(random_state):
    """D sees (x, z1 ~ q(z1 | x), z2 ~ q(z2 | z1)) and (G(z1), z1 ~ p(z1 | z2), z2); the generator
    and the encoder descend on both, at the updated D."""
    model = model_of()
    state, batch = random_state(model), batch_of(6, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)

    def normal(key):
        return jax.vmap(lambda k: jax.random.normal(k, (5,)))(example_keys(key, batch["index"]))

    def shown(params):
        key_z, *_ = jax.random.split(jax.random.key(1), 3)
        x, noise = SPEC.to_float(batch["x"]), normal(jax.random.fold_in(key_z, 1))
        z = normal(key_z)
        e1, e2, prior, make = by_hand(params)
        mean, std = e1(x)
        c1 = mean + std * noise[:, 2:]
        mean, std = e2(c1)
        c2 = mean + std * noise[:, :2]
        mean, std = prior(z[:, :2])
        z1 = mean + std * z[:, 2:]
        return (x, c1, c2), (make(z1), z1, z[:, :2])

    def judge(d, parts):
        x, z1, z2 = parts
        h = jnp.concatenate([x.reshape(6, -1), z1, z2], 1)
        h = h @ d["Dense_0"]["kernel"] + d["Dense_0"]["bias"][None]
        h = jnp.where(h > 0, h, 0.2 * h)
        return h @ d["Dense_1"]["kernel"][:, 0] + d["Dense_1"]["bias"]

    def d_loss(d):
        real, fake = shown(state.g.params)
        return (jax.nn.softplus(-judge(d, real)) + jax.nn.softplus(judge(d, fake))).mean()

    def g_loss(g, d):
        real, fake = shown(g)
        return (jax.nn.softplus(judge(d, real)) + jax.nn.softplus(-judge(d, fake))).mean()

    descend = lambda p, g: jax.tree.map(lambda p, g: p - 0.05 * g, p, g)  # noqa: E731
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731

    @jax.jit
    def naive(d, g):
        d_value, grads = jax.value_and_grad(d_loss)(d)
        d = descend(d, grads)
        g_value, grads = jax.value_and_grad(g_loss)(g, d)
        return {"d_loss": d_value, "g_loss": g_value}, d, descend(g, grads), grads

    losses, d, g, grads = jax.device_get(naive(state.d.params, state.g.params))
    jax.tree.map(close, {name: metrics[name] for name in losses}, losses)
    jax.tree.map(close, (new.d.params, new.g.params), (d, g))
    # Every layer of both players has a part in it.
    largest = {name: max(float(np.abs(g).max()) for g in jax.tree.leaves(layer))
               for name, layer in grads.items()}  # fmt: skip
    assert min(largest.values()) > 1e-4


def test_reconstructions_of_each_level_are_those_composed_by_hand(random_state):
    """From z1: G(E1(x)); from z2: G of the mean of p(z1 | E2(E1(x))), or of a draw of it."""
    model = model_of()
    state, batch = random_state(model), batch_of(6, SPEC)
    noise = np.random.default_rng(3).normal(size=(6, 3)).astype(np.float32)

    @jax.jit
    def composed(params):
        """z1, z2, and x of z1, of the mean of p(z1 | z2), and of a draw of it."""
        e1, e2, prior, make = by_hand(params)
        z1 = e1(SPEC.to_float(batch["x"]))[0]
        z2 = e2(z1)[0]
        mean, std = prior(z2)
        return z1, z2, make(z1), make(mean), make(mean + std * noise)

    z1, z2, of_z1, of_mean, of_draw = jax.device_get(composed(state.ema["params"]))
    decode = jax.jit(lambda z: model.decode(jax.random.key(0), state, z))
    z = np.array(jax.jit(model.encode)(jax.random.key(0), state, batch))
    np.testing.assert_allclose(z[:, :2], z2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(decode(z), of_z1, rtol=1e-4, atol=1e-5)
    z[:, 2:] = 0.0
    np.testing.assert_allclose(decode(z), of_mean, rtol=1e-4, atol=1e-5)
    drawn = decode(np.concatenate([z2, noise], 1))
    np.testing.assert_allclose(drawn, of_draw, rtol=1e-4, atol=1e-5)
    assert np.abs(of_z1 - of_mean).max() > 1e-2
    features = jax.jit(model.embed)(state, batch)
    np.testing.assert_allclose(features, np.concatenate([z1, z2], 1), rtol=1e-4, atol=1e-5)


def test_where_both_joints_agree_the_game_is_worth_minus_log_4():
    """z2 is half of a turned x, z1 both: x = z1 turned, p(z1 | z2) = N((z2, 0), diag(eps, 1)), and
    the encoder turns back, with the same small deviations. The same noise gives the same triples,
    so D at 1/2 has a loss of log 4 and nothing that pulls it away."""
    spec, eps = DataSpec(1, 1, 2, 0), np.exp(-7.0)
    model = model_of(spec, hidden=(), middle=(), latents=(2, 1))
    batch = {"x": np.zeros((5, 1, 1, 2), np.float32), "index": np.arange(5)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    params = state.g.params
    params["decoder"]["out"]["kernel"] = turn
    params["code"]["kernel"][:, :2], params["code"]["bias"][2:] = turn.T, -9.0
    params["prior"]["kernel"][0, 0], params["prior"]["bias"][2] = 1.0, -9.0
    params["code_above"]["kernel"][0, 0], params["code_above"]["bias"][1] = 1.0, -9.0
    g = state.g.replace(variables={"params": jax.tree.map(np.float32, params)})

    @jax.jit
    def shown(g):
        key_z, *_ = jax.random.split(jax.random.key(3), 3)
        x = model.generated(g, model.draws(jax.random.clone(key_z), batch), None)
        made = lambda *a: (model.generator(True).apply(g, *a), {})  # noqa: E731
        return x, model.show(key_z, made, {**batch, "x": x})[0]

    batch["x"], found = shown(g.variables)
    assert [part.shape[-1] for part in found.real] == [2, 2, 1]
    for real, fake in zip(found.real, found.fake, strict=True):
        np.testing.assert_allclose(real, fake, atol=8 * eps)
    state = state.replace(g=g)  # and D is silent
    _, metrics = jax.jit(model.train_step)(jax.random.key(3), state, batch, 0)
    np.testing.assert_allclose(metrics["d_loss"], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(metrics["d_real"], 0.5)
    np.testing.assert_allclose(metrics["d_grad_norm"], 0, atol=8 * eps)


def test_labels_count_at_every_level(random_state):
    spec = DataSpec(5, 4, 3, 4, 3)
    model = model_of(spec, architecture="conv", filters=2)
    state, batch = random_state(model), batch_of(6, spec)
    encode, other = jax.jit(model.encode), {**batch, "label": (np.asarray(batch["label"]) + 1) % 3}
    one, two = (np.asarray(encode(jax.random.key(0), state, b)) for b in (batch, other))
    assert (np.abs(one - two).max(0) > 1e-4).all()
    embed = jax.jit(model.embed)
    np.testing.assert_array_equal(embed(state, batch), embed(state, other))
    decode = jax.jit(lambda z, label: model.decode(jax.random.key(0), state, z, label))
    assert (decode(one, batch["label"]) != decode(one, other["label"])).any()


def test_what_cannot_be_is_refused():
    for fields, told in [
        ({"latents": (3,)}, "`latents` are two numbers"),
        ({"latents": (3, 0)}, "`latents` are two numbers"),
        ({"middle": (0,)}, "`middle` must be positive"),
        ({"hidden": (0,)}, "`hidden`"),
    ]:
        with pytest.raises(UserError, match=told):
            model_of(**fields)
