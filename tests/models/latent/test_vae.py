"""VAE: its bounds against quadrature and closed forms, and what each field does."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy import special

from jaxgen.distributions.normal import interpolate, kl_standard_normal
from jaxgen.errors import UserError
from jaxgen.models.latent.vae import LOGVAR_RANGE, VAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import ImageSpec


def _model(spec=None, **fields):
    spec = spec or ImageSpec(2, 2, 1, 2)
    return VAE(spec, **{"hidden": (8,), "latents": 1, "dropout": 0.0,
                        "optimizer": Optimizer("sgd", 0.01, 0.0), **fields})  # fmt: skip


def _batch(images, label=None):
    batch = {"image": jnp.asarray(images, jnp.uint8), "index": jnp.arange(len(images))}
    return batch if label is None else {**batch, "label": jnp.asarray(label)}


def _every_image(spec):
    levels = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(levels), np.uint8).reshape(-1, *spec.shape)


class Tiny:
    """A VAE of 2x2 binary images and one latent, integrated over the latent exactly."""

    def __init__(self, random_state):
        self.model = _model()
        self.state = random_state(self.model)
        params = self.state.net.params
        quiet = jax.tree.map(lambda p: 0.15 * p, params["posterior"])
        params = {**jax.tree.map(lambda p: 0.8 * p, params), "posterior": quiet}
        self.state = self.state.replace(ema=params)
        self.images = _every_image(self.model.spec)
        self.z = np.linspace(-9, 9, 2001)
        column = jnp.asarray(self.z, jnp.float32)[:, None]
        logits = np.asarray(jax.jit(self.model.decode)(params, column), np.float64)
        signs = 2.0 * self.images[:, None, ..., None] - 1  # [x z h w c p]
        log_pxz = special.log_expit(signs * logits[None]).sum((2, 3, 4, 5))
        self.log_joint = log_pxz + scipy.stats.norm.logpdf(self.z)
        self.log_px = special.logsumexp(self.log_joint, 1) + np.log(self.z[1] - self.z[0])
        mean, logvar = jax.jit(self.model.encode)(params, _batch(self.images))
        q = scipy.stats.norm(np.float64(mean), np.exp(np.float64(logvar) / 2))
        density = q.pdf(self.z) * (self.z[1] - self.z[0])
        self.gap = (density * (q.logpdf(self.z) - self.log_joint)).sum(1) + self.log_px

    def repeated(self, num):
        """Every image `num` times, each with noise of its own."""
        return _batch(np.repeat(self.images, num, 0))


@pytest.fixture(scope="module")
def tiny(random_state):
    return Tiny(random_state)


def test_bounds_against_quadrature(tiny):
    assert abs(np.exp(tiny.log_px).sum() - 1) < 1e-6  # the reference itself is a density
    assert tiny.gap.max() > 0.05
    batch, num, bounds = tiny.repeated(1000), 1000, {}
    for k in (1, 5, 100):
        step = jax.jit(dataclasses.replace(tiny.model, k=k, final_k=k).eval_step)
        nll = step(jax.random.key(0), tiny.state, batch)["nll"]
        bounds[k] = -np.asarray(nll, np.float64).reshape(16, num)
    error = {k: b.std(1) / num**0.5 for k, b in bounds.items()}
    # E[ELBO] = log p(x) - KL(q || posterior), by quadrature.
    assert (np.abs(bounds[1].mean(1) - (tiny.log_px - tiny.gap)) < 4.5 * error[1]).all()
    # L_k rises to log p(x); at large k its bias is half its variance.
    bias = bounds[100].var(1) / 2
    assert bias.max() < 0.03
    slack = 4.5 * error[100] + 0.2 * bias + 1e-5
    assert (np.abs(bounds[100].mean(1) + bias - tiny.log_px) < slack).all()
    total = {k: b.mean() for k, b in bounds.items()}
    assert total[1] < total[5] < total[100]


def test_elbo_is_one_draw_of_log_p_minus_the_closed_form_kl(tiny):
    metrics = jax.jit(tiny.model.eval_step)(jax.random.key(1), tiny.state, tiny.repeated(1))
    mean, logvar = tiny.model.encode(tiny.state.ema, _batch(tiny.images))
    np.testing.assert_allclose(metrics["kl"], kl_standard_normal(mean, logvar).sum(-1), rtol=1e-5)
    for one, other in (("elbo", -metrics["reconstruction"] - metrics["kl"]),
                       ("nll", -metrics["elbo"])):  # fmt: skip
        np.testing.assert_allclose(metrics[one], other, rtol=1e-5)


def test_samples_have_the_marginal_of_the_quadrature(tiny):
    num, p = 20_000, np.exp(tiny.log_px)
    sample = jax.jit(lambda: tiny.model.sample(jax.random.key(2), tiny.state, num))
    drawn = np.asarray(sample()).reshape(num, 4).astype(int) @ 2 ** np.arange(4)[::-1]
    found = np.bincount(drawn, minlength=16) / num
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / num)).all()


@pytest.mark.parametrize("likelihood, levels", [
    ("bernoulli", 2), ("categorical", 5), ("gaussian", 5), ("logistic", 256),
])  # fmt: skip
def test_posterior_equal_to_the_prior_makes_every_bound_exact(likelihood, levels):
    # Zero weights: q(z | x) = p(z), and p(x | z) does not depend on z: no variance is left.
    model = _model(ImageSpec(3, 2, 1, levels), hidden=(), latents=3, likelihood=likelihood)
    state = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(model.init, jax.random.key(0))
    )
    rng = np.random.default_rng(0)
    bias = jnp.asarray(rng.normal(size=6 * model.p.num_params), jnp.float32)
    params = {**state.ema, "out": {**state.ema["out"], "bias": bias}}
    images = rng.integers(levels, size=(5, 3, 2, 1))
    p = bias.reshape(1, 3, 2, 1, -1)
    exact = model.p.log_prob(jnp.broadcast_to(p, (5, *p.shape[1:])), jnp.asarray(images))
    exact = np.asarray(exact, np.float64).sum((1, 2, 3))
    log_px, kl = jax.jit(model.elbo)(jax.random.key(0), params, _batch(images))
    np.testing.assert_allclose(kl, 0, atol=1e-6)
    np.testing.assert_allclose(log_px, exact, rtol=1e-5)
    bound = jax.jit(model.importance_weighted, static_argnums=3)
    for k in (1, 9):
        found = bound(jax.random.key(k), params, _batch(images), k)
        np.testing.assert_allclose(found, exact, rtol=1e-5)
    # A constant posterior N(m, s^2) costs exactly its KL in the ELBO, and nothing in L_k.
    q = jnp.array([0.5, -1.0, 0.2, -0.3, 0.1, -1.0])
    params = {**params, "posterior": {**params["posterior"], "bias": q}}
    _, kl = jax.jit(model.elbo)(jax.random.key(0), params, _batch(images))
    np.testing.assert_allclose(kl, kl_standard_normal(q[:3], q[3:]).sum(), rtol=1e-6)
    deep = np.asarray(bound(jax.random.key(9), params, _batch(images), 2000), np.float64)
    assert (np.abs(deep - exact) < 0.15).all()
    assert (exact - float(kl[0]) + 0.3 < deep).all()


def test_scan_over_k_equals_all_at_once(tiny, random_state):
    model = _model(ImageSpec(3, 3, 1, 5), latents=2)
    params = random_state(model).ema
    batch = _batch(np.random.default_rng(1).integers(5, size=(4, 3, 3, 1)))
    by_scan = lambda params: model.importance_weighted(jax.random.key(0), params, batch, 7).sum()  # noqa: E731

    def at_once(params):
        # The ELBO's own pieces, one sample at a time, with log q(z | x) written out.
        mean, logvar = model.encode(params, batch)

        def log_weight(i):
            noise_key = jax.random.fold_in(jax.random.key(0), i)
            fold = jax.vmap(jax.random.fold_in, (None, 0))
            noise = jax.vmap(lambda k: jax.random.normal(k, (2,)))(fold(noise_key, jnp.arange(4)))
            z = mean + jnp.exp(logvar / 2) * noise
            log_px = model.p.log_prob(model.decode(params, z), batch["image"]).sum((1, 2, 3))
            return log_px + 0.5 * (noise**2 - z**2 + logvar).sum(-1)

        log_w = jax.vmap(log_weight)(jnp.arange(7))
        return (jax.scipy.special.logsumexp(log_w, axis=0) - jnp.log(7.0)).sum()

    a, grad_a = jax.jit(jax.value_and_grad(by_scan))(params)
    b, grad_b = jax.jit(jax.value_and_grad(at_once))(params)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grad_a, grad_b
    )


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic"])
def test_finite_at_extreme_posteriors_and_scales(likelihood, random_state):
    model = _model(ImageSpec(3, 3, 1, 17), likelihood=likelihood, latents=2)
    params = random_state(model).ema
    batch = _batch(np.random.default_rng(1).integers(17, size=(4, 3, 3, 1)))

    @jax.jit
    def loss(bias, out):
        p = {**params, "posterior": {**params["posterior"], "bias": bias},
             "out": {**params["out"], "bias": out}}  # fmt: skip
        log_px, kl = model.elbo(jax.random.key(0), p, batch)
        bound = model.importance_weighted(jax.random.key(1), p, batch, 3)
        return (kl - log_px).sum() - bound.sum()

    encode = jax.jit(lambda bias: model.encode(
        {**params, "posterior": {**params["posterior"], "bias": bias}}, batch))  # fmt: skip
    grad = jax.jit(jax.value_and_grad(loss, (0, 1)))
    outs = params["out"]["bias"]
    for extreme in (-1e4, -100.0, 30.0, 1e4):
        bias = jnp.array([0.5, 0.5, extreme, extreme])
        np.testing.assert_array_equal(encode(bias)[1], LOGVAR_RANGE[extreme > 0])
        for out in (outs, outs + extreme):
            value, gradients = grad(bias, out)
            assert np.isfinite(float(value))
            assert all(np.isfinite(g).all() for g in gradients)


def test_beta_weighs_the_kl_in_training_alone(random_state):
    batch = _batch(np.random.default_rng(1).integers(5, size=(4, 3, 3, 1)))
    metrics, evaluated, moved = {}, {}, {}
    for beta in (0.0, 4.0):
        model = _model(ImageSpec(3, 3, 1, 5), latents=2, beta=beta)
        state = random_state(model)
        new, metrics[beta] = jax.jit(model.train_step)(jax.random.key(0), state, batch)
        evaluated[beta] = model.eval_step(jax.random.key(0), state, batch)
        moved[beta] = jax.tree.map(lambda a, b: a - b, new.net.params, state.net.params)
        m = metrics[beta]
        np.testing.assert_allclose(m["elbo"], -m["kl"] - m["reconstruction"], rtol=1e-5)
    for name in ("elbo", "kl", "reconstruction"):
        np.testing.assert_allclose(metrics[0.0][name], metrics[4.0][name], rtol=1e-6)
    for name in evaluated[0.0]:
        np.testing.assert_array_equal(evaluated[0.0][name], evaluated[4.0][name])
    # What beta adds to a step is beta times the gradient of the mean KL, and nothing else.
    model = _model(ImageSpec(3, 3, 1, 5), latents=2)
    mean_kl = lambda p: model.elbo(jax.random.key(0), p, batch)[1].mean()  # noqa: E731
    grads = jax.jit(jax.grad(mean_kl))(random_state(model).net.params)
    jax.tree.map(
        lambda a, b, g: np.testing.assert_allclose(b - a, -0.01 * 4 * g, rtol=1e-4, atol=1e-5),
        moved[0.0], moved[4.0], grads,
    )  # fmt: skip


NETWORKS = {
    "mlp": {},
    "transpose": {"network": "conv", "filters": 2, "upsample": "transpose"},
    "resize": {"network": "conv", "filters": 2, "upsample": "resize", "scale": "shared"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_labels_chunks(name, random_state):
    model = _model(ImageSpec(5, 4, 2, 5, 3), latents=2, **NETWORKS[name])
    state = random_state(model)
    images = np.random.default_rng(1).integers(5, size=(4, 5, 4, 2))
    batch = _batch(images, [0, 1, 2, 1])
    evaluate = jax.jit(lambda batch: model.eval_step(jax.random.key(0), state, batch))
    whole, other = evaluate(batch), evaluate({**batch, "label": jnp.array([1, 2, 0, 2])})
    # The label speaks to the encoder (KL) and to the decoder (reconstruction).
    for part in ("kl", "reconstruction"):
        assert (np.abs(whole[part] - other[part]) > 1e-5).all()
    order = np.array([2, 0, 3, 1])
    shuffled = evaluate({name: value[order] for name, value in batch.items()})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[order], b, rtol=2e-5), whole, shuffled)
    generate = jax.jit(lambda z, label: model.generate(state, z, label))
    z = jax.random.normal(jax.random.key(3), (4, 2))
    pictures = [np.asarray(generate(z, jnp.full(4, label))) for label in range(3)]
    assert (pictures[0] != pictures[1]).any() and (pictures[1] != pictures[2]).any()
    decoded = model.decode(state.ema, z, jnp.full(4, 1))
    np.testing.assert_array_equal(pictures[1], np.round(model.p.mean(decoded)).astype(np.uint8))
    mean, _ = model.encode(state.ema, batch)
    reconstruct = jax.jit(lambda: model.reconstruct(jax.random.key(0), state, batch))
    np.testing.assert_array_equal(reconstruct(), generate(mean, batch["label"]))
    sample = jax.jit(lambda start: model.sample(jax.random.key(4), state, 3, start=start))
    np.testing.assert_array_equal(
        np.concatenate([sample(0), sample(3)]),
        jax.jit(lambda: model.sample(jax.random.key(4), state, 6))(),
    )


def test_resize_and_transpose_see_the_decoder_size(random_state):
    # Every output pixel must depend on the latent: nothing is cropped away or left at zero.
    for name in ("transpose", "resize"):
        model = _model(ImageSpec(7, 5, 1, 5), latents=2, **NETWORKS[name])
        params = random_state(model).ema
        z = jax.random.normal(jax.random.key(3), (16, 2))
        decoded = np.asarray(jax.jit(model.decode)(params, z))[..., 0]
        assert decoded.shape == (16, 7, 5, 1) and (decoded.std(0) > 1e-6).all()


def test_dropout_is_of_the_example_and_of_training_alone(random_state):
    model = _model(ImageSpec(3, 3, 1, 5), latents=2, dropout=0.5)
    params = random_state(model).ema
    image = np.random.default_rng(1).integers(5, size=(1, 3, 3, 1))
    batch = _batch(np.tile(image, (6, 1, 1, 1)))

    def kl(train, index):
        elbo = jax.jit(model.elbo, static_argnums=3)
        return np.asarray(elbo(jax.random.key(0), params, {**batch, "index": index}, train)[1])

    noisy = kl(True, jnp.arange(6))
    assert len(np.unique(noisy)) > 3 and len(np.unique(kl(False, jnp.arange(6)))) == 1
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(kl(True, jnp.asarray(order)), noisy[order], rtol=1e-5)


def test_sampling_noise_is_scaled_by_the_temperature(tiny):
    sample = jax.jit(lambda t: tiny.model.sample(jax.random.key(5), tiny.state, 200, None, t))
    cold = np.asarray(sample(1e-3))
    at_zero = tiny.model.decode(tiny.state.ema, jnp.zeros((1, 1)))[..., 0] > 0
    np.testing.assert_array_equal(cold, np.broadcast_to(at_zero, cold.shape))
    assert len(np.unique(np.asarray(sample(1.0)).reshape(200, 4), axis=0)) > 4


@pytest.mark.parametrize("fields, message", [
    ({"scale": "shared"}, "scale=shared needs"),
    ({"latents": 0}, "at least 1"),
    ({"dropout": 1.0}, "dropout"),
    ({"spec": ImageSpec(2, 2, 1, 5), "likelihood": "bernoulli"}, "two levels"),
])  # fmt: skip
def test_refuses_impossible_fields(fields, message):
    with pytest.raises(UserError, match=message):
        _model(**fields)


def test_interpolation_ends_and_lengths():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(5, 7)), jnp.float32) for _ in range(2))
    path = np.asarray(interpolate(a, b, 9))
    np.testing.assert_allclose(path[:, 0], a, atol=1e-6)
    np.testing.assert_allclose(path[:, -1], b, atol=1e-6)
    # Between unit vectors: unit vectors, at equal angles.
    unit = lambda v: v / jnp.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    path = np.asarray(interpolate(unit(a), unit(b), 9), np.float64)
    np.testing.assert_allclose(np.linalg.norm(path, axis=-1), 1, atol=1e-6)
    cosines = (path[:, 1:] * path[:, :-1]).sum(-1)
    np.testing.assert_allclose(cosines, np.broadcast_to(cosines[:, :1], cosines.shape), atol=1e-5)
    np.testing.assert_allclose(interpolate(a, a, 5), np.repeat(a[:, None], 5, 1), atol=1e-4)
    assert np.isfinite(interpolate(a, -a, 5)).all()
