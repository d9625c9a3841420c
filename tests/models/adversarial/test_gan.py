"""GAN: every step against a naive one, and a discriminator trained to its known optimum."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jaxgen.errors import UserError
from jaxgen.models.adversarial.gan import GAN, Discriminator, Generator
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import ImageSpec

SGD = Optimizer("sgd", 0.05, b1=0.0)


def _model(spec=None, **fields):
    small = {"network": "mlp", "hidden": (8, 8), "filters": 4, "latents": 3,
             "g_optimizer": SGD, "d_optimizer": SGD}  # fmt: skip
    return GAN(spec or ImageSpec(4, 4, 1, 5), **{**small, **fields})


def _batch(spec, num, seed=0):
    rng = np.random.default_rng(seed)
    batch = {
        "image": jnp.asarray(rng.integers(spec.levels, size=(num, *spec.shape)), jnp.uint8),
        "index": jnp.arange(num),
    }
    if spec.num_classes:
        batch["label"] = jnp.asarray(rng.integers(spec.num_classes, size=num))
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
        "lsgan": (lambda x: (x - 1) ** 2 / 2, lambda x: x**2 / 2, lambda x: (x - 1) ** 2 / 2),
        "hinge": (lambda x: jnp.maximum(0, 1 - x), lambda x: jnp.maximum(0, 1 + x), lambda x: -x),
    }[name]


def _naive_step(m, key, state, batch):
    """The step as the papers write it: nothing shared, G run anew wherever it is needed."""
    key_z, key_real, key_fake = jax.random.split(key, 3)
    on_real, on_fake, for_g = _loss(m.loss)
    sigma = m.instance_noise
    if m.noise_steps:
        sigma = sigma * jnp.clip(1 - state.step / m.noise_steps, 0, 1)

    def normal(key, index, shape):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return jax.vmap(lambda k: jax.random.normal(k, shape))(keys)

    def run(module, params, stats, x, label):
        variables = {"params": params, "batch_stats": stats}
        return module(m, train=True).apply(variables, x, label, mutable=["batch_stats"])

    def see(d_params, d_stats, x, key, part):
        x = x + sigma * normal(key, part["index"], m.spec.shape)
        return run(Discriminator, d_params, d_stats, x, part.get("label"))

    def fake(g_params, part):
        z = normal(key_z, part["index"], (m.latents,))
        return run(Generator, g_params, state.g.stats, z, part.get("label"))

    d_params, d_stats, d_opt = state.d.params, state.d.stats, state.d.opt_state
    for i in range(m.d_steps):
        part = {name: value[i :: m.d_steps] for name, value in batch.items()}
        real = m.spec.to_float(part["image"])

        def d_loss(p, part=part, real=real, stats=d_stats):
            logits, new = see(p, stats, real, key_real, part)
            fakes, _ = see(p, stats, fake(state.g.params, part)[0], key_fake, part)
            value = on_real(logits).mean() + on_fake(fakes).mean()
            if m.r1:
                noisy = real + sigma * normal(key_real, part["index"], m.spec.shape)
                label = part.get("label")

                def one(x, label):
                    label = None if label is None else label[None]
                    return run(Discriminator, p, stats, x[None], label)[0][0]

                axes = (0, None if label is None else 0)
                each = jax.vmap(jax.grad(one), axes)(noisy, label)
                value += m.r1 / 2 * jnp.sum(each**2) / len(noisy)
            return value, new.get("batch_stats", {})

        before = (d_params, d_stats)
        grads, d_stats = jax.grad(d_loss, has_aux=True)(d_params)
        updates, d_opt = m.d_optimizer.make().update(grads, d_opt, d_params)
        d_params = optax.apply_updates(d_params, updates)

    judge = (d_params, d_stats) if m.order == "alternating" else before

    def g_loss(p):
        x, new = fake(p, part)
        return for_g(see(*judge, x, key_fake, part)[0]).mean(), new.get("batch_stats", {})

    grads, g_stats = jax.grad(g_loss, has_aux=True)(state.g.params)
    updates, _ = m.g_optimizer.make().update(grads, state.g.opt_state, state.g.params)
    return (optax.apply_updates(state.g.params, updates), g_stats), (d_params, d_stats)


STEPS = {
    "dcgan": {"network": "dcgan", "loss": "nonsaturating"},
    "old judge": {"network": "dcgan", "order": "simultaneous", "loss": "hinge"},
    "r1, noise, three d steps": {
        "loss": "minimax", "d_norm": "none", "r1": 2.0, "d_steps": 3, "instance_noise": 0.3,
        "noise_steps": 8, "spec": ImageSpec(4, 4, 1, 5, 3)},
    "two d steps with statistics": {"loss": "lsgan", "d_steps": 2, "order": "simultaneous",
                                    "output": "linear", "g_norm": "none"},
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_step_equals_the_naive_one(name, random_state):
    model = _model(**STEPS[name])
    state = random_state(model).replace(step=jnp.int32(2))
    batch = _batch(model.spec, 4 * model.d_steps)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch)
    g, d = jax.jit(lambda key: _naive_step(model, key, state, batch))(jax.random.key(1))
    _close((new.g.params, new.g.stats), g)
    _close((new.d.params, new.d.stats), d)
    # Both players, and their statistics, have moved by more than the tolerance.
    for net, old in ((new.g, state.g), (new.d, state.d)):
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), net.params, old.params)
        assert max(jax.tree.leaves(moved)) > 1e-4
    # The average, BatchNorm statistics included: decay min(0.999, 3/12) at step 2.
    variables = {"params": new.g.params, "batch_stats": new.g.stats}
    _close(new.ema, jax.tree.map(lambda e, v: 0.25 * e + 0.75 * v, state.ema, variables))
    assert bool(new.ema["batch_stats"]) == (model.g_norm == "batch")
    assert int(new.step) == 3 and all(np.isfinite(v) for v in metrics.values())


@pytest.mark.parametrize("frozen, other", [("g", "d"), ("d", "g")])
def test_frozen_player_is_untouched(frozen, other, random_state):
    model = _model(**{f"{frozen}_optimizer": Optimizer("sgd", 0.0, b1=0.0)})
    state = random_state(model)
    batch = _batch(model.spec, 6)
    new, _ = jax.jit(model.train_step)(jax.random.key(1), state, batch)
    _same(getattr(new, frozen).params, getattr(state, frozen).params)
    for old, moved in zip(jax.tree.leaves(getattr(state, other).params),
                          jax.tree.leaves(getattr(new, other).params), strict=True):  # fmt: skip
        assert (old != moved).any()


def test_instance_noise_falls_linearly_to_nothing(random_state):
    batch = _batch(ImageSpec(4, 4, 1, 5), 6)

    def step(at, **fields):
        model = _model(hidden=(6,), g_norm="none", d_norm="none", **fields)
        state = random_state(model).replace(step=jnp.int32(at))
        return jax.jit(model.train_step)(jax.random.key(1), state, batch)[0].d.params

    model = _model(hidden=(6,), g_norm="none", d_norm="none", instance_noise=0.4, noise_steps=8)
    state, annealing = random_state(model), jax.jit(model.train_step)
    annealed = {
        at: annealing(jax.random.key(1), state.replace(step=jnp.int32(at)), batch)[0].d.params
        for at in (0, 2, 8, 80)
    }
    _close(annealed[2], step(2, instance_noise=0.3))
    clean = step(0)
    _close(annealed[8], clean)
    _close(annealed[80], clean)
    gap = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), annealed[0], clean)
    assert max(jax.tree.leaves(gap)) > 1e-4


def test_average_is_warmed_up_and_then_decays(random_state):
    model = _model(ema=0.6)
    state, batch = random_state(model), _batch(ImageSpec(4, 4, 1, 5), 6)
    step = jax.jit(model.train_step)
    expected = state.ema
    for t in range(12):
        state, _ = step(jax.random.key(t), state, batch)
        decay = min(0.6, (1 + t) / (10 + t))
        variables = {"params": state.g.params, "batch_stats": state.g.stats}
        expected = jax.tree.map(lambda e, v, d=decay: d * e + (1 - d) * v, expected, variables)
    assert (1 + 11) / (10 + 11) < 0.6 < (1 + 14) / (10 + 14)
    _close(state.ema, expected, atol=1e-5)


@pytest.mark.parametrize("network", ["mlp", "dcgan"])
def test_evaluation_and_samples_use_the_average(network, random_state):
    model = _model(ImageSpec(5, 4, 2, 17, 3), network=network)
    state = random_state(model)
    other = jax.tree.map(lambda v: v + 1, state.g)
    batch = _batch(model.spec, 6)
    evaluate = jax.jit(lambda state: model.eval_step(jax.random.key(0), state, batch))
    values = evaluate(state)
    _same(values, evaluate(state.replace(g=other)))
    z = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (3,)))
    fake = Generator(model, train=False).apply(state.ema, z(batch["index"]), batch["label"])
    for name, x in (("d_real", batch["image"] / 8.0 - 1), ("d_fake", fake)):
        logits = Discriminator(model, train=False).apply(state.d.variables, x, batch["label"])
        np.testing.assert_allclose(values[name], 1 / (1 + np.exp(-logits)), rtol=1e-4)
    # Images: the nearest levels of G(z), alone or in company, each by its own number.
    generate = jax.jit(lambda z, label: model.generate(state, z, label))
    images = np.asarray(generate(z(batch["index"]), batch["label"]))
    np.testing.assert_array_equal(images, np.round((np.clip(fake, -1, 1) + 1) * 8))
    sample = jax.jit(lambda start: model.sample(jax.random.key(4), state, 3, start=start))
    whole = jax.jit(lambda: model.sample(jax.random.key(4), state, 6))()
    np.testing.assert_array_equal(np.concatenate([sample(0), sample(3)]), whole)
    by_label = [np.asarray(generate(z(jnp.arange(6)), jnp.full(6, c))) for c in range(3)]
    assert (by_label[0] != by_label[1]).any() and (by_label[1] != by_label[2]).any()
    logits = [Discriminator(model, train=False).apply(state.d.variables, fake, jnp.full(6, c))
              for c in range(3)]  # fmt: skip
    assert (np.abs(logits[0] - logits[1]) > 1e-4).any()
    # Temperature scales z.
    cold = model.sample(jax.random.key(4), state, 3, jnp.zeros(3, jnp.int32), temperature=0.0)
    np.testing.assert_array_equal(cold[1:], np.broadcast_to(cold[:1], cold[1:].shape))


@pytest.mark.parametrize("fields, message", [
    ({"r1": 1.0, "d_norm": "batch"}, "--gan.d_norm=none"),
    ({"d_steps": 0}, "d_steps"),
    ({"instance_noise": -0.1}, "not be negative"),
])  # fmt: skip
def test_refuses_impossible_fields(fields, message):
    with pytest.raises(UserError, match=message):
        _model(**fields)


def test_r1_metric_of_a_linear_discriminator(random_state):
    # hidden=(): D(x) = w.x + b, whose penalty is |w|^2; its gradient adds gamma w.
    model = _model(hidden=(), d_norm="none", r1=0.7)
    state, batch = random_state(model), _batch(ImageSpec(4, 4, 1, 5), 6)
    plain = dataclasses.replace(model, r1=0.0)
    new, metrics = jax.jit(model.train_step)(jax.random.key(1), state, batch)
    without, _ = jax.jit(plain.train_step)(jax.random.key(1), state, batch)
    w = state.d.params["Dense_0"]["kernel"]
    np.testing.assert_allclose(metrics["r1"], (w**2).sum(), rtol=1e-5)
    pulled = without.d.params["Dense_0"]["kernel"] - 0.05 * 0.7 * w
    np.testing.assert_allclose(new.d.params["Dense_0"]["kernel"], pulled, atol=1e-6)


@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_dirac_gan(order):
    # Mescheder et al. 2018, section 2: G = theta, D = psi x, data at 0. One step of size h of the
    # non-saturating game: psi' = psi - h theta s(psi theta), theta' = theta + h p s(-p theta),
    # where s is the sigmoid, and p = psi' (alternating) or psi (simultaneous).
    h, theta, psi = 0.1, 0.8, -0.5
    sgd = Optimizer("sgd", h, b1=0.0)
    model = GAN(
        ImageSpec(1, 1, 1, 3),
        network="mlp",
        hidden=(),
        latents=1,
        g_norm="none",
        d_norm="none",
        order=order,
        output="linear",
        g_optimizer=sgd,
        d_optimizer=sgd,
    )
    state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype),
                         jax.eval_shape(model.init, jax.random.key(0)))  # fmt: skip
    layer = lambda kernel, bias: {  # noqa: E731
        "Dense_0": {"kernel": jnp.array([[kernel]]), "bias": jnp.array([bias])}
    }
    state = state.replace(g=state.g.replace(params=layer(0.0, theta)),
                          d=state.d.replace(params=layer(psi, 0.0)))  # fmt: skip
    batch = {"image": jnp.ones((4, 1, 1, 1), jnp.uint8), "index": jnp.arange(4)}
    step, s = jax.jit(model.train_step), lambda x: 1 / (1 + np.exp(-x))
    new, _ = step(jax.random.key(0), state, batch)
    bias = h * (s(0.0) - s(psi * theta))  # of D: real logit 0, fake logit psi theta
    new_psi = psi - h * theta * s(psi * theta)
    p, b = (new_psi, bias) if order == "alternating" else (psi, 0.0)
    np.testing.assert_allclose(new.d.params["Dense_0"]["kernel"], [[new_psi]], rtol=1e-6)
    np.testing.assert_allclose(new.d.params["Dense_0"]["bias"], [bias], rtol=1e-5)
    new_theta = theta + h * p * s(-p * theta - b)
    np.testing.assert_allclose(new.g.params["Dense_0"]["bias"], [new_theta], rtol=1e-6)


@pytest.mark.parametrize("shift, scale", [(1.0, 1.5), (-1.0, 1.0)], ids=["apart", "equal"])
def test_discriminator_learns_the_density_ratio(shift, scale):
    """Goodfellow et al. 2014, proposition 1 and theorem 1, by the model's own train step."""
    steps, size = 2500, 512
    adam = Optimizer("adam", 3e-3, decay_steps=steps)
    model = GAN(
        ImageSpec(1, 1, 1, 256),
        network="mlp",
        hidden=(64, 64),
        latents=1,
        g_norm="none",
        d_norm="none",
        output="linear",
        d_optimizer=adam,
        g_optimizer=Optimizer("sgd", 0.0),
    )
    state = jax.jit(model.init)(jax.random.key(0))
    # A frozen generator that is affine, G(z) = shift + scale z: relu(z) - relu(-z) = z.
    zeros = jax.tree.map(jnp.zeros_like, state.g.params)
    up, through, down = (zeros[f"Dense_{i}"]["kernel"] for i in range(3))
    g = {
        "Dense_0": {**zeros["Dense_0"], "kernel": up.at[0, :2].set(jnp.array([1.0, -1.0]))},
        "Dense_1": {**zeros["Dense_1"], "kernel": through.at[:2, :2].set(jnp.eye(2))},
        "Dense_2": {"kernel": down.at[:2, 0].set(jnp.array([scale, -scale])),
                    "bias": jnp.array([shift])},
    }  # fmt: skip
    state = state.replace(g=state.g.replace(params=g))

    @jax.jit
    def train(state):
        def body(state, t):
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(1), t), (size, 1, 1, 1))
            batch = {"image": noise - 1.0, "index": jnp.arange(size)}
            key = jax.random.fold_in(jax.random.key(2), t)
            return model.train_step(key, state, batch)[0], None

        return jax.lax.scan(body, state, jnp.arange(steps))[0]

    trained = train(state)
    _same(trained.g.params, g)
    grid = np.linspace(-9, 11, 2001)
    p, q = scipy.stats.norm(-1, 1).pdf(grid), scipy.stats.norm(shift, scale).pdf(grid)
    x = jnp.asarray(grid, jnp.float32).reshape(-1, 1, 1, 1)
    logits = np.asarray(Discriminator(model, train=False).apply(trained.d.variables, x, None),
                        np.float64)  # fmt: skip
    m = (p + q) / 2
    error = np.trapezoid(m * np.abs(1 / (1 + np.exp(-logits)) - p / (p + q)), grid)
    log_d, log_not_d = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    value = np.trapezoid(p * log_d + q * log_not_d, grid)
    jsd = np.trapezoid(p * np.log(p / m) + q * np.log(q / m), grid) / 2
    assert error < 0.01
    assert abs(value - (2 * jsd - np.log(4))) < (5e-3 if shift > 0 else 1e-3)
