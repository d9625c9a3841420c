"""How discriminators take labels: their logits, and what the players are pulled to, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, batch_of, some

from jaxgen.errors import UserError
from jaxgen.model import example_keys
from jaxgen.models.adversarial.bigan import BiGAN
from jaxgen.models.adversarial.gan import GAN
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(5, 4, 1, 5, 3)
SGD = Optimizer("sgd", 0.05, b1=0.0)
PLAIN = {"d_norm": "none", "g_norm": "none", "g_optimizer": SGD, "d_optimizer": SGD}


def gan(architecture="mlp", **fields):
    size = {"hidden": (6,)} if architecture == "mlp" else {"filters": 2}
    return GAN(SPEC, architecture=architecture, latents=2, **{**PLAIN, **size, **fields})


@pytest.mark.parametrize("architecture", some(["mlp", "dcgan"], ["mlp"]))
def test_projection_adds_the_inner_product_with_the_label_s_embedding(architecture, random_state):
    """To the logit that the same discriminator without labels gives."""
    model = gan(architecture, condition_by="projection")
    state, batch = random_state(model), batch_of(6, SPEC)
    x, network = SPEC.to_float(np.asarray(batch["x"])), model.discriminator(False)
    params = dict(state.d.params)
    embedding = params.pop("Dense_2" if architecture == "mlp" else "Dense_1")
    assert embedding.keys() == {"kernel"}
    bare = network.clone(num_classes=0)

    @jax.jit
    def seen(variables, params):
        both = [bare.apply({"params": params}, x, features=f) for f in (False, True)]
        return network.apply(variables, x, batch["label"]), *both

    found, logits, features = jax.device_get(seen(state.d.variables, params))
    inner = (np.asarray(embedding["kernel"])[batch["label"]] * features).sum(1)
    np.testing.assert_allclose(found, logits + inner, rtol=1e-5, atol=1e-6)
    assert np.abs(inner).min() > 1e-3


def test_projection_of_pairs_is_of_the_last_joint_features(random_state):
    model = BiGAN(SPEC, hidden=(4,), latents=2, condition_by="projection")
    params = jax.device_get(random_state(model).d.params)
    batch, rng = batch_of(6, SPEC), np.random.default_rng(0)
    x = np.asarray(SPEC.to_float(batch["x"]))
    z = rng.normal(size=(6, 2)).astype(np.float32)
    joint = np.concatenate([x.reshape(6, -1), z], 1)
    h = joint @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    h = np.where(h > 0, h, 0.2 * h)
    embedded = np.asarray(params["Dense_2"]["kernel"])[batch["label"]]
    logit = h @ params["Dense_1"]["kernel"][:, 0] + params["Dense_1"]["bias"]
    see = jax.jit(model.discriminator(False).apply)
    found = see({"params": params}, (x, z), batch["label"])
    np.testing.assert_allclose(found, logit + (embedded * h).sum(1), rtol=1e-4, atol=1e-5)


def test_the_classes_of_an_auxiliary_head_count_for_both_players(random_state):
    """D descends on the cross-entropy of real and generated labels, G on that of its own at the
    updated D, beside the game's losses; the label is not seen."""
    model = gan(condition_by="auxiliary")
    state, batch = random_state(model), batch_of(8, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)

    def make(g):
        key_z, *_ = jax.random.split(jax.random.key(1), 3)
        normal = jax.vmap(lambda k: jax.random.normal(k, (2,)))
        z = normal(example_keys(key_z, batch["index"]))
        return model.generator(True).apply({"params": g}, z, batch["label"])

    def see(d, x):
        h = x.reshape(8, -1) @ d["Dense_0"]["kernel"] + d["Dense_0"]["bias"][None]
        h = jnp.where(h > 0, h, 0.2 * h)
        logit = h @ d["Dense_1"]["kernel"][:, 0] + d["Dense_1"]["bias"]
        p = jnp.exp(h @ d["Dense_2"]["kernel"] + d["Dense_2"]["bias"][None])
        of_label = jnp.take_along_axis(p, batch["label"][:, None], 1)[:, 0] / p.sum(1)
        return logit, -jnp.log(of_label).mean()

    def d_loss(d):
        x = SPEC.to_float(batch["x"])
        (real, told), (fake, guessed) = see(d, x), see(d, make(state.g.params))
        value = jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()
        return value + told + guessed, (told, guessed)

    def g_loss(g, d):
        logit, told = see(d, make(g))
        return jax.nn.softplus(-logit).mean() + told

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    descend = lambda p, g: jax.tree.map(lambda p, g: p - 0.05 * g, p, g)  # noqa: E731

    @jax.jit
    def naive(d, g):
        grads, both = jax.grad(d_loss, has_aux=True)(d)
        d = descend(d, grads)
        value, grads = jax.value_and_grad(g_loss)(g, d)
        return (*both, value), d, descend(g, grads)

    measured, d, g = naive(state.d.params, state.g.params)
    close([metrics[name] for name in ("class_real", "class_fake", "g_loss")], measured)
    jax.tree.map(close, (new.d.params, new.g.params), (d, g))
    other = {**batch, "label": (np.asarray(batch["label"]) + 1) % 3}
    judged = [jax.jit(model.eval_step)(jax.random.key(0), state, b)["d_real"]
              for b in (batch, other)]  # fmt: skip
    np.testing.assert_array_equal(*judged)


