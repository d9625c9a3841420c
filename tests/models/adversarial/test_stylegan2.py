"""StyleGAN2: its convolutions, its penalty and its step, against naive ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tiny import TINY, batch_of, close, some

from jaxgen.errors import UserError
from jaxgen.losses.penalties import path_lengths
from jaxgen.model import Request, example_keys
from jaxgen.models.adversarial.stylegan2 import FOLLOWED, StyleGAN2
from jaxgen.nn.style import bilinear, demodulation, halved, modulated_conv, style_sizes
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(8, 8, 1, 5, num_classes=3)
SGD = Optimizer("sgd", 0.05, b1=0.0)


def model_of(spec=SPEC, **fields):
    small = {"latents": 3, "styles": 4, "mapping": 1, "filters": 2, "deviation_group": 2}
    return StyleGAN2(spec, **{**small, "g_optimizer": SGD, "d_optimizer": SGD, **fields})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_modulated_convolution_is_one_of_each_example_s_weights():
    """Equations 1 to 3, example by example, in float64."""
    x, kernel, style = normal(3, 5, 4, 6), normal(3, 3, 6, 2, seed=1), normal(3, 6, seed=2)
    got, factors = jax.device_get(
        jax.jit(lambda x, k, s: (modulated_conv(x, k, s), demodulation(k, s)))(x, kernel, style)
    )
    x, kernel, style = (np.asarray(a, np.float64) for a in (x, kernel, style))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for b in range(3):
        w = kernel * style[b][None, None, :, None]
        w = w / np.sqrt((w**2).sum((0, 1, 2)) + 1e-8)
        np.testing.assert_allclose((w**2).sum((0, 1, 2)), 1.0, rtol=1e-6)
        mine = kernel * style[b][None, None, :, None] * factors[b]
        np.testing.assert_allclose(mine, w, rtol=1e-5, atol=1e-6)
        for i in range(5):
            for j in range(4):
                window = padded[b, i : i + 3, j : j + 3]
                expected = np.einsum("hwi,hwio->o", window, w)
                np.testing.assert_allclose(got[b, i, j], expected, rtol=1e-4, atol=1e-5)


def test_path_lengths_of_a_linear_map():
    """x = A w: J^T y is A^T y, whatever w is."""
    a, w, y = normal(6, 3), normal(4, 3, seed=1), normal(4, 2, 3, 1, seed=2)
    lengths = jax.jit(lambda w: path_lengths(lambda w: (w @ a.T).reshape(4, 2, 3, 1), w, y))
    got = lengths(w)
    expected = np.linalg.norm(np.asarray(y, np.float64).reshape(4, 6) @ np.asarray(a), axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    still = lambda w: path_lengths(lambda w: 0 * w, w, np.ones((4, 3), np.float32)).sum()  # noqa: E731
    flat = jax.jit(jax.grad(still))(w)
    assert np.isfinite(flat).all()


def test_maps_are_doubled_and_halved():
    x = normal(2, 3, 4, 2)
    twice = x.repeat(2, 1).repeat(2, 2)

    @jax.jit
    def resized(x):
        expected = jax.image.resize(x, (2, 6, 8, 2), "bilinear")
        return bilinear(x), expected, bilinear(jnp.ones((1, 4, 4, 1))), halved(twice)

    doubled, expected, ones, half = resized(x)
    np.testing.assert_allclose(doubled, expected, atol=1e-5)
    np.testing.assert_allclose(ones, 1.0, rtol=1e-6)
    np.testing.assert_allclose(half, x, rtol=1e-6)


@pytest.mark.parametrize(
    "side, sizes",
    [
        (4, [4]),
        (7, [7]),
        (8, [4, 8]),
        (28, [7, 14, 28]),
        (32, [4, 8, 16, 32]),
        (40, [5, 10, 20, 40]),
    ],
)
def test_sizes_halve_to_4_to_7(side, sizes):
    assert style_sizes(side, side) == [(n, n) for n in sizes]
    assert style_sizes(side, 3 * side) == [(n, 3 * n) for n in sizes]


def naive_path(model, g, key, batch, mean):
    """(penalty, mean of lengths), with the Jacobian of each example in full."""
    key_z, key_y, key_noise = (jax.random.fold_in(key, i) for i in (4, 5, 6))
    each = lambda key, shape: jax.vmap(lambda k: jax.random.normal(k, shape))(  # noqa: E731
        example_keys(key, batch["index"])
    )
    z, y = each(key_z, (model.latents,)), each(key_y, SPEC.shape) / 8.0
    noise, network = example_keys(key_noise, batch["index"]), model.generator(False)
    lengths = []
    for i in range(len(z)):
        one = slice(i, i + 1)
        w = network.apply(g, z[one], batch["label"][one], method="styled")
        draw = lambda w, one=one: network.apply(g, w, noise[one], method="draw")  # noqa: E731
        jacobian = jax.jacrev(draw)(w)[0, ..., 0, :]
        pulled = (jacobian * y[i][..., None]).sum((0, 1, 2))
        lengths.append(jnp.linalg.norm(pulled))
    lengths = jnp.stack(lengths)
    return ((lengths - mean) ** 2).mean(), lengths.mean()


@pytest.mark.parametrize("step", some([0, 1], []))
def test_the_generator_s_step_equals_the_naive_one(step, random_state):
    """Mixed styles, a judge that compares pairs, and, every other step, the penalty twice."""
    model = model_of(path_length=0.3, path_every=2, mixing=0.5)
    state, batch = random_state(model), batch_of(2, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, step)
    key_z, *_ = jax.random.split(jax.random.key(1), 3)
    other, chance, noise = (jax.random.fold_in(key_z, i) for i in (1, 2, 3))
    index, label, network = batch["index"], batch["label"], model.generator(False)
    z, z2 = (
        jax.vmap(lambda k: jax.random.normal(k, (3,)))(example_keys(key, index))
        for key in (key_z, other)
    )
    choices = [jax.random.split(key) for key in example_keys(chance, index)]
    crossings = [
        int(jax.random.randint(b, (), 1, 4)) if jax.random.uniform(a) < 0.5 else 4
        for a, b in choices
    ]
    noise = example_keys(noise, index)
    judge = model.discriminator(True)
    mean = state.g.variables["path"]["mean"]

    def loss(params):
        g = {**state.g.variables, "params": params}
        fake = []
        for i, crossing in enumerate(crossings):
            one, w = slice(i, i + 1), []
            for latents in (z, z2):
                w.append(network.apply(g, latents[one], label[one], method="styled"))
            given = (w[0], noise[one], w[1], jnp.array([crossing]))
            fake.append(network.apply(g, *given, method="draw"))
        logits = judge.apply(new.d.variables, jnp.concatenate(fake), label)
        value, lengths = jax.nn.softplus(-logits).mean(), mean
        if step % 2 == 0:
            penalty, lengths = naive_path(model, g, key_z, batch, mean)
            value = value + 2 * 0.3 * penalty
        return value, lengths

    (value, lengths), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.g.params)
    np.testing.assert_allclose(metrics["g_loss"], value, rtol=1e-4)
    assert (metrics["path_penalty"] == 0) == (step == 1)
    moved = mean + FOLLOWED * (lengths - mean)
    np.testing.assert_allclose(new.g.variables["path"]["mean"], moved, rtol=1e-4)
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, state.g.params, grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), new.g.params, expected
    )
    w = network.apply(state.g.variables, z, label, method="styled")
    tracked = 0.995 * state.g.variables["style"]["w_mean"] + 0.005 * w.mean(0)
    np.testing.assert_allclose(new.g.variables["style"]["w_mean"], tracked, rtol=1e-5)


def test_temperature_is_truncation(random_state):
    """At 0 every sample has the mean style, and only the noise differs; at 1 they are G(z)."""
    model = model_of()
    state = random_state(model)
    network = model.generator(False)
    sample = jax.jit(model.sample, static_argnums=2)

    def draw(temperature, key=0):
        return sample(jax.random.key(key), state, 6, Request(None, temperature, 0))

    @jax.jit
    def by_hand(ema):
        keys = example_keys(jax.random.fold_in(jax.random.key(0), 1), jnp.arange(6))
        mean = jnp.tile(ema["style"]["w_mean"][None], (6, 1))
        cold = network.apply(ema, mean, keys, method="draw")
        z = jax.vmap(lambda k: jax.random.normal(k, (3,)))(
            example_keys(jax.random.key(0), jnp.arange(6))
        )
        plain = network.apply(ema, z, jnp.arange(6) % 3, jax.random.clone(keys))
        return SPEC.from_float(cold), SPEC.from_float(plain)

    cold, plain = by_hand(state.ema)
    np.testing.assert_array_equal(draw(0.0), cold)
    np.testing.assert_array_equal(draw(1.0), plain)
    quiet = dataclasses.replace(model, noise=False)
    same = np.asarray(
        jax.jit(quiet.sample, static_argnums=2)(jax.random.key(0), state, 6, Request(None, 0.0, 0))
    )
    np.testing.assert_array_equal(same, same[:1].repeat(6, 0))


def test_noise_is_each_example_s_own(random_state):
    """Of any chunk, the same; of another key or number, another; without the strength, none."""
    model = model_of()
    state, z = random_state(model), np.ones((6, 3), np.float32)
    run = jax.jit(model.decode)
    decode = lambda *given: np.asarray(run(*given))  # noqa: E731
    label = np.zeros(6, np.int32)
    whole = decode(jax.random.key(0), state, z, label, 0)
    parts = [decode(jax.random.key(0), state, z[i : i + 3], label[:3], i) for i in (0, 3)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    assert len(np.unique(whole.reshape(6, -1), axis=0)) == 6
    assert np.abs(whole).max() == 1.0, "what lies beyond the levels is cut off"
    assert (decode(jax.random.key(1), state, z, label, 0) != whole).any((1, 2, 3)).all()
    ema = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if "strength" in jax.tree_util.keystr(path) else x,
        jax.device_get(state.ema),
    )
    silent = decode(jax.random.key(0), state.replace(ema=ema), z, label, 0)
    np.testing.assert_array_equal(silent, silent[:1].repeat(6, 0))


@pytest.mark.slow
def test_the_penalty_is_not_computed_in_the_other_steps_of_several_seeds():
    """Under vmap over seeds, whose clock is one, both choices stay branches."""
    model = model_of(path_length=1.0, path_every=4)
    batch = batch_of(4, SPEC)
    state = jax.eval_shape(model.init, jax.random.key(0), batch)
    states = jax.tree.map(lambda s: jnp.zeros((2, *s.shape), s.dtype), state)
    seeds = jax.vmap(lambda s, step: model.train_step(jax.random.key(0), s, batch, step), (0, None))
    assert str(jax.make_jaxpr(seeds)(states, jnp.int32(3))).count(" cond[") >= 2


def test_features_and_judgements_of_any_number(random_state):
    """Features are each example's own, and tell no label; an odd number is judged in full pairs."""
    model = TINY["stylegan2"]
    state, batch = random_state(model), batch_of(5, model.spec)
    embed = jax.jit(model.embed)
    batch = jax.device_get(batch)
    whole = np.asarray(embed(state, batch))
    first = {name: x[:2] for name, x in batch.items()}
    close(whole[:2], embed(state, first))
    judged = np.asarray(jax.jit(model.eval_step)(jax.random.key(0), state, batch)["d_real"])
    x, label, pair = np.float32(batch["x"]) / 2 - 1, batch["label"], [4, 0]
    logits = jax.jit(model.discriminator(False).apply)(state.d.variables, x[pair], label[pair])
    np.testing.assert_allclose(judged[4], special.expit(logits)[0], rtol=1e-4)
    assert judged.shape == (5,) and model.multiple == 2


def test_what_cannot_be_is_refused():
    for spec, told in [
        (DataSpec(30, 30), "30x30 cannot be halved so: .* --size=28 or --size=32"),
        (DataSpec(3, 3), "--size=4"), (DataSpec(1, 1, 2, 0), "--size=4"),
        (DataSpec(16, 18), "--size=16 or --size=20"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=told):
            StyleGAN2(spec)
    for fields, told in [
        ({"styles": 0}, "`styles`"), ({"mixing": 1.5}, "`mixing` must lie in"),
        ({"path_length": -1.0}, "`path_length` must not be negative"),
        ({"deviation_group": 1}, "`deviation_group`"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=told):
            model_of(**fields)
