"""What every game can be given: penalties now and then, packing, spectral normalization."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tiny import TINY, batch_of, close, some

from jaxgen.errors import UserError
from jaxgen.model import example_keys
from jaxgen.models.adversarial.gan import GAN
from jaxgen.models.adversarial.shown import Shown, packed, variety
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(3, 2, 1, 5)
SGD = Optimizer("sgd", 0.05, b1=0.0)


def gan(spec=SPEC, **fields):
    small = {
        "architecture": "mlp",
        "hidden": (5,),
        "latents": 2,
        "d_norm": "none",
        "g_norm": "none",
    }
    return GAN(spec, **{**small, "g_optimizer": SGD, "d_optimizer": SGD, **fields})


def moved(model, state, step=0):
    """What one step does to the discriminator's parameters, and its metrics."""
    batch = batch_of(8 * model.minibatches, model.spec)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, step)
    new, old = jax.device_get((new.d.params, state.d.params))
    return jax.tree.map(lambda a, b: a - b, new, old), metrics


@pytest.mark.parametrize("penalty", some(["r1", "slope_penalty"], []))
def test_a_lazy_penalty_counts_as_often_in_its_steps_and_not_in_the_others(penalty, random_state):
    """Every third step: that with three times the weight; else that without; and over the three the
    measured mean is right."""
    name = {"r1": "r1", "slope_penalty": "slope"}[penalty]
    lazy = gan(**{penalty: 0.4}, penalty_every=3)
    state = random_state(lazy)
    for step, weight in ((0, 1.2), (1, 0.0), (3, 1.2), (5, 0.0)):
        got, metrics = moved(lazy, state, step)
        expected, plain = moved(gan(**{penalty: weight}), state, step)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, expected)
        measured = 3 * plain[name] if weight else 0.0
        np.testing.assert_allclose(metrics[name], measured, rtol=1e-5)


def test_a_lazy_penalty_is_not_computed_in_the_other_steps_of_several_seeds():
    """Under vmap over seeds, whose clock is one, the choice stays a branch."""
    model = gan(r1=1.0, penalty_every=4)
    batch = batch_of(8, SPEC)
    state = jax.eval_shape(model.init, jax.random.key(0), batch)
    states = jax.tree.map(lambda s: jnp.zeros((2, *s.shape), s.dtype), state)
    seeds = jax.vmap(lambda s, step: model.train_step(jax.random.key(0), s, batch, step), (0, None))
    jaxpr = str(jax.make_jaxpr(seeds)(states, jnp.int32(3)))
    assert " cond[" in jaxpr


def test_the_slope_penalty_is_the_one_of_the_paper(random_state):
    """Against the step without it, and the penalty's gradient by hand, with the share of the way
    from (key, index)."""
    model = gan(loss="wasserstein", slope_penalty=2.0)
    state, batch = random_state(model), batch_of(8, SPEC)
    got, metrics = moved(model, state)
    plain, _ = moved(gan(loss="wasserstein"), state)

    @jax.jit
    def by_hand(params):
        key_z, key_real, _ = jax.random.split(jax.random.key(1), 3)
        z = jax.vmap(lambda k: jax.random.normal(k, (2,)))(example_keys(key_z, batch["index"]))
        fake = model.generator(True).apply(state.g.variables, z)
        keys = example_keys(jax.random.fold_in(key_real, 1), batch["index"])
        share = jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
        between = share * SPEC.to_float(batch["x"]) + (1 - share) * fake

        def penalty(params):
            one = lambda x: model.discriminator(True).apply({"params": params}, x[None])[0]  # noqa: E731
            slopes = jax.vmap(jax.grad(one))(between)
            return ((jnp.sqrt((slopes**2).sum((1, 2, 3))) - 1) ** 2).mean()

        return jax.value_and_grad(penalty)(params)

    value, grads = jax.device_get(by_hand(state.d.params))
    np.testing.assert_allclose(metrics["slope"], value, rtol=1e-4)
    expected = jax.tree.map(lambda p, g: p - 0.05 * 2.0 * g, plain, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)
    assert jax.tree.reduce(max, jax.tree.map(lambda g: float(np.abs(g).max()), grads)) > 0.01


def test_packed_examples_lie_side_by_side():
    x, z = np.arange(2 * 3 * 4 * 5 * 2).reshape(6, 4, 5, 2), np.arange(18).reshape(6, 3)
    both = jax.device_get(jax.jit(lambda *shown: packed(shown, 3))(x, z))
    assert both[0].shape == (2, 4, 5, 6) and both[1].shape == (2, 9)
    for pack in range(2):
        for place in range(3):
            np.testing.assert_array_equal(both[0][pack, ..., 2 * place : 2 * place + 2],
                                          x[3 * pack + place])  # fmt: skip
            np.testing.assert_array_equal(both[1][pack, 3 * place : 3 * place + 3],
                                          z[3 * pack + place])  # fmt: skip
    assert packed(x, 1) is x