@pytest.mark.parametrize("by, told", [("concat", False), ("projection", True)])
def test_projection_tells_apart_what_only_the_label_does(by, told, random_state):
    """Real points are +1/2 in class 0 and -1/2 in class 1, generated ones the other way round: x
    alone says nothing, and no logit that is linear in x and the label (as there are no hidden
    layers here) tells one from the other."""
    spec = DataSpec(1, 1, 1, 0, 2)
    still, fast = Optimizer("sgd", 0.0, b1=0.0), Optimizer("sgd", 1.0, b1=0.0)
    model = GAN(spec, hidden=(), latents=1, condition_by=by,
                **{**PLAIN, "g_optimizer": still, "d_optimizer": fast})  # fmt: skip
    state = jax.tree.map(np.zeros_like, jax.device_get(random_state(model)))
    layer = {"kernel": np.float32([[0.0], [-0.5], [0.5]]), "bias": np.zeros(1, np.float32)}
    state = state.replace(g=state.g.replace(variables={"params": {"Dense_0": layer}}))
    label = np.arange(8) % 2
    x = np.where(label == 0, 0.5, -0.5)[:, None, None, None].astype(np.float32)
    batch = {"x": x, "label": label, "index": np.arange(8)}
    step = jax.jit(lambda t, s: model.train_step(jax.random.key(0), s, batch, t))
    for t in range(60):
        state, metrics = step(t, state)
    if told:
        assert metrics["d_real"] > 0.9 > 0.1 > metrics["d_fake"]
    else:
        np.testing.assert_allclose(metrics["d_loss"], np.log(4), atol=1e-5)


@pytest.mark.parametrize("name", some(["gan", "progan", "stylegan2"], []))
@pytest.mark.parametrize("by", ["concat", "projection", "auxiliary"])
def test_every_way_trains(name, by, random_state):
    """The label moves both players, whichever way D takes it."""
    model = dataclasses.replace(TINY[name], condition_by=by)
    state, batch = random_state(model), batch_of(8, model.spec)
    other = {**batch, "label": (batch["label"] + 1) % 3}
    step = jax.jit(lambda b: model.train_step(jax.random.key(0), state, b, 3))
    (one, metrics), (two, _) = step(batch), step(other)
    assert all(np.isfinite(value) for value in metrics.values())
    for a, b in ((one.g.params, two.g.params), (one.d.params, two.d.params)):
        apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), a, b)
        assert max(jax.tree.leaves(apart)) > 1e-6
    assert ("class_real" in metrics) == (by == "auxiliary")


def test_what_cannot_be_is_refused():
    for name, by, told in [
        ("bigan", "auxiliary", "the encoder.* set `condition_by`=concat or projection"),
        ("pix2pix", "projection", "judges patches: set `condition_by`=concat"),
    ]:
        with pytest.raises(UserError, match=told):
            dataclasses.replace(TINY[name], condition_by=by)
    with pytest.raises(UserError, match="`condition_by`=projection has no effect without --cond"):
        GAN(DataSpec(4, 4), condition_by="projection")
    with pytest.raises(UserError, match="have labels of their own"):
        gan(condition_by="projection", pack=2)
