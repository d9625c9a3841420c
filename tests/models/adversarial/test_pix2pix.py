"""pix2pix against a naive step, and its generator trained by the absolute error alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import batch_of, close

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.models.adversarial.cyclegan import CycleGAN
from jaxgen.models.adversarial.pix2pix import Pix2Pix, Pix2PixL1
from jaxgen.optim.optimizer import Optimizer
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.spec import DataSpec
from jaxgen.training.trainer import check

SPEC = DataSpec(4, 4, 1, 5, source=DataSpec(2, 2, 3, 5))
SGD = Optimizer("sgd", 0.05, b1=0.0)
SIZES = {"filters": 2, "halvings": 1}


def game(**fields):
    given = {"d_filters": 2, "d_halvings": 1, "g_optimizer": SGD, "d_optimizer": SGD, "ema": 0.5}
    return Pix2Pix(SPEC, **SIZES, **given | fields)


def moved(params, grads):
    return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)


def test_a_step_is_the_naive_one(random_state):
    model = game(l1=10.0)
    state, batch = random_state(model), batch_of(6, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 50)
    x, source = (np.float32(batch[name]) / 2 - 1 for name in ("x", "source"))
    network = jax.jit(model.network().apply)
    make = lambda g: network({"params": g}, source)  # noqa: E731

    def judge(d, x):
        large = jax.image.resize(source, (6, 4, 4, 3), "linear")
        pair = jnp.concatenate([x, large], -1)
        return model.discriminator(False).apply({"params": d}, pair)

    def d_loss(d):
        real, fake = judge(d, x), judge(d, make(state.g.params))
        return jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean()

    def g_loss(g, d):
        error = jnp.abs(x - make(g)).mean()
        return jax.nn.softplus(-judge(d, make(g))).mean() + 10.0 * error

    @jax.jit
    def naive(d, g):
        d = moved(d, jax.grad(d_loss)(d))
        return d, moved(g, jax.grad(g_loss)(g, d))

    close((new.d.params, new.g.params), naive(state.d.params, state.g.params))
    fake = np.asarray(make(state.g.params))
    error = np.abs(x - fake).mean((1, 2, 3))
    np.testing.assert_allclose(metrics["l1_loss"], 10.0 * error.mean(), rtol=1e-5)
    same = dataclasses.replace(state, ema=state.g.variables)
    found = jax.jit(model.eval_step)(jax.random.key(2), same, batch)
    np.testing.assert_allclose(found["l1"], error, rtol=1e-5)
    made = jax.jit(model.translate)(jax.random.key(3), same, batch["source"])
    np.testing.assert_array_equal(made, np.round(np.clip((fake + 1) * 2, 0, 4)).astype(np.uint8))


@pytest.mark.slow
def test_each_side_leaves_the_other_alone(random_state):
    """To the bit: G's part does not move D, nor D's part G."""
    still = Optimizer("sgd", 0.0, b1=0.0)
    state, batch = random_state(game()), batch_of(6, SPEC)
    for name, other in (("d", "g"), ("g", "d")):
        model = game(**{f"{name}_optimizer": still})
        new, _ = jax.jit(model.train_step)(jax.random.key(1), state, batch, 3)
        rest = getattr(new, name).variables, getattr(state, name).variables
        jax.tree.map(np.testing.assert_array_equal, *rest)
        leaves = (jax.tree.leaves(getattr(s, other).params) for s in (new, state))
        assert any((a != b).any() for a, b in zip(*leaves, strict=True))


def test_the_error_alone_is_plain_regression(random_state):
    model = Pix2PixL1(SPEC, **SIZES, optimizer=SGD, ema=0.5)
    state, batch = random_state(model), batch_of(6, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 50)
    x, source = (np.float32(batch[name]) / 2 - 1 for name in ("x", "source"))

    @jax.jit
    def naive(params):
        loss = lambda p: jnp.abs(x - model.network().apply({"params": p}, source)).mean()  # noqa: E731
        value, grads = jax.value_and_grad(loss)(params)
        return value, moved(params, grads)

    value, expected = naive(state.net.params)
    close(new.net.params, expected)
    np.testing.assert_allclose(metrics["l1"], value, rtol=1e-5)
    # The same network as in the game: its arrays fit.
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    assert shapes(random_state(game()).g.params) == shapes(state.net.params)


@pytest.mark.parametrize("kind", [Pix2Pix, Pix2PixL1])
def test_dropout_is_noise_of_a_translation(kind, random_state):
    """In use, too; each is of its number alone."""
    model = kind(SPEC, **SIZES, dropout=0.5)
    state, source = random_state(model), batch_of(6, SPEC)["source"]
    translate = jax.jit(model.translate)
    draw = lambda seed, source, start=0: np.asarray(  # noqa: E731
        translate(jax.random.key(seed), state, source, start=start)
    )
    whole = draw(1, source)
    np.testing.assert_array_equal(draw(1, np.asarray(source)[2:], 2), whole[2:])
    assert (draw(2, source) != whole).any()
    with pytest.raises(UserError, match="way=back: this model has forth"):
        model.translate(jax.random.key(0), state, source, way="back")


@pytest.mark.parametrize(("output", "learns"), [("linear", True), ("tanh", False)])
def test_a_generator_that_makes_black_alone_still_learns(output, learns, random_state):
    """By default; the papers' tanh does not."""
    assert (Pix2PixL1(SPEC).output == output) == learns
    model = Pix2PixL1(SPEC, **SIZES, optimizer=SGD, output=output)
    state, batch = random_state(model), batch_of(6, SPEC)
    params = dict(state.net.params)
    last = max(name for name in params if name.startswith("Conv_"))
    params[last] = {**params[last], "bias": np.full(SPEC.channels, -30.0, np.float32)}
    net = state.net.having(params)
    black = dataclasses.replace(state, net=dataclasses.replace(state.net, variables=net))
    _, metrics = jax.jit(model.train_step)(jax.random.key(1), black, batch, 0)
    assert (metrics["grad_norm"] > 0.1) == learns
    made = model.translate(jax.random.key(2), dataclasses.replace(black, ema=net), batch["source"])
    assert not np.asarray(made).any()


