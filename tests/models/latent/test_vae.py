"""VAE: its bounds against quadrature and closed forms, and what each field does."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy import special
from tiny import some

from jaxgen.distributions.normal import interpolate, kl_standard_normal
from jaxgen.errors import UserError
from jaxgen.losses.bounds import importance_weighted_bound
from jaxgen.model import Request, example_keys
from jaxgen.models.latent.draws import Training
from jaxgen.models.latent.gaussian import LOGVAR_RANGE
from jaxgen.models.latent.vae import VAE
from jaxgen.nn.layers import dropout, fold_keys
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec


def _model(spec=None, **fields):
    spec = spec or DataSpec(2, 2, 1, 2)
    return VAE(spec, **{"hidden": (8,), "latents": 1, "dropout": 0.0,
                        "optimizer": Optimizer("sgd", 0.01, 0.0), **fields})  # fmt: skip


def _batch(x, label=None):
    dtype = np.uint8 if np.issubdtype(np.asarray(x).dtype, np.integer) else np.float32
    batch = {"x": np.asarray(x, dtype), "index": np.arange(len(x))}
    return batch if label is None else {**batch, "label": np.asarray(label)}


def _every_image(spec):
    levels = itertools.product(range(spec.levels), repeat=spec.dims)
    return np.array(list(levels), np.uint8).reshape(-1, *spec.shape)


def _elbo(model, key, variables, batch, training=None):
    """(log p(x | z), KL) of one z per example."""
    terms = _terms(model, key, variables, batch, training)
    return terms.log_px, terms.kl.sum(-1)


def _terms(model, key, variables, batch, training=None):
    draw = model.infer(key, variables, batch, training)
    return model.score(variables, draw, batch, training)


def _bound(model, key, variables, batch, k):
    """L_k, from the model's own weights."""
    terms = lambda key: _terms(model, key, variables, batch)  # noqa: E731
    log_weight = lambda key: terms(key).log_px + terms(key).log_ratio  # noqa: E731
    return importance_weighted_bound(log_weight, key, k)


def _having(variables, **layers):
    """The variables with other arrays in these layers."""
    params = variables["params"]
    return {"params": {**params, **{n: {**params[n], **new} for n, new in layers.items()}}}


class Tiny:
    """A VAE of 2x2 binary images and one latent, integrated over the latent exactly."""

    def __init__(self, random_state):
        self.model = _model()
        self.state = jax.device_get(random_state(self.model))
        variables = jax.tree.map(lambda p: np.float32(0.8) * p, self.state.net.variables)
        quiet = jax.tree.map(lambda p: np.float32(0.15) * p, self.state.net.params["posterior"])
        variables = _having(variables, posterior=quiet)
        self.state = self.state.replace(ema=variables)
        self.images = _every_image(self.model.spec)
        self.z = np.linspace(-9, 9, 2001)
        column = self.z.astype(np.float32)[:, None]
        logits = np.asarray(jax.jit(self.model.parameters)(variables, column), np.float64)
        signs = 2.0 * self.images[:, None, ..., None] - 1  # [x z h w c p]
        log_pxz = special.log_expit(signs * logits[None]).sum((2, 3, 4, 5))
        self.log_joint = log_pxz + scipy.stats.norm.logpdf(self.z)
        self.log_px = special.logsumexp(self.log_joint, 1) + np.log(self.z[1] - self.z[0])
        mean, logvar = jax.jit(self.model.posterior)(variables, _batch(self.images))
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

    @functools.partial(jax.jit, static_argnums=0)
    def bound(k):
        log_weight = lambda key: tiny.model.log_weight(key, tiny.state, batch)  # noqa: E731
        return importance_weighted_bound(log_weight, jax.random.key(0), k)

    nll = jax.jit(tiny.model.eval_step)(jax.random.key(0), tiny.state, batch)["nll"]
    for k, found in (("ELBO", -nll), *((k, bound(k)) for k in (1, 5, 100))):
        bounds[k] = np.asarray(found, np.float64).reshape(16, num)
    error = {k: b.std(1) / num**0.5 for k, b in bounds.items()}
    # E[ELBO] = log p(x) - KL(q || posterior), by quadrature; with its KL in closed form or drawn.
    for k in ("ELBO", 1):
        assert (np.abs(bounds[k].mean(1) - (tiny.log_px - tiny.gap)) < 4.5 * error[k]).all()
    # L_k rises to log p(x); at large k its bias is half its variance.
    bias = bounds[100].var(1) / 2
    assert bias.max() < 0.03
    slack = 4.5 * error[100] + 0.2 * bias + 1e-5
    assert (np.abs(bounds[100].mean(1) + bias - tiny.log_px) < slack).all()
    total = {k: b.mean() for k, b in bounds.items()}
    assert total[1] < total[5] < total[100]


