"""GAN: every step against a naive one, and a discriminator trained to its known optimum."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy import special
from tiny import some

from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.adversarial.gan import GAN
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SGD = Optimizer("sgd", 0.05, b1=0.0)


def _model(spec=None, **fields):
    small = {"architecture": "mlp", "latents": 3, "g_optimizer": SGD, "d_optimizer": SGD, **fields}
    sizes = {"hidden": (8, 8)} if small["architecture"] == "mlp" else {"filters": 4}
    return GAN(spec or DataSpec(4, 4, 1, 5), **{**sizes, **small})


def _batch(spec, num, seed=0):
    rng = np.random.default_rng(seed)
    batch = {
        "x": jax.device_put(rng.integers(spec.levels, size=(num, *spec.shape)).astype(np.uint8)),
        "index": np.arange(num),
    }
    if spec.num_classes:
        batch["label"] = jax.device_put(rng.integers(spec.num_classes, size=num))
    return batch


def _close(a, b, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), a, b)


def _same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _loss(name):
    """(D on real, D on fake, G) of the papers, from probabilities' logs."""
    log_d, log_not_d = jax.nn.log_sigmoid, lambda x: jax.nn.log_sigmoid(-x)
    return {
        "minimax": (lambda x: -log_d(x), lambda x: -log_not_d(x), log_not_d),
        "nonsaturating": (lambda x: -log_d(x), lambda x: -log_not_d(x), lambda x: -log_d(x)),
        "least_squares": (
            lambda x: (x - 1) ** 2 / 2,
            lambda x: x**2 / 2,
            lambda x: (x - 1) ** 2 / 2,
        ),
        "hinge": (lambda x: jnp.maximum(0, 1 - x), lambda x: jnp.maximum(0, 1 + x), lambda x: -x),
    }[name]


def _stats(net):
    return net.variables.get("batch_stats", {})


def _naive_step(m, key, state, batch, step):
    """The step as the papers write it: nothing shared, G run anew wherever it is needed."""
    key_z, key_real, key_fake = jax.random.split(key, 3)
    on_real, on_fake, for_g = _loss(m.loss)
    sigma = m.instance_noise
    if m.noise_steps:
        sigma = sigma * jnp.clip(1 - step / m.noise_steps, 0, 1)

    def normal(key, index, shape):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return jax.vmap(lambda k: jax.random.normal(k, shape))(keys)

    def run(module, params, stats, x, label):
        variables = {"params": params, "batch_stats": stats}
        return module(train=True).apply(variables, x, label, mutable=["batch_stats"])

    def see(d_params, d_stats, x, key, part):
        x = x + sigma * normal(key, part["index"], m.spec.shape)
        return run(m.discriminator, d_params, d_stats, x, part.get("label"))

    def fake(g_params, part):
        z = normal(key_z, part["index"], (m.latents,))
        return run(m.generator, g_params, _stats(state.g), z, part.get("label"))

    d_params, d_stats = state.d.params, _stats(state.d)
    for i in range(m.d_steps):
        part = {name: value[i :: m.d_steps] for name, value in batch.items()}
        real = m.spec.to_float(part["x"])

        def d_loss(p, part=part, real=real, stats=d_stats):
            logits, new = see(p, stats, real, key_real, part)
            fakes, _ = see(p, stats, fake(state.g.params, part)[0], key_fake, part)
            value = on_real(logits).mean() + on_fake(fakes).mean()
            if m.r1:
                noisy = real + sigma * normal(key_real, part["index"], m.spec.shape)
                label = part.get("label")

                def one(x, label):
                    label = None if label is None else label[None]
                    return run(m.discriminator, p, stats, x[None], label)[0][0]

                axes = (0, None if label is None else 0)
                each = jax.vmap(jax.grad(one), axes)(noisy, label)
                value += m.r1 / 2 * jnp.sum(each**2) / len(noisy)
            return value, new.get("batch_stats", {})

        before = (d_params, d_stats)
        grads, d_stats = jax.grad(d_loss, has_aux=True)(d_params)
        d_params = jax.tree.map(lambda p, g: p - 0.05 * g, d_params, grads)

    judge = (d_params, d_stats) if m.updates == "alternating" else before

    def g_loss(p):
        x, new = fake(p, part)
        return for_g(see(*judge, x, key_fake, part)[0]).mean(), new.get("batch_stats", {})

    grads, g_stats = jax.grad(g_loss, has_aux=True)(state.g.params)
    g_params = jax.tree.map(lambda p, g: p - 0.05 * g, state.g.params, grads)
    return (g_params, g_stats), (d_params, d_stats)