def test_a_packing_discriminator_judges_several_together(random_state):
    """Its loss is over packs; the pull on G is that of the pack; evaluation is one per example."""
    model = gan(pack=2)
    state, batch = random_state(model), batch_of(8, SPEC)
    judge = jax.jit(model.discriminator(False).apply)
    d = lambda x: np.asarray(judge(state.d.variables, x))  # noqa: E731
    first = state.d.params["Dense_0"]["kernel"]
    assert first.shape[0] == 2 * SPEC.dims and model.multiple == 2
    _, metrics = moved(model, state)
    x = np.asarray(SPEC.to_float(batch["x"]))
    pairs = [np.concatenate([x[i], x[i + 1]], -1) for i in range(0, 8, 2)]
    logits = d(np.stack(pairs))
    np.testing.assert_allclose(d(packed(x, 2)), logits, rtol=1e-6)
    assert logits.shape == (4,)
    np.testing.assert_allclose(metrics["d_real"], special.expit(logits).mean(), rtol=1e-5)
    evaluated = jax.jit(model.eval_step)(jax.random.key(0), state, batch)
    for logit, prob in (("d_logit", "d_real"), ("d_logit_fake", "d_fake")):
        np.testing.assert_allclose(special.expit(evaluated[logit]), evaluated[prob], rtol=1e-5)
    np.testing.assert_allclose(evaluated["d_real"], special.expit(logits).repeat(2), rtol=1e-5)
    odd = {name: np.asarray(value)[:3] for name, value in batch.items()}
    last = np.asarray(jax.jit(model.eval_step)(jax.random.key(0), state, odd)["d_real"])[2]
    pair = np.concatenate([x[2], x[0]], -1)
    expected = special.expit(d(np.stack([pair] * 4)))[0]
    np.testing.assert_allclose(last, expected, rtol=1e-5)
    labelled = DataSpec(3, 2, 1, 5, 3)
    with pytest.raises(UserError, match="judges examples together, which have labels"):
        gan(labelled, pack=2)


@pytest.mark.parametrize("architecture", some(["mlp", "dcgan"], ["mlp"]))
def test_spectral_normalization_reaches_the_largest_singular_value(architecture, random_state):
    """After many training passes every kernel is divided by it (by SciPy's SVD); a judging pass
    moves nothing, nor does the generator's step."""
    spec = DataSpec(5, 4, 1, 5)
    fields = {"hidden": (7, 6)} if architecture == "mlp" else {"hidden": GAN.hidden, "filters": 3}
    model = gan(spec, architecture=architecture, d_norm="spectral", **fields)
    state, x = random_state(model), batch_of(4, spec)["x"]
    x = spec.to_float(x)
    network = model.discriminator(train=True)

    @jax.jit
    def passed(variables):
        step = lambda i, v: {**v, **network.apply(v, x, mutable=["spectral"])[1]}  # noqa: E731
        return jax.lax.fori_loop(0, 300, step, variables)

    variables = passed(state.d.variables)
    kernels = {
        jax.tree_util.keystr(path): np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1])
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if leaf.ndim > 1
    }
    sigmas = [
        float(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["spectral"])
        if leaf.ndim == 0
    ]
    largest = [np.linalg.svd(kernel)[1][0] for kernel in kernels.values()]
    assert len(sigmas) == len(largest) >= 2
    np.testing.assert_allclose(sorted(sigmas), sorted(largest), rtol=1e-3)
    # What it computes is what a network of the divided kernels does.
    judge = jax.jit(model.discriminator(train=False).apply)
    judged, x = np.asarray(judge(variables, x)), np.asarray(x)
    if architecture == "mlp":
        assert (
            np.abs(judged - judged.mean()).max() <= np.linalg.norm(x.reshape(4, -1), axis=1).max()
        )
    again = judge(variables, x)
    np.testing.assert_array_equal(judged, again)