def test_elbo_is_one_draw_of_log_p_minus_the_closed_form_kl(tiny):
    metrics = jax.jit(tiny.model.eval_step)(jax.random.key(1), tiny.state, tiny.repeated(1))
    metrics = jax.device_get(metrics)
    mean, logvar = jax.jit(tiny.model.posterior)(tiny.state.ema, _batch(tiny.images))
    expected = jax.jit(lambda *q: kl_standard_normal(*q).sum(-1))(mean, logvar)
    np.testing.assert_allclose(metrics["kl"], expected, rtol=1e-5)
    for one, other in (("elbo", -metrics["reconstruction"] - metrics["kl"]),
                       ("nll", -metrics["elbo"])):  # fmt: skip
        np.testing.assert_allclose(metrics[one], other, rtol=1e-5)


def test_samples_have_the_marginal_of_the_quadrature(tiny):
    num, p = 20_000, np.exp(tiny.log_px)
    sample = jax.jit(lambda: tiny.model.sample(jax.random.key(2), tiny.state, num))
    drawn = np.asarray(sample()).reshape(num, 4).astype(int) @ 2 ** np.arange(4)[::-1]
    found = np.bincount(drawn, minlength=16) / num
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / num)).all()


LEVELS = {"bernoulli": 2, "categorical": 5, "gaussian": 5, "logistic": 256, "normal": 0}


@pytest.mark.parametrize("likelihood", some(LEVELS, ["normal"]))
def test_posterior_equal_to_the_prior_makes_every_bound_exact(likelihood):
    levels = LEVELS[likelihood]
    # Zero weights: q(z | x) = p(z), and p(x | z) does not depend on z: no variance is left.
    model = _model(DataSpec(3, 2, 1, levels), hidden=(), latents=3, likelihood=likelihood)
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.spec.example(1))
    state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    rng, of = np.random.default_rng(0), model.observation.p
    bias = rng.normal(size=6 * of.num_params).astype(np.float32)
    variables = _having(state.ema, out={"bias": bias})
    size = (5, 3, 2, 1)
    x = rng.integers(levels, size=size) if levels else rng.normal(size=size)
    batch = _batch(x)
    p = bias.reshape(1, 3, 2, 1, -1)
    exact = jax.jit(of.log_prob)(np.broadcast_to(p, (5, *p.shape[1:])), batch["x"])
    exact = np.asarray(exact, np.float64).sum((1, 2, 3))
    elbo = jax.jit(functools.partial(_elbo, model))
    log_px, kl = elbo(jax.random.key(0), variables, batch)
    np.testing.assert_allclose(kl, 0, atol=1e-6)
    np.testing.assert_allclose(log_px, exact, rtol=1e-5)
    bound = jax.jit(functools.partial(_bound, model), static_argnums=3)
    for k in (1, 9):
        found = bound(jax.random.key(k), variables, batch, k)
        np.testing.assert_allclose(found, exact, rtol=1e-5)
    # A constant posterior N(m, s^2) costs exactly its KL in the ELBO, and nothing in L_k.
    q = np.float32([0.5, -1.0, 0.2, -0.3, 0.1, -1.0])
    variables = _having(variables, posterior={"bias": q})
    _, kl = jax.device_get(elbo(jax.random.key(0), variables, batch))
    mean, logvar = np.float64(q).reshape(2, 3)
    exact_kl = 0.5 * (np.exp(logvar) + mean**2 - 1 - logvar).sum()
    np.testing.assert_allclose(kl, exact_kl, rtol=1e-6)
    deep = np.asarray(bound(jax.random.key(9), variables, batch, 2000), np.float64)
    assert (np.abs(deep - exact) < 0.15).all()
    assert (exact - float(kl[0]) + 0.3 < deep).all()


