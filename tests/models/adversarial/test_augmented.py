"""Games whose discriminator sees augmented images: where they are, and how strong."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tiny import batch_of, some

from jaxgen.errors import UserError
from jaxgen.model import example_keys
from jaxgen.models.adversarial.augmented import EVERY
from jaxgen.models.adversarial.gan import GAN
from jaxgen.nn.augment import augmented
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(4, 4, 1, 5)
SGD = Optimizer("sgd", 0.05, b1=0.0)
PLAIN = GAN(
    SPEC, architecture="mlp", hidden=(5,), latents=2, d_norm="none", g_norm="none",
    g_optimizer=SGD, d_optimizer=SGD,
)  # fmt: skip
ALWAYS = dataclasses.replace(PLAIN, augment="color,translation,cutout")
ADAPTIVE = dataclasses.replace(ALWAYS, augment_target=0.6, augment_move=0.2)


@pytest.mark.parametrize("ways", some(["color", ALWAYS.augment], ["color"]))
def test_step_equals_the_naive_one(ways, random_state):
    """Real and fake are augmented, each example by its key; G's gradient passes through."""
    model = dataclasses.replace(PLAIN, augment=ways)
    state, batch = random_state(model), batch_of(6, SPEC)
    new, _ = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)
    see = lambda d, x: model.discriminator(True).apply({"params": d}, x)  # noqa: E731
    moved = lambda p, g: jax.tree.map(lambda p, g: p - 0.05 * g, p, g)  # noqa: E731

    @jax.jit
    def naive(d, g):
        key_z, key_real, key_fake = jax.random.split(jax.random.key(1), 3)
        x, z = SPEC.to_float(batch["x"]), model.draws(key_z, batch)

        @jax.jit  # compiled once, though called three times
        def altered(key, x):
            keys = example_keys(jax.random.fold_in(key, 2), batch["index"])
            return augmented(keys, x, ways.split(","))

        make = lambda g: model.generator(True).apply({"params": g}, z)  # noqa: E731
        real, fake = altered(key_real, x), altered(jax.random.clone(key_fake), make(g))

        def d_loss(d):
            return (jax.nn.softplus(-see(d, real)) + jax.nn.softplus(see(d, fake))).mean()

        def g_loss(g):
            return jax.nn.softplus(-see(d, altered(key_fake, make(g)))).mean()

        d = moved(d, jax.grad(d_loss)(d))
        return d, moved(g, jax.grad(g_loss)(g))

    d, g = naive(state.d.params, state.g.params)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, (new.d.params, new.g.params), (d, g))


def test_what_is_sampled_and_judged_is_not_augmented(random_state):
    state, batch = random_state(PLAIN), batch_of(6, SPEC)
    for run in (
        lambda model: jax.jit(lambda: model.sample(jax.random.key(2), state, 4))(),
        lambda model: jax.jit(model.eval_step)(jax.random.key(2), state, batch),
    ):
        jax.tree.map(np.testing.assert_array_equal, run(PLAIN), run(ALWAYS))


def test_the_state_is_as_it_was_where_the_strength_is_not_adaptive():
    shapes = [jax.eval_shape(m.init, jax.random.key(0), batch_of(6, SPEC))
              for m in (PLAIN, ALWAYS, ADAPTIVE)]  # fmt: skip
    trees = [jax.tree.structure(s) for s in shapes]
    assert trees[0] == trees[1] != trees[2]
    assert set(shapes[2].d.variables) == {"params", "augment"}


def test_the_strength_moves_as_the_formula_says():
    """p += sign(mean sign - target) / 5 after every four updates, within 0..1."""
    state = jax.jit(ADAPTIVE.init)(jax.random.key(0), batch_of(6, SPEC))
    signs = np.random.default_rng(0).uniform(0.2, 1.0, 80).astype(np.float32)
    signs[:28], p, d = 1.0, 0.0, state.d
    adapted, seen = jax.jit(ADAPTIVE.adapted), []
    for t, sign in enumerate(signs):
        d = adapted(d, {"d_sign": sign})
        if t % EVERY == EVERY - 1:
            mean = signs[t - EVERY + 1 : t + 1].mean()
            p = min(1.0, max(0.0, p + np.sign(mean - 0.6) * 0.2))
        np.testing.assert_allclose(d.variables["augment"]["strength"], p, atol=1e-6)
        seen.append(p)
    assert max(seen) == 1.0 and len(set(np.diff(seen).round(3))) == 3  # up, down, neither


@pytest.mark.slow
def test_the_strength_follows_the_logits_of_a_run():
    """A discriminator that is always right about real images is shown ever more augmented ones;
    one that is always wrong, none."""
    batch, step = batch_of(6, SPEC), jax.jit(ADAPTIVE.train_step)
    first = ADAPTIVE.init(jax.random.key(0), batch)
    for bias, expected in ((9.0, 0.4), (-9.0, 0.0)):
        layers = jax.tree.map(jnp.zeros_like, first.d.params)
        last = max(layers)
        layers = {**layers, last: {**layers[last], "bias": jnp.full((1,), bias)}}
        state = first.replace(d=first.d.replace(variables={**first.d.variables, "params": layers}))
        for t in range(2 * EVERY):
            state, metrics = step(jax.random.key(t), state, batch, t)
            assert metrics["d_sign"] == np.sign(bias)
        np.testing.assert_allclose(state.d.variables["augment"]["strength"], expected, atol=1e-6)


def test_the_variation_within_groups_is_one_more_feature(random_state):
    """A change of one example moves the logits of its group; its features stay its own."""
    for architecture in ("mlp", "dcgan"):
        fields = {} if architecture == "mlp" else {"hidden": GAN.hidden, "filters": 2}
        model = dataclasses.replace(PLAIN, architecture=architecture, deviation_group=2, **fields)
        assert model.multiple == 2
        batch = batch_of(4, SPEC)
        state, x = random_state(model), np.asarray(SPEC.to_float(batch["x"]))
        judge = functools.partial(model.discriminator(False).apply, state.d.variables)
        judge = jax.jit(judge, static_argnames="features")
        see = lambda x, judge=judge, **k: np.asarray(judge(x, **k))  # noqa: E731
        other = x.copy()
        other[0] *= 0.5
        np.testing.assert_array_equal(see(x) != see(other), [True, True, False, False])
        features = see(x, features=True) != see(other, features=True)
        np.testing.assert_array_equal(features.any(1), [True, False, False, False])
        # Three examples are judged as two groups, the last one filled up by the first.
        three = {name: np.asarray(column)[:3] for name, column in batch.items()}
        judged = jax.jit(model.eval_step)(jax.random.key(0), state, three)["d_real"]
        np.testing.assert_allclose(judged, special.expit(see(x[[0, 1, 2, 0]]))[:3], rtol=1e-6)


@pytest.mark.parametrize("fields, told", [
    ({"spec": DataSpec(1, 1, 2, 0, ranges=((-1, 1), (-1, 1)))},
     "`augment`=color,translation,cutout is of images, and x is points"),
    ({"augment_target": 1.0}, r"`augment_target` must lie in \[0, 1\)"),
    ({"augment_target": 0.6, "loss": "wasserstein"}, "reads the sign of D's logits"),
    ({"augment_target": 0.6, "augment_move": 0.0}, r"`augment_move` must lie in \(0, 1\]"),
    ({"deviation_group": 1}, "`deviation_group` must be 0, or at least 2"),
])  # fmt: skip
def test_what_cannot_be_is_refused(fields, told):
    with pytest.raises(UserError, match=told):
        dataclasses.replace(ALWAYS, **fields)