def test_what_cannot_be_is_told():
    for fields, told in (
        ({"l1": -1.0}, "`l1` must not be negative"),
        ({"d_filters": 0}, "`d_filters` must be positive"),
        ({"d_halvings": 3}, "`d_halvings`=3 halves images of 4x4"),
    ):
        with pytest.raises(UserError, match=told):
            game(**fields)
    with pytest.raises(UserError, match="`halvings`=0 leaves nothing of `architecture`=unet"):
        Pix2PixL1(SPEC, halvings=0)
    assert Pix2PixL1(SPEC, halvings=0, architecture="resnet").network().halvings == 0
    for kind in (Pix2Pix, Pix2PixL1):
        with pytest.raises(UserError, match="these data have no source: give a --pairing"):
            kind(DataSpec(8, 8))
    with pytest.raises(UserError, match="`ema` must lie"):
        Pix2PixL1(SPEC, **SIZES, ema=1.0)


@pytest.mark.parametrize(("kind", "fields", "told"), [
    (Pix2Pix, {}, "each x of the train split beside its own source.*leave --unpaired out"),
    (Pix2PixL1, {}, "leave --unpaired out"), (CycleGAN, {}, None),
])  # fmt: skip
def test_pairs_are_asked_for_where_they_are_needed(kind, fields, told, tmp_path):
    data = load(DataConfig(pairing="invert", unpaired=True))
    run = Run("it", kind(data.spec), DataConfig(), TrainConfig(batch_size=20, devices=1))
    if told is None:
        check(run, data)
        # Two domains that were never paired: there is no truth to choose by.
        apart = {name: data.splits["train"] for name in data.splits}
        data = dataclasses.replace(data, splits=apart)
        with pytest.raises(UserError, match="of the validation split .*: set `chosen_by`=cycle"):
            check(run, data)
        chosen = dataclasses.replace(run, model=dataclasses.replace(run.model, chosen_by="cycle"))
        check(chosen, data)
        return
    with pytest.raises(UserError, match=told):
        check(run, data)