def test_scan_over_k_equals_all_at_once(tiny, random_state):
    model = _model(DataSpec(3, 3, 1, 5), latents=2)
    variables = random_state(model).ema
    batch = _batch(np.random.default_rng(1).integers(5, size=(4, 3, 3, 1)))
    by_scan = lambda v: _bound(model, jax.random.key(0), v, batch, 7).sum()  # noqa: E731

    def at_once(variables):
        # The ELBO's own pieces, one sample at a time, with log q(z | x) written out.
        mean, logvar = model.posterior(variables, batch)

        def log_weight(i):
            noise_key = jax.random.fold_in(jax.random.key(0), i)
            fold = jax.vmap(jax.random.fold_in, (None, 0))
            noise = jax.vmap(lambda k: jax.random.normal(k, (2,)))(fold(noise_key, jnp.arange(4)))
            z = mean + jnp.exp(logvar / 2) * noise
            log_px = model.observation.log_prob(model.parameters(variables, z), batch["x"])
            return log_px + 0.5 * (noise**2 - z**2 + logvar).sum(-1)

        log_w = jax.vmap(log_weight)(jnp.arange(7))
        return (jax.scipy.special.logsumexp(log_w, axis=0) - jnp.log(7.0)).sum()

    a, grad_a = jax.jit(jax.value_and_grad(by_scan))(variables)
    b, grad_b = jax.jit(jax.value_and_grad(at_once))(variables)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grad_a, grad_b
    )


@pytest.mark.parametrize("likelihood", some(["gaussian", "logistic", "normal"], ["logistic"]))
def test_finite_at_extreme_posteriors_and_scales(likelihood, random_state):
    levels = 0 if likelihood == "normal" else 17
    model = _model(DataSpec(3, 3, 1, levels), likelihood=likelihood, latents=2)
    variables = random_state(model).ema
    x = np.random.default_rng(1).integers(17, size=(4, 3, 3, 1))
    batch = _batch(x if levels else x / 8.0 - 1)

    @jax.jit
    def loss(bias, out):
        v = _having(variables, posterior={"bias": bias}, out={"bias": out})
        log_px, kl = _elbo(model, jax.random.key(0), v, batch)
        bound = _bound(model, jax.random.key(1), v, batch, 3)
        return (kl - log_px).sum() - bound.sum()

    encode = jax.jit(
        lambda bias: model.posterior(_having(variables, posterior={"bias": bias}), batch)
    )
    grad = jax.jit(jax.value_and_grad(loss, (0, 1)))
    outs = np.asarray(variables["params"]["out"]["bias"])
    for extreme in (-1e4, -100.0, 30.0, 1e4):
        bias = np.float32([0.5, 0.5, extreme, extreme])
        np.testing.assert_array_equal(encode(bias)[1], LOGVAR_RANGE[extreme > 0])
        for out in (outs, outs + np.float32(extreme)):
            value, gradients = grad(bias, out)
            assert np.isfinite(float(value))
            assert all(np.isfinite(g).all() for g in gradients)


def test_beta_weighs_the_kl_in_training_alone(random_state):
    batch = _batch(np.random.default_rng(1).integers(5, size=(4, 3, 3, 1)))
    metrics, evaluated, moved = {}, {}, {}
    for beta in (0.0, 4.0):
        model = _model(DataSpec(3, 3, 1, 5), latents=2, beta=beta)
        state = random_state(model)
        new, metrics[beta] = jax.jit(model.train_step)(jax.random.key(0), state, batch, 0)
        evaluated[beta] = jax.jit(model.eval_step)(jax.random.key(0), state, batch)
        new, state, metrics[beta] = jax.device_get((new, state, metrics[beta]))
        moved[beta] = jax.tree.map(lambda a, b: a - b, new.net.params, state.net.params)
        m = metrics[beta]
        np.testing.assert_allclose(m["elbo"], -m["kl"] - m["reconstruction"], rtol=1e-5)
    for name in ("elbo", "kl", "reconstruction"):
        np.testing.assert_allclose(metrics[0.0][name], metrics[4.0][name], rtol=1e-6)
    for name in evaluated[0.0]:
        np.testing.assert_array_equal(evaluated[0.0][name], evaluated[4.0][name])
    # What beta adds to a step is beta times the gradient of the mean KL, and nothing else.
    model = _model(DataSpec(3, 3, 1, 5), latents=2)
    mean_kl = lambda v: _elbo(model, jax.random.key(0), v, batch)[1].mean()  # noqa: E731
    grads = jax.device_get(jax.jit(jax.grad(mean_kl))(random_state(model).net.variables))["params"]
    jax.tree.map(
        lambda a, b, g: np.testing.assert_allclose(b - a, -0.01 * 4 * g, rtol=1e-4, atol=1e-5),
        moved[0.0], moved[4.0], grads,
    )  # fmt: skip