STEPS = {
    "dcgan": {"architecture": "dcgan", "loss": "nonsaturating"},
    "old judge": {"architecture": "dcgan", "updates": "simultaneous", "loss": "hinge"},
    "r1, noise, two d steps": {
        "loss": "minimax", "d_norm": "none", "r1": 2.0, "d_steps": 2, "instance_noise": 0.3,
        "noise_steps": 8, "spec": DataSpec(4, 4, 1, 5, 3)},
    "three d steps with statistics": {
        "loss": "least_squares", "d_steps": 3, "updates": "simultaneous", "output": "linear",
        "g_norm": "none"},
}  # fmt: skip
QUICK_STEPS = ["r1, noise, two d steps"]


@pytest.mark.parametrize("name", some(STEPS, QUICK_STEPS))
def test_step_equals_the_naive_one(name, random_state):
    model = _model(**STEPS[name])
    state = random_state(model)
    batch = _batch(model.spec, 4 * model.d_steps)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 2)
    new, state = jax.device_get((new, state))
    g, d = jax.jit(lambda key: _naive_step(model, key, state, batch, 2))(jax.random.key(1))
    _close((new.g.params, _stats(new.g)), g)
    _close((new.d.params, _stats(new.d)), d)
    # Both players, and their statistics, have moved by more than the tolerance.
    for net, old in ((new.g, state.g), (new.d, state.d)):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), net.params, old.params)
        assert max(jax.tree.leaves(moved)) > 1e-4
    # The average, BatchNorm statistics included: decay min(0.999, 3/12) at step 2.
    _close(new.ema, jax.tree.map(lambda e, v: 0.25 * e + 0.75 * v, state.ema, new.g.variables))
    assert ("batch_stats" in new.ema) == (model.g_norm == "batch")
    assert model.metrics.keys() >= metrics.keys() - {"g_grad_norm", "d_grad_norm"}
    assert all(np.isfinite(v) for v in metrics.values())


@pytest.mark.parametrize("frozen, other", [("g", "d"), ("d", "g")])
def test_frozen_player_is_untouched(frozen, other, random_state):
    model = _model(hidden=(6,), **{f"{frozen}_optimizer": Optimizer("sgd", 0.0, b1=0.0)})
    state = random_state(model)
    batch = _batch(model.spec, 6)
    new, _ = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)
    _same(getattr(new, frozen).params, getattr(state, frozen).params)
    for old, moved in zip(jax.tree.leaves(getattr(state, other).params),
                          jax.tree.leaves(getattr(new, other).params), strict=True):  # fmt: skip
        assert (old != moved).any()


def test_instance_noise_falls_linearly_to_nothing(random_state):
    batch = _batch(DataSpec(4, 4, 1, 5), 6)

    def stepping(**fields):
        model = _model(hidden=(6,), g_norm="none", d_norm="none", **fields)
        state, step = random_state(model), jax.jit(model.train_step)
        return lambda at: jax.device_get(step(jax.random.key(1), state, batch, at)[0].d.params)

    annealing = stepping(instance_noise=0.4, noise_steps=8)
    annealed = {at: annealing(at) for at in (0, 2, 8, 80)}
    _close(annealed[2], stepping(instance_noise=0.3)(2))
    clean = stepping()(0)
    _close(annealed[8], clean)
    _close(annealed[80], clean)
    gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), annealed[0], clean)
    assert max(jax.tree.leaves(gap)) > 1e-4