def test_spectral_vectors_move_once_a_discriminator_step(random_state):
    """With two of these in a step, twice; and as the passes over real examples say."""
    model = gan(d_norm="spectral", d_steps=2, hidden=(5, 4))
    state, batch = random_state(model), batch_of(16, SPEC)
    frozen = gan(
        d_norm="spectral", d_steps=2, hidden=(5, 4), d_optimizer=Optimizer("sgd", 0.0, b1=0.0)
    )
    new, _ = jax.jit(frozen.train_step)(jax.random.key(0), state, batch, 0)
    network, variables = model.discriminator(train=True), state.d.variables
    see = jax.jit(functools.partial(network.apply, mutable=["spectral"]))
    x = SPEC.to_float(np.asarray(batch["x"])[:8])  # power iteration does not look at x
    for _ in range(2):
        variables = {**variables, **see(variables, x)[1]}
    close(new.d.variables["spectral"], variables["spectral"])
    one = jax.tree.map(lambda a, b: float(np.abs(a - b).max()),
                       new.d.variables["spectral"], state.d.variables["spectral"])  # fmt: skip
    assert max(jax.tree.leaves(one)) > 1e-3


def test_what_cannot_be_is_refused():
    for fields, told in [
        ({"slope_penalty": 1.0, "d_norm": "batch"}, "`slope_penalty` takes the gradient example"),
        ({"slope_penalty": -1.0}, "must not be negative"),
        ({"penalty_every": 0}, "`penalty_every` and `pack` must be at least 1"),
        ({"pack": 0}, "`penalty_every` and `pack` must be at least 1"),
        ({"label_smoothing": 1.0}, "`label_smoothing` must lie in"),
        ({"label_smoothing": 0.1, "loss": "hinge"}, "`label_smoothing`=0.1 has no effect without"),
        ({"penalty_every": 2}, "`penalty_every`=2 has no effect without `r1` or `slope_penalty`"),
    ]:
        with pytest.raises(UserError, match=told):
            gan(**fields)


def test_presets_are_the_games_of_their_papers():
    kinds = {name: TINY[name] for name in ("gan2014", "lsgan", "wgan", "sngan")}
    assert kinds["lsgan"].loss == "least_squares" and kinds["sngan"].loss == "hinge"
    assert kinds["wgan"].loss == "wasserstein" and kinds["wgan"].slope_penalty > 0
    assert kinds["sngan"].d_norm == "spectral" and not kinds["gan2014"].convolutional


def test_variety_is_the_ratio_of_standard_deviations():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(64, 3, 2, 1)), 0.4 * rng.normal(size=(64, 3, 2, 1)) + 5.0
    varied = jax.jit(lambda shown: variety(shown, None))
    shown = Shown((real, np.zeros((64, 2))), (fake, np.ones((64, 2))))
    expected = (fake.var(0).mean() / real.var(0).mean()) ** 0.5
    np.testing.assert_allclose(varied(shown), expected, rtol=1e-4)
    assert varied(Shown(real, np.ones_like(real))) == 0


def test_trouble_is_told_and_balance_is_not():
    model, critic = gan(), gan(loss="wasserstein", slope_penalty=1.0)
    fine = {"variety": 0.9, "d_real": 0.7, "d_fake": 0.3}
    assert model.verdict(fine) is None and model.verdict({}) is None
    told = model.verdict({**fine, "variety": 0.05})
    assert "vary 0.05 times as much as real ones" in told and "collapsed" in told
    won = {"variety": 0.9, "d_real": 0.98, "d_fake": 0.02}
    assert "nearly always tells real (0.98)" in model.verdict(won)
    assert critic.verdict(won) is None
    assert model.verdict({**fine, "variety": float("nan")}) is None


def test_a_discriminator_that_remembers_is_told_of():
    """By how far validation images are from training ones, on the way to generated ones."""
    for model in (gan(), gan(loss="wasserstein", slope_penalty=1.0)):
        fine = {"variety": 0.9, "d_real": 0.7, "d_fake": 0.3, "d_logit_fake": -2.0}
        told = model.verdict({**fine, "d_logit": -1.0, "d_gap": -4.0})
        assert "remembers the training images" in told and "are 80% of the way" in told
        assert model.verdict({**fine, "d_logit": 2.0, "d_gap": -1.0}) is None
        # Between players that are equal, a small difference is most of the way, and chance.
        assert model.verdict({**fine, "d_logit": -2.0, "d_gap": -0.5}) is None
        assert model.verdict({**fine, "d_logit": -2.0, "d_gap": 3.0}) is None
    assert gan().compared == {"d_logit": "d_gap"} and "d_gap" in gan().metrics


def test_a_generator_that_draws_one_image_is_found_out_in_training(random_state):
    """With its weights at zero it can draw no other: the step's own metric says so."""
    model = gan()
    state = random_state(model)
    silent = jax.tree.map(jnp.zeros_like, state.g.variables)
    state = state.replace(g=state.g.replace(variables=silent))
    _, metrics = moved(model, state)
    assert metrics["variety"] == 0 and "collapsed" in model.verdict(metrics)