def test_a_step_is_the_mean_of_the_steps_of_its_examples(random_state):
    """Sums over the pixels and the latents, a mean over the examples."""
    model = _model(DataSpec(3, 3, 1, 5), latents=2)
    state, batch = (
        random_state(model),
        _batch(np.random.default_rng(1).integers(5, size=(4, 3, 3, 1))),
    )
    step = lambda batch: model.train_step(jax.random.key(0), state, batch, 0)  # noqa: E731
    new, metrics = jax.jit(step)(batch)
    one_by_one = jax.tree.map(lambda leaf: leaf[:, None], batch)
    each, alone = jax.device_get(jax.jit(jax.vmap(step))(one_by_one))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b.mean(0), rtol=2e-5, atol=1e-6),
        (new.net.params, {n: metrics[n] for n in ("elbo", "kl", "reconstruction")}),
        (each.net.params, {n: alone[n] for n in ("elbo", "kl", "reconstruction")}),
    )


@pytest.mark.parametrize("levels", some([2, 5, 0], [2, 0]))
def test_four_times_the_pixels_cost_four_times_as_much_and_latents_as_before(levels):
    rng = np.random.default_rng(0)
    small = _model(DataSpec(3, 2, 1, levels), hidden=(), latents=3)
    large = _model(DataSpec(6, 4, 1, levels), hidden=(), latents=3)
    x = rng.integers(levels, size=(5, 3, 2, 1)) if levels else rng.normal(size=(5, 3, 2, 1))
    bias, q = rng.normal(size=(3, 2, 1, small.observation.p.num_params)), rng.normal(size=6)

    def evaluated(model, x, bias):
        shapes = jax.eval_shape(model.init, jax.random.key(0), model.spec.example(1))
        state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
        out = {"bias": bias.astype(np.float32).reshape(-1)}
        layers = {"out": out, "posterior": {"bias": q.astype(np.float32)}}
        state = state.replace(ema=_having(state.ema, **layers))
        found = jax.jit(model.eval_step)(jax.random.key(0), state, _batch(x))
        return jax.device_get(found)

    doubled = lambda a: a.repeat(2, -3).repeat(2, -2)  # noqa: E731
    a, b = evaluated(small, x, bias), evaluated(large, doubled(x), bias.repeat(2, 0).repeat(2, 1))
    np.testing.assert_allclose(b["reconstruction"], 4 * a["reconstruction"], rtol=1e-5)
    np.testing.assert_allclose(b["kl"], a["kl"], rtol=1e-6)


def test_labels_are_further_inputs_and_change_nothing_else(random_state):
    """Without weights on the labels, a conditional model is the unconditional one."""
    spec = DataSpec(3, 3, 1, 5)
    plain, told = _model(spec, latents=2), _model(DataSpec(3, 3, 1, 5, 3), latents=2)
    state, other = random_state(plain), random_state(told)
    state, other = jax.device_get((state, other))
    mine, theirs = (dict(s.ema["params"]) for s in (state, other))
    for name, size in (("encoder_layers_0", 9), ("decoder_layers_0", 2)):
        kernel = theirs[name]["kernel"]
        assert kernel.shape[0] == size + 3
        mine[name] = {
            **mine[name],
            "kernel": np.concatenate([mine[name]["kernel"], kernel[size:]]),
        }
    x = np.random.default_rng(1).integers(5, size=(4, 3, 3, 1))
    evaluate = lambda m, s, label: jax.jit(m.eval_step)(jax.random.key(0), s, _batch(x, label))  # noqa: E731
    unlabelled = lambda kernel: np.concatenate([kernel[:-3], 0 * kernel[-3:]])  # noqa: E731
    told_nll = [
        np.asarray(evaluate(told, other.replace(ema={"params": mine}), label)["nll"])
        for label in ([0, 1, 2, 1], [1, 2, 0, 0])
    ]
    assert (np.abs(told_nll[0] - told_nll[1]) > 1e-4).all()
    silent = {n: {**v, "kernel": unlabelled(v["kernel"])} if "_layers_" in n else v
              for n, v in mine.items()}  # fmt: skip
    found = evaluate(told, other.replace(ema={"params": silent}), [0, 1, 2, 1])
    expected = evaluate(plain, state, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


NETWORKS = {
    "mlp": {},
    "transpose": {"architecture": "conv", "filters": 2, "upsample": "transpose"},
    "resize": {"architecture": "conv", "filters": 2, "upsample": "resize", "scale": "shared"},
}


@pytest.mark.parametrize("name", some(NETWORKS, ["mlp"]))
def test_networks_labels_chunks(name, random_state):
    model = _model(DataSpec(5, 4, 2, 5, 3), latents=2, **NETWORKS[name])
    state = random_state(model)
    images = np.random.default_rng(1).integers(5, size=(4, 5, 4, 2))
    batch = _batch(images, [0, 1, 2, 1])
    evaluate = jax.jit(lambda batch: model.eval_step(jax.random.key(0), state, batch))
    whole, other = jax.device_get(
        [evaluate(b) for b in (batch, {**batch, "label": np.array([1, 2, 0, 2])})]
    )
    # The label speaks to the encoder (KL) and to the decoder (reconstruction).
    for part in ("kl", "reconstruction"):
        assert (np.abs(whole[part] - other[part]) > 1e-5).all()
    order = np.array([2, 0, 3, 1])
    shuffled = evaluate({name: value[order] for name, value in batch.items()})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[order], b, rtol=2e-5), whole, shuffled)
    decode = jax.jit(lambda z, label: model.decode(jax.random.key(5), state, z, label))
    z = np.random.default_rng(3).normal(size=(4, 2)).astype(np.float32)
    means = [np.asarray(decode(z, np.full(4, label))) for label in range(3)]
    assert (means[0] != means[1]).any() and (means[1] != means[2]).any()
    # The mean level 0..4 of p(x | z), in [-1, 1].
    parameters = lambda z: model.parameters(state.ema, z, np.full(4, 1))  # noqa: E731
    mean = np.asarray(jax.jit(lambda z: model.observation.p.mean(parameters(z)))(z))
    np.testing.assert_allclose(means[1], mean / 2 - 1, atol=1e-6)
    assert np.abs(means).max() <= 1
    encode = jax.jit(lambda: model.encode(jax.random.key(0), state, batch))
    posterior = jax.jit(model.posterior)
    np.testing.assert_allclose(encode(), posterior(state.ema, batch)[0], rtol=1e-5)
    sample = jax.jit(lambda start: model.sample(jax.random.key(4), state, 3, Request(start=start)))
    np.testing.assert_array_equal(
        np.concatenate([sample(0), sample(3)]),
        jax.jit(lambda: model.sample(jax.random.key(4), state, 6))(),
    )