def test_average_is_warmed_up_and_then_decays(random_state):
    model = _model(hidden=(6,), ema=0.6)
    state, batch = random_state(model), _batch(DataSpec(4, 4, 1, 5), 6)
    step = jax.jit(model.train_step)
    expected = jax.device_get(state.ema)
    for t in range(12):
        state = jax.device_get(step(jax.random.key(t), state, batch, t)[0])
        decay = min(0.6, (1 + t) / (10 + t))
        mix = lambda e, v, d=decay: d * e + (1 - d) * v  # noqa: E731
        expected = jax.tree.map(mix, expected, state.g.variables)
    assert (1 + 11) / (10 + 11) < 0.6 < (1 + 14) / (10 + 14)
    _close(state.ema, expected, atol=1e-5)


@pytest.mark.parametrize("architecture", some(["mlp", "dcgan"], ["dcgan"]))
def test_evaluation_and_samples_use_the_average(architecture, random_state):
    model = _model(DataSpec(5, 4, 2, 17, 3), architecture=architecture)
    state = random_state(model)
    state = jax.device_get(state)
    other = jax.tree.map(lambda v: v + 1, state.g)
    batch = jax.device_get(_batch(model.spec, 6))
    run = jax.jit(model.eval_step)
    evaluate = lambda state: run(jax.random.key(0), state, batch)  # noqa: E731
    values = evaluate(state)
    _same(values, evaluate(state.replace(g=other)))

    @jax.jit
    @jax.vmap
    def draws(i):
        return jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (3,))

    z = draws(np.arange(6))
    generate = jax.jit(model.generator(train=False).apply)
    judge = jax.jit(model.discriminator(train=False).apply)
    fake = generate(state.ema, z, batch["label"])
    for name, x in (("d_real", np.float32(batch["x"]) / 8 - 1), ("d_fake", fake)):
        logits = judge(state.d.variables, x, batch["label"])
        np.testing.assert_allclose(values[name], special.expit(logits), rtol=1e-4)
    # G(z), alone or in company, each by its own number.
    decode = jax.jit(lambda z, label: model.decode(jax.random.key(5), state, z, label))
    x = np.asarray(decode(z, batch["label"]))
    np.testing.assert_allclose(x, fake, atol=1e-6)
    sample = jax.jit(lambda start: model.sample(jax.random.key(4), state, 3, Request(start=start)))
    whole = jax.jit(lambda: model.sample(jax.random.key(4), state, 6))()
    np.testing.assert_array_equal(np.concatenate([sample(0), sample(3)]), whole)
    # Samples: the nearest levels of G(z), of every class in turn.
    latents = np.asarray(jax.jit(lambda: model.draw_latents(jax.random.key(4), state, 6))())
    drawn = decode(latents, np.arange(6) % 3)
    np.testing.assert_array_equal(whole, np.round((np.clip(drawn, -1, 1) + 1) * 8))
    by_label = [np.asarray(decode(z, np.full(6, c))) for c in range(3)]
    assert (by_label[0] != by_label[1]).any() and (by_label[1] != by_label[2]).any()
    logits = [np.asarray(judge(state.d.variables, fake, np.full(6, c))) for c in range(3)]
    assert (np.abs(logits[0] - logits[1]) > 1e-4).any()
    # Temperature scales z.
    label = np.zeros(6, np.int32)
    request = lambda t: Request(label, temperature=t)  # noqa: E731
    warm = jax.jit(lambda t: model.sample(jax.random.key(4), state, 6, request(t)))
    cold = np.asarray(warm(0.0))
    np.testing.assert_array_equal(cold[1:], np.broadcast_to(cold[:1], cold[1:].shape))
    np.testing.assert_array_equal(warm(0.5), model.spec.from_float(decode(latents / 2, label)))