def test_resize_and_transpose_see_the_decoder_size(random_state):
    # Every output pixel must depend on the latent: nothing is cropped away or left at zero.
    for name in ("transpose", "resize"):
        model = _model(DataSpec(7, 5, 1, 5), latents=2, **NETWORKS[name])
        variables = random_state(model).ema
        z = np.random.default_rng(3).normal(size=(16, 2)).astype(np.float32)
        decoded = np.asarray(jax.jit(model.parameters)(variables, z))[..., 0]
        assert decoded.shape == (16, 7, 5, 1) and (decoded.std(0) > 1e-6).all()


def test_dropout_is_of_the_example_and_of_training_alone(random_state):
    model = _model(DataSpec(3, 3, 1, 5), latents=2, dropout=0.5)
    variables = random_state(model).ema
    image = np.random.default_rng(1).integers(5, size=(1, 3, 3, 1))
    batch = _batch(np.tile(image, (6, 1, 1, 1)))

    @functools.partial(jax.jit, static_argnums=0)
    def run(train, variables, batch):
        keys = example_keys(jax.random.key(1), batch["index"])
        training = Training(keys, None) if train else None
        return _elbo(model, jax.random.key(0), variables, batch, training)[1]

    kl = lambda train, index: np.asarray(run(train, variables, {**batch, "index": index}))  # noqa: E731
    noisy = kl(True, np.arange(6))
    assert len(np.unique(noisy)) > 3 and len(np.unique(kl(False, np.arange(6)))) == 1
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(kl(True, order), noisy[order], rtol=1e-5)


@jax.debug_key_reuse(False)  # by the model, and by hand
def test_dropout_follows_every_layer_of_both_networks(random_state):
    """As written out: on x and after every layer of the encoder, after every one of the decoder,
    each with noise of its own."""
    model = _model(DataSpec(3, 3, 1, 5), latents=2, hidden=(7, 6), dropout=0.4)
    variables, rng = random_state(model).ema, np.random.default_rng(0)
    batch = _batch(rng.integers(5, size=(4, 3, 3, 1)))
    z = rng.normal(size=(4, 2)).astype(np.float32)

    @jax.jit
    def both(variables):
        """The mean of the code and the parameters of x: those of the model, and as written out."""
        keys, layers = example_keys(jax.random.key(1), batch["index"]), variables["params"]
        dense = lambda h, name: h @ layers[name]["kernel"] + layers[name]["bias"][None]  # noqa: E731
        dropped = lambda h, i: dropout(fold_keys(keys, i), h, 0.4)  # noqa: E731
        h = dropout(keys, batch["x"].reshape(4, -1) / 4, 0.4)
        for i in range(2):
            h = dropped(jax.nn.relu(dense(h, f"encoder_layers_{i}")), 1 + i)
        mean, h = dense(h, "posterior")[:, :2], z
        for i in range(2):
            h = dropped(jax.nn.relu(dense(h, f"decoder_layers_{i}")), 3 + i)
        training = Training(keys, None)
        found = model.parameters(variables, z, None, training).reshape(4, -1)
        return (model.posterior(variables, batch, training)[0], found), (mean, dense(h, "out"))

    for found, expected in zip(*both(variables), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_sampling_noise_is_scaled_by_the_temperature(tiny):
    request = lambda t: Request(temperature=t)  # noqa: E731
    sample = jax.jit(lambda t: tiny.model.sample(jax.random.key(5), tiny.state, 200, request(t)))
    cold = np.asarray(sample(1e-3))
    parameters = jax.jit(tiny.model.parameters)(tiny.state.ema, np.zeros((1, 1), np.float32))
    at_zero = np.asarray(parameters)[..., 0] > 0
    np.testing.assert_array_equal(cold, np.broadcast_to(at_zero, cold.shape))
    assert len(np.unique(np.asarray(sample(1.0)).reshape(200, 4), axis=0)) > 4


@pytest.mark.parametrize("fields, message", [
    ({"scale": "shared"}, "`scale`=shared needs"),
    ({"latents": 0}, "`latents` must be at least 1"),
    ({"dropout": 1.0}, "`dropout`"),
    ({"ema": 1.0}, "`ema`"),
    ({"accumulate": 0}, "`accumulate`"),
    ({"beta": -1.0}, "`beta`"),
    ({"hidden": (0,)}, "`hidden`"),
    ({"spec": DataSpec(2, 2, 1, 5), "likelihood": "bernoulli"}, "two levels"),
    ({"spec": DataSpec(2, 2, 1, 5), "likelihood": "normal"}, "set `likelihood`=gaussian"),
    ({"spec": DataSpec(1, 1, 2, 0), "likelihood": "logistic"}, "set `likelihood`=normal"),
    ({"spec": DataSpec(1, 1, 2, 0), "likelihood": "bernoulli"}, "set `likelihood`=normal"),
])  # fmt: skip
def test_refuses_impossible_fields(fields, message):
    with pytest.raises(UserError, match=message):
        _model(**fields)


def test_a_mean_of_one_half_is_the_middle_of_grey():
    model = _model(hidden=())
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.spec.example(1))
    state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    x = jax.jit(model.decode)(jax.random.key(0), state, np.ones((3, 1)))  # every logit is 0
    np.testing.assert_array_equal(x, np.zeros((3, 2, 2, 1)))


def test_decode_is_differentiable_in_z(tiny):
    decoded = lambda z: tiny.model.decode(jax.random.key(0), tiny.state, z).sum()  # noqa: E731
    slope = jax.jit(jax.grad(decoded))(np.ones((2, 1), np.float32))
    assert (np.abs(slope) > 1e-4).all()


def test_features_of_a_conditional_model_do_not_tell_the_label(random_state):
    model = _model(DataSpec(3, 3, 1, 5, 3), latents=2)
    state, embed = random_state(model), jax.jit(model.embed)
    x = np.random.default_rng(1).integers(5, size=(4, 3, 3, 1))
    found = embed(state, _batch(x, [0, 1, 2, 1]))
    np.testing.assert_array_equal(found, embed(state, _batch(x, [2, 2, 0, 0])))
    posterior = jax.jit(model.posterior)
    each = [posterior(state.ema, _batch(x, [label] * 4))[0] for label in range(3)]
    np.testing.assert_allclose(found, np.mean(each, 0), rtol=1e-5, atol=1e-6)
    alone = _model(DataSpec(3, 3, 1, 5), latents=2)
    state = random_state(alone)
    both = jax.jit(lambda s, b: (alone.embed(s, b), alone.posterior(s.ema, b)[0]))
    np.testing.assert_allclose(*both(state, _batch(x)), rtol=1e-5)