def test_samples_follow_the_averaged_statistics(random_state):
    """G is evaluated by the averaged statistics, neither its own nor those of its batch."""
    model = _model(architecture="dcgan")
    state = random_state(model)
    z = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
    new, _ = jax.jit(model.train_step)(jax.random.key(1), state, _batch(model.spec, 8), 5)
    for old, moved in zip(jax.tree.leaves(state.ema["batch_stats"]),
                          jax.tree.leaves(new.ema["batch_stats"]), strict=True):  # fmt: skip
        assert (old != moved).any()
    run = jax.jit(lambda state, z: model.decode(jax.random.key(0), state, z))
    decode = lambda *given: np.asarray(run(*given))  # noqa: E731
    x = decode(new, z)
    stale = {**new.ema, "batch_stats": state.ema["batch_stats"]}
    assert (np.abs(decode(new.replace(ema=stale), z) - x) > 1e-4).any()
    np.testing.assert_array_equal(decode(new.replace(g=state.g), z), x)
    alone = np.concatenate([z[2:], np.zeros((2, 3), np.float32)])  # beside others
    np.testing.assert_allclose(decode(new, alone)[:2], x[2:], atol=1e-6)


SHAPES = {
    "1x1": DataSpec(1, 1, 1, 5), "2x2": DataSpec(2, 2, 1, 5, 3), "2x9": DataSpec(2, 9, 3, 5),
    "sound": DataSpec(1, 20, 1, 16, rate=4000),
    "points": DataSpec(1, 1, 2, 0, ranges=((-4.0, 4.0), (-1.0, 1.0))),
    "real images": DataSpec(5, 4, 2, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", some(SHAPES, ["1x1"]))
def test_the_default_works_for_any_shape_of_x(name, random_state):
    spec = SHAPES[name]
    sgd = {"g_optimizer": SGD, "d_optimizer": SGD}
    convolutional = name == "real images"
    sizes = {"filters": 2} if convolutional else {"hidden": (8, 8)}
    model = GAN(spec, **sizes, latents=3, **sgd)
    assert model.convolutional == convolutional
    x = np.random.default_rng(0).uniform(-1, 1, (6, *spec.shape))
    batch = {"x": spec.from_float(jax.device_put(np.float32(x))), "index": np.arange(6)}
    if spec.num_classes:
        batch["label"] = jnp.arange(6) % spec.num_classes

    @jax.jit
    def whole(state):
        new, metrics = model.train_step(jax.random.key(1), state, batch, 0)
        drawn = model.sample(jax.random.key(2), new, 3)
        decoded = model.decode(jax.random.key(3), new, 100 * jnp.ones((3, 3)))
        return new, metrics, drawn, decoded, model.eval_step(jax.random.key(4), new, batch)

    state = random_state(model)
    new, metrics, drawn, decoded, evaluated = whole(state)
    assert all(np.isfinite(value) for value in (*metrics.values(), *evaluated["d_fake"]))
    for old, moved in zip(jax.tree.leaves((state.g, state.d)),
                          jax.tree.leaves((new.g, new.d)), strict=True):  # fmt: skip
        assert (old != moved).any()
    assert drawn.shape == (3, *spec.shape) and drawn.dtype == spec.dtype
    # Levels end where they end; real numbers do not.
    assert (np.abs(decoded).max() > 1) == (spec.levels == 0)


def test_a_linear_generator_of_levels_stays_in_range(random_state):
    model = _model(output="linear")
    x = jax.jit(model.decode)(jax.random.key(0), random_state(model), np.full((3, 3), 100.0))
    assert np.abs(x).max() == 1.0


@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_features_are_what_the_last_layer_sees(architecture, random_state):
    model = _model(DataSpec(5, 4, 2, 17), architecture=architecture)
    state, batch = random_state(model), _batch(model.spec, 6)
    features = jax.jit(model.embed)(state, batch)
    last = state.d.params[f"Dense_{2 if architecture == 'mlp' else 0}"]
    last = jax.device_get(last)
    logits = np.asarray(features) @ last["kernel"][:, 0] + last["bias"]
    judge = jax.jit(model.discriminator(train=False).apply)
    expected = judge(state.d.variables, model.spec.to_float(batch["x"]), None)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_features_of_a_conditional_model_do_not_tell_the_label(random_state):
    model = _model(DataSpec(5, 4, 2, 17, 3))
    state, batch = random_state(model), _batch(model.spec, 6)
    other = {**batch, "label": (np.asarray(batch["label"]) + 1) % 3}
    embed = jax.jit(model.embed)
    features = embed(state, batch)
    np.testing.assert_array_equal(features, embed(state, other))
    network, x = model.discriminator(train=False), model.spec.to_float(batch["x"])
    run = jax.jit(lambda label: network.apply(state.d.variables, x, label, features=True))
    see = lambda c: run(np.full(6, c))  # noqa: E731
    np.testing.assert_allclose(features, np.mean([see(c) for c in range(3)], 0), atol=1e-5)


@pytest.mark.parametrize("fields, message", [
    ({"r1": 1.0, "d_norm": "batch"}, "set `d_norm`=none"),
    ({"d_steps": 0}, "`d_steps`"),
    ({"instance_noise": -0.1}, "not be negative"),
    ({"ema": 1.0}, "`ema`"),
    ({"latents": 0}, "`latents`"),
    ({"hidden": (8, 0)}, "`hidden`"),
    ({"spec": DataSpec(2, 2, 1, 5), "architecture": "dcgan"}, "set `architecture`=mlp"),
    ({"spec": DataSpec(1, 9, 1, 5, rate=8), "architecture": "dcgan"}, "set `architecture`=mlp"),
])  # fmt: skip
def test_refuses_impossible_fields(fields, message):
    with pytest.raises(UserError, match=message):
        _model(**fields)


def test_r1_metric_of_a_linear_discriminator(random_state):
    # hidden=(): D(x) = w.x + b, whose penalty is |w|^2; its gradient adds gamma w.
    model = _model(hidden=(), d_norm="none", r1=0.7)
    state, batch = random_state(model), _batch(DataSpec(4, 4, 1, 5), 6)
    plain = dataclasses.replace(model, r1=0.0)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch, 0)
    without, _ = jax.jit(plain.train_step)(jax.random.key(1), state, batch, 0)
    w, plain_w = (np.asarray(s.d.params["Dense_0"]["kernel"]) for s in (state, without))
    np.testing.assert_allclose(metrics["r1"], (w**2).sum(), rtol=1e-5)
    pulled = plain_w - 0.05 * 0.7 * w
    np.testing.assert_allclose(new.d.params["Dense_0"]["kernel"], pulled, atol=1e-6)


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_dirac_gan(updates):
    # Mescheder et al. 2018, section 2: G = theta, D = psi x, data at 0. One step of size h of the
    # non-saturating game: psi' = psi - h theta s(psi theta), theta' = theta + h p s(-p theta),
    # where s is the sigmoid, and p = psi' (alternating) or psi (simultaneous).
    h, theta, psi = 0.1, 0.8, -0.5
    sgd = Optimizer("sgd", h, b1=0.0)
    model = GAN(
        DataSpec(1, 1, 1, 3),
        architecture="mlp",
        hidden=(),
        latents=1,
        g_norm="none",
        d_norm="none",
        updates=updates,
        output="linear",
        g_optimizer=sgd,
        d_optimizer=sgd,
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.spec.example(1))
    state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    layer = lambda kernel, bias: {  # noqa: E731
        "Dense_0": {"kernel": np.float32([[kernel]]), "bias": np.float32([bias])}
    }
    having = lambda net, params: net.replace(variables=net.having(params))  # noqa: E731
    state = state.replace(g=having(state.g, layer(0.0, theta)), d=having(state.d, layer(psi, 0.0)))
    batch = {"x": np.ones((4, 1, 1, 1), np.uint8), "index": np.arange(4)}
    step, s = jax.jit(model.train_step), lambda x: 1 / (1 + np.exp(-x))
    new, _ = step(jax.random.key(0), state, batch, 0)
    bias = h * (s(0.0) - s(psi * theta))  # of D: real logit 0, fake logit psi theta
    new_psi = psi - h * theta * s(psi * theta)
    p, b = (new_psi, bias) if updates == "alternating" else (psi, 0.0)
    np.testing.assert_allclose(new.d.params["Dense_0"]["kernel"], [[new_psi]], rtol=1e-6)
    np.testing.assert_allclose(new.d.params["Dense_0"]["bias"], [bias], rtol=1e-5)
    new_theta = theta + h * p * s(-p * theta - b)
    np.testing.assert_allclose(new.g.params["Dense_0"]["bias"], [new_theta], rtol=1e-6)


@pytest.mark.parametrize("shift, scale", [
    pytest.param(1.0, 1.5, id="apart", marks=pytest.mark.slow),
    pytest.param(-1.0, 1.0, id="equal", marks=pytest.mark.slow),
])  # fmt: skip
def test_discriminator_learns_the_density_ratio(shift, scale, compiled_in_full):
    """Goodfellow et al. 2014, proposition 1 and theorem 1, by the model's own train step."""
    steps, size = 2500, 512
    adam = Optimizer("adam", 3e-3, decay_steps=steps)
    model = GAN(
        DataSpec(1, 1, 1, 256),
        architecture="mlp",
        hidden=(64, 64),
        latents=1,
        g_norm="none",
        d_norm="none",
        output="linear",
        d_optimizer=adam,
        g_optimizer=Optimizer("sgd", 0.0),
    )
    state = jax.jit(model.init)(jax.random.key(0), model.spec.example(1))
    # A frozen generator that is affine, G(z) = shift + scale z: relu(z) - relu(-z) = z.
    zeros = jax.tree.map(jnp.zeros_like, state.g.params)
    up, through, down = (zeros[f"Dense_{i}"]["kernel"] for i in range(3))
    g = {
        "Dense_0": {**zeros["Dense_0"], "kernel": up.at[0, :2].set(jnp.array([1.0, -1.0]))},
        "Dense_1": {**zeros["Dense_1"], "kernel": through.at[:2, :2].set(jnp.eye(2))},
        "Dense_2": {"kernel": down.at[:2, 0].set(jnp.array([scale, -scale])),
                    "bias": jnp.array([shift])},
    }  # fmt: skip
    state = state.replace(g=state.g.replace(variables=state.g.having(g)))

    @jax.jit
    def train(state):
        def body(state, t):
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(1), t), (size, 1, 1, 1))
            batch = {"x": noise - 1.0, "index": np.arange(size)}
            key = jax.random.fold_in(jax.random.key(2), t)
            return model.train_step(key, state, batch, t)[0], None

        return jax.lax.scan(body, state, jnp.arange(steps))[0]

    trained = train(state)
    _same(trained.g.params, g)
    grid = np.linspace(-9, 11, 2001)
    p, q = scipy.stats.norm(-1, 1).pdf(grid), scipy.stats.norm(shift, scale).pdf(grid)
    x = jnp.asarray(grid, jnp.float32).reshape(-1, 1, 1, 1)
    logits = model.discriminator(train=False).apply(trained.d.variables, x, None)
    logits = np.asarray(logits, np.float64)
    m = (p + q) / 2
    error = np.trapezoid(m * np.abs(1 / (1 + np.exp(-logits)) - p / (p + q)), grid)
    log_d, log_not_d = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    value = np.trapezoid(p * log_d + q * log_not_d, grid)
    jsd = np.trapezoid(p * np.log(p / m) + q * np.log(q / m), grid) / 2
    assert error < 0.01
    assert abs(value - (2 * jsd - np.log(4))) < (5e-3 if shift > 0 else 1e-3)