@pytest.mark.parametrize("kind", ["points", "vector", "image"])
def test_normal_density_of_real_numbers_against_scipy_and_its_samples(kind, key):
    """Of vectors with any mean; of images with one within [-1, 1]."""
    shape = (1, 2, 1) if kind == "image" else (1, 1, 2)
    model = _model(DataSpec(*shape, 0, ranges=((-1.0, 1.0),) * 2 if kind == "points" else ()))
    assert type(model.observation.p).__name__ == "NormalDensity"
    given, log_scale = np.array([0.3, -1.6]), np.array([-1.2, 0.4])
    location = np.tanh(given) if kind == "image" else given
    params = np.stack([given, log_scale], -1).astype(np.float32)[None, None, None]
    x = np.random.default_rng(0).normal(size=(50, 1, 1, 2))
    expected = scipy.stats.norm(location, np.exp(log_scale)).logpdf(x).sum((1, 2, 3))
    many = lambda num: np.broadcast_to(params, (num, *params.shape[1:]))  # noqa: E731
    found = jax.jit(model.observation.log_prob)(many(50), x.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    mean = np.asarray(jax.jit(model.observation.mean)(params))
    np.testing.assert_allclose(mean[0, 0, 0], location, rtol=1e-6)
    num = 20_000

    @jax.jit
    def sample(i, temperature):
        keys = jax.random.split(jax.random.fold_in(key, i), num)
        return model.observation.sample(keys, many(num), temperature)

    for i, temperature in enumerate((1.0, 0.5)):
        drawn = np.asarray(sample(i, temperature))[:, 0, 0]
        assert drawn.dtype == np.float32
        scale = temperature * np.exp(log_scale)
        assert (np.abs(drawn.mean(0) - location) < 5 * scale / num**0.5).all()
        np.testing.assert_allclose(drawn.std(0), scale, rtol=5 / (2 * num) ** 0.5)


@pytest.mark.parametrize("name", ["gaussian", "logistic", "normal"])
def test_a_scale_is_at_least_the_least(name):
    """A lower one counts as that, a larger one as it is; and a scale that all share, too."""
    spec = DataSpec(1, 2, 1, 0 if name == "normal" else 256)
    p = {scale: _model(spec, likelihood=name, scale=scale, least_scale=0.05).observation.p
         for scale in ("pixel", "shared")}  # fmt: skip
    assert p["pixel"] == p["shared"] and p["pixel"] != _model(spec, likelihood=name).observation.p
    params = lambda scale: np.array([[0.3, np.log(scale)]] * 2, np.float32)  # noqa: E731
    x = np.array([0.2, 0.4], np.float32) if name == "normal" else np.array([153, 178])
    least, lower, larger = (p["pixel"].log_prob(params(s), x) for s in (0.05, 0.001, 0.06))
    np.testing.assert_array_equal(lower, least)
    assert (np.asarray(larger) != least).all()
    for least in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="`least_scale` must lie in"):
            _model(spec, likelihood=name, least_scale=least)


SHAPES = {
    "1x1": (DataSpec(1, 1, 1, 5), "conv"),
    "2x2": (DataSpec(2, 2, 1, 5), "conv"),
    "2x9": (DataSpec(2, 9, 3, 5), "conv"),
    "sound": (DataSpec(1, 20, 1, 16, rate=4000), "conv"),
    "points": (DataSpec(1, 1, 2, 0, ranges=((-4.0, 4.0), (-1.0, 1.0))), "mlp"),
    "points, by convolutions": (DataSpec(1, 1, 2, 0), "conv"),
    "quantized points": (DataSpec(1, 1, 3, 256, ranges=((-4.0, 4.0),) * 3), "mlp"),
    "real images": (DataSpec(5, 4, 2, 0), "conv"),
}


@pytest.mark.parametrize("name", some(SHAPES, ["points"]))
def test_any_shape_of_x(name, random_state):
    spec, architecture = SHAPES[name]
    filters = {"filters": 2} if architecture == "conv" else {}
    fields = {"architecture": architecture, "activation": "elu", **filters}
    model = _model(spec, **fields, latents=2, optimizer=Optimizer("sgd", 1e-4, 0.0))
    x = np.random.default_rng(0).uniform(-1, 1, (4, *spec.shape))
    batch = {"x": spec.from_float(jax.device_put(np.float32(x))), "index": np.arange(4)}

    @jax.jit
    def whole(state):
        new, metrics = model.train_step(jax.random.key(1), state, batch, 0)
        drawn = model.sample(jax.random.key(2), new, 3)
        decoded = model.decode(jax.random.key(3), new, jnp.ones((3, 2)))
        return new, metrics, drawn, decoded, model.eval_step(jax.random.key(4), new, batch)

    state = random_state(model)
    new, metrics, drawn, decoded, evaluated = whole(state)
    assert all(np.isfinite(value) for value in metrics.values())
    for old, moved in zip(jax.tree.leaves(state.net), jax.tree.leaves(new.net), strict=True):
        assert (old != moved).any()
    assert drawn.shape == (3, *spec.shape) and drawn.dtype == spec.dtype
    assert decoded.shape == drawn.shape and np.isfinite(decoded).all()
    assert evaluated["nll"].shape == (4,) and np.isfinite(evaluated["nll"]).all()


@pytest.mark.slow
def test_a_density_of_points_learns_their_scale():
    """Points (t, 1 - t) with noise of 0.05, t uniform: far from a normal density of the plane."""
    spec, num = DataSpec(1, 1, 2, 0), 256
    model = VAE(spec, hidden=(32,), latents=1, dropout=0.0, ema=0.9,
                optimizer=Optimizer(learning_rate=3e-3, decay_steps=800))  # fmt: skip

    def points(key):
        key_t, key_noise = jax.random.split(key)
        t = jax.random.uniform(key_t, (num, 1), minval=-1)
        x = jnp.concatenate([t, -t], -1) + 0.05 * jax.random.normal(key_noise, (num, 2))
        return {"x": x[:, None, None], "index": np.arange(num)}

    def step(state, t):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), t))
        return model.train_step(keys[0], state, points(keys[1]), t)[0], None

    state = model.init(jax.random.key(0), points(jax.random.key(2)))
    state = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(800))[0])(state)
    nll = model.eval_step(jax.random.key(3), state, points(jax.random.key(4)))["nll"].mean()
    # log p = log of a uniform density of length 2 sqrt 2 along the line, and a normal across it.
    exact = np.log(2 * 2**0.5) + 0.5 * np.log(2 * np.pi * np.e * 0.05**2)
    normal = 0.5 * np.log((2 * np.pi * np.e) ** 2 * (2 / 3 + 0.0025) * 0.0025)
    assert exact - 0.1 < nll < exact + 0.15 < normal


interpolated = jax.jit(interpolate, static_argnums=(2, 3))


def test_interpolation_ends_and_lengths():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 7)).astype(np.float32)
    path = np.asarray(interpolated(a, b, 9))
    np.testing.assert_allclose(path[:, 0], a, atol=1e-6)
    np.testing.assert_allclose(path[:, -1], b, atol=1e-6)
    # Between unit vectors: unit vectors, at equal angles.
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    path = np.asarray(interpolated(unit(a), unit(b), 9), np.float64)
    np.testing.assert_allclose(np.linalg.norm(path, axis=-1), 1, atol=1e-6)
    cosines = (path[:, 1:] * path[:, :-1]).sum(-1)
    np.testing.assert_allclose(cosines, np.broadcast_to(cosines[:, :1], cosines.shape), atol=1e-5)
    np.testing.assert_allclose(interpolated(a, a, 5), np.repeat(a[:, None], 5, 1), atol=1e-6)
    # Direction and length change apart: between vectors of two lengths the length is even.
    path = np.asarray(interpolated(a, 3 * unit(b), 5), np.float64)
    first = np.linalg.norm(a, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        np.linalg.norm(path, axis=-1), first + np.linspace(0, 1, 5) * (3 - first), rtol=1e-5
    )


@pytest.mark.parametrize("a, b", [
    ([[-0.349], [0.5], [0.0]], [[0.474], [2.0], [1.0]]),
    ([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]], [[1.0, 2.0], [0.0, 0.0], [6.0, 8.0 + 1e-6]]),
    ([[1.0, 0.0, 0.0]], [[-2.0, 1e-6, 0.0]]),
], ids=["of one number", "of two", "of three"])  # fmt: skip
def test_where_there_is_no_great_circle_the_way_is_straight(a, b):
    """Opposite ways, the same way, and zero vectors: nothing is divided by next to nothing."""
    a, b = np.float32(a), np.float32(b)
    t = np.linspace(0, 1, 7)[None, :, None]
    expected = (1 - t) * a[:, None] + t * b[:, None]
    np.testing.assert_allclose(interpolated(a, b, 7), expected, atol=1e-6)


def test_parts_of_a_latent_go_each_their_own_way():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)

    @jax.jit
    def both(a, b):
        parts = [interpolate(a[:, s], b[:, s], 6) for s in (np.s_[:2], np.s_[2:])]
        return interpolate(a, b, 6, (2, 3)), jnp.concatenate(parts, -1), interpolate(a, b, 6)

    found, parts, whole = jax.device_get(both(a, b))
    np.testing.assert_array_equal(found, parts)
    assert np.abs(found - whole).max() > 0.1
