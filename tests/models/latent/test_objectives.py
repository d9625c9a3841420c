"""What is trained beside the plain ELBO: several draws, other estimators of the gradient, free
bits. On a linear-Gaussian model, where everything is known: x = W z + b + s e, q(z | x) normal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tiny import TINY, batch_of

from jaxgen.errors import UserError
from jaxgen.losses.bounds import doubly_reparameterized_bound, log_mean_exp
from jaxgen.models.latent.draws import kl_with_free_bits, terms_of, weighted
from jaxgen.models.latent.vae import VAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

X, Z, NOISE = 8, 3, 0.5
RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(X, Z)), RNG.normal(size=X)
PRECISION = np.eye(Z) + W.T @ W / NOISE**2


def model_of(**fields):
    spec = DataSpec(1, 1, X, levels=0)
    return VAE(
        spec, hidden=(), latents=Z, scale="shared", dropout=0.0,
        optimizer=Optimizer("sgd", 1e-2, 0.0), **fields,
    )  # fmt: skip


def variables_of(off=0.0):
    """Those of the model, with q the best of diagonal Gaussians, moved by `off`."""
    # The encoder is given (1 + x) / 2.
    to_mean = np.linalg.solve(PRECISION, W.T) / NOISE**2
    kernel = np.concatenate([2 * to_mean.T, np.zeros((X, Z))], 1)
    bias = np.concatenate([-to_mean @ (B + 1) + off, -np.log(np.diag(PRECISION)) + off])
    params = {
        "posterior": {"kernel": kernel, "bias": bias},
        "out": {"kernel": W.T, "bias": B},
        "log_scale": np.log(NOISE),
    }
    return {"params": jax.tree.map(np.float32, params)}


def examples(num, repeats=1):
    x = np.random.default_rng(1).normal(size=(num, Z)) @ W.T + B
    x = x + NOISE * np.random.default_rng(2).normal(size=(num, X))
    x = np.repeat(x, repeats, 0).astype(np.float32)[:, None, None]
    return {"x": x, "index": np.arange(len(x))}


def exact(batch, w=W):
    """log p(x) of each example, in nats."""
    x = np.asarray(batch["x"]).reshape(-1, X)
    normal = scipy.stats.multivariate_normal(B, w @ w.T + NOISE**2 * np.eye(X))
    return normal.logpdf(x).astype(np.float32)


def test_the_toy_is_the_model(key):
    """A diagonal q misses log p(x) by its KL to the posterior, which has a closed form."""
    batch = examples(4, 4000)
    state = jax.eval_shape(model_of().init, key, batch)
    assert jax.tree.map(jnp.shape, variables_of()) == jax.tree.map(jnp.shape, state.ema)
    terms = jax.jit(lambda: terms_of(model_of(), key, variables_of(), batch))()
    elbo = np.asarray(terms.log_px + terms.log_ratio, np.float64).reshape(4, -1)
    log_px = exact(batch)[::4000]
    diagonal = np.diag(PRECISION)
    gap = 0.5 * (np.log(diagonal).sum() - np.linalg.slogdet(PRECISION)[1])
    error = elbo.std(1) / elbo.shape[1] ** 0.5
    assert gap > 0.1 and (np.abs(elbo.mean(1) - (log_px - gap)) < 4.5 * error).all()


def gradient(model, keys, variables, num):
    """The gradients of L_k of `num` examples [trials ...], one for each key, and their values;
    models are compared by the same keys."""
    return _gradient(model, jax.random.clone(keys), variables, num)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _gradient(model, keys, variables, num):
    batch = examples(num)

    def bound(variables, key):
        found, values, _ = weighted(model, key, variables, batch)
        return found.mean(), values["nll"].mean()

    return jax.vmap(jax.grad(bound, has_aux=True), (None, 0))(variables, keys)


def gradient_of_8_draws(estimator, key, off):
    """Of many keys, by programs that several tests share."""
    keys = jax.random.split(jax.random.clone(key), 4000)
    return gradient(model_of(k=8, estimator=estimator), keys, variables_of(off), 3)


def first(num, tree):
    """The gradients of the first of the keys."""
    return jax.tree.map(lambda leaf: leaf[:num], jax.device_get(tree))


def flat(tree):
    """Gradients of many keys as [trials parameters], in double precision."""
    leaves = [np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(tree)]
    return np.concatenate(leaves, 1)


def test_several_draws_are_the_gradient_of_the_bound(key):
    """Autodiff of log-mean-exp weighs each draw's gradient by its share; the value is the bound."""
    model, variables, batch = model_of(k=4), variables_of(0.3), examples(5)
    draws = jax.random.split(jax.random.clone(key), 4)

    def log_weights(variables):
        terms = [terms_of(model, draws[i], variables, batch) for i in range(4)]
        log_w = jnp.stack([t.log_px + t.log_ratio for t in terms])
        return log_w, log_w

    jacobian, log_w = jax.jit(jax.jacrev(log_weights, has_aux=True))(variables)
    log_w = np.asarray(log_w, np.float64)
    share = np.exp(log_w - log_w.max(0))
    share /= share.sum(0)
    expected = jax.tree.map(
        lambda j: np.einsum("kb,kb...->b...", share, np.asarray(j, np.float64)).mean(0), jacobian
    )
    found, nll = gradient(model, key[None], variables, 5)
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f[0], e, rtol=2e-4, atol=2e-5), found, expected
    )
    bound = np.log(np.exp(log_w - log_w.max(0)).mean(0)) + log_w.max(0)
    np.testing.assert_allclose(nll[0], -bound.mean(), rtol=1e-5)


@pytest.mark.parametrize("estimator", ["reparam", "stl"])
def test_the_gradient_of_the_elbo_in_closed_form(key, estimator):
    """The ELBO is log p(x) - KL(q || posterior) of two Gaussians: its slope by q's mean is -P times
    how far that is off, and by its log variances half of 1 - the variances times P's diagonal."""
    off = 0.3
    keys, variables = jax.random.split(key, 6000), variables_of(off)
    # The KL of the plain estimator is in closed form where one draw is made: here it is drawn.
    found = gradient(model_of(k=1, estimator=estimator), keys, variables, 2)[0]
    bias = np.asarray(found["params"]["posterior"]["bias"], np.float64)
    diagonal = np.diag(PRECISION)
    expected = [*-(PRECISION @ np.full(Z, off)), *(0.5 * (1 - np.exp(off) / diagonal * diagonal))]
    error = bias.std(0) / len(keys) ** 0.5
    assert (np.abs(bias.mean(0) - expected) < 5 * error).all()
    assert (np.abs(expected) > 20 * error).any()


def test_the_score_function_has_the_same_mean(key):
    """E[(log w) d log q(z)], which needs no path through z, is the gradient by q's parameters that
    reparameterization estimates."""
    model, variables, batch = model_of(), variables_of(0.3), examples(2)
    keys, layer = jax.random.split(key, 20_000), variables["params"]["posterior"]

    def surrogate(bias, key):
        moved = {"params": {**variables["params"], "posterior": {**layer, "bias": bias}}}
        draw = model.infer(key, moved, batch)
        terms = model.score(moved, draw._replace(z=jax.lax.stop_gradient(draw.z)), batch)
        # At a fixed z, what moves with q is log q alone; a constant takes noise away.
        log_w = jax.lax.stop_gradient(terms.log_px + terms.log_ratio) - exact(batch)
        return -(log_w * terms.log_ratio).mean()

    slopes = jax.jit(jax.vmap(jax.grad(surrogate), (None, 0)))
    found = np.asarray(slopes(layer["bias"], keys), np.float64)
    expected = [*-(PRECISION @ np.full(Z, 0.3)), *(0.5 * (1 - np.exp(np.full(Z, 0.3))))]
    error = found.std(0) / len(keys) ** 0.5
    assert (np.abs(found.mean(0) - expected) < 5 * error).all()
    assert (np.abs(expected) > 20 * error).any()


@pytest.mark.parametrize("off", [0.0, 0.4])
def test_doubly_reparameterized_is_unbiased_and_quieter(key, off):
    """The mean gradient of q's parameters is that of plain reparameterization; its noise is less,
    also where q is the best."""
    plain, dreg = (
        flat(gradient_of_8_draws(e, key, off)[0]["params"]["posterior"])
        for e in ("reparam", "dreg")
    )
    error = np.sqrt((plain.var(0) + dreg.var(0)) / len(plain))
    live = error > 1e-7
    assert live.sum() > Z and np.abs(plain.mean(0)).max() > 10 * error.max() or off == 0
    assert (np.abs(plain.mean(0) - dreg.mean(0)) < 5 * error)[live].all()
    assert dreg.var(0).sum() < 0.7 * plain.var(0).sum()


def test_the_decoder_s_gradient_is_that_of_the_bound(key):
    """Other estimators change the encoder's gradient alone."""
    found = [first(3, gradient_of_8_draws(e, key, 0.4)) for e in ("reparam", "stl", "dreg")]
    for grads, nll in found[1:]:
        np.testing.assert_array_equal(nll, found[0][1])
        for name in ("out", "log_scale"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                grads["params"][name],
                found[0][0]["params"][name],
            )
    by_q = [flat(grads["params"]["posterior"]) for grads, _ in found]
    assert all(np.abs(a - b).max() > 1e-3 for a in by_q for b in by_q if a is not b)


def test_without_q_s_density_the_gradient_is_zero_where_q_is_the_posterior(key):
    """With one latent q can be the posterior: then every draw weighs p(x), whatever its noise."""
    spec = DataSpec(1, 1, X, levels=0)
    model = VAE(spec, hidden=(), latents=1, scale="shared", dropout=0.0, estimator="stl")
    w = W[:, :1]
    precision = 1 + (w**2).sum() / NOISE**2
    to_mean = w.T / NOISE**2 / precision
    kernel = np.concatenate([2 * to_mean.T, np.zeros((X, 1))], 1)
    bias = np.concatenate([-to_mean @ (B + 1), [-np.log(precision)]])
    params = {"posterior": {"kernel": kernel, "bias": bias}, "out": {"kernel": w.T, "bias": B}}
    params["log_scale"] = np.log(NOISE)
    variables = {"params": jax.tree.map(np.float32, params)}
    keys = jax.random.split(key, 20)
    noisy = {}
    for estimator in ("reparam", "stl", "dreg"):
        one = VAE(spec, hidden=(), latents=1, scale="shared", dropout=0.0, k=3, estimator=estimator)
        grads, nll = gradient(one, keys, variables, 3)
        noisy[estimator] = np.abs(flat(grads["params"]["posterior"])).max()
        np.testing.assert_allclose(nll, -exact(examples(3), w).mean(), atol=1e-4)
    assert noisy["reparam"] > 0.1
    assert noisy["stl"] < 1e-4 and noisy["dreg"] < 1e-4
    assert model.weighs


def test_one_draw_of_dreg_is_stl(key):
    # As many keys and examples as above, which share a program.
    keys, variables = jax.random.split(key, 6000), variables_of(0.4)
    a, b = (
        first(3, gradient(model_of(k=1, estimator=e), keys, variables, 2)) for e in ("stl", "dreg")
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


def test_dreg_by_its_formula():
    """Shares for what the variables do, their squares for what z does."""
    z, v, given = (RNG.normal(size=size).astype(np.float32) for size in ((4, 2, 3), 3, 2))

    def log_weight(v, z):
        return jnp.sin(z * v[None, None]).sum(-1) * given[None], jnp.sum(z)

    @jax.jit
    def found(v, z):
        bound = lambda v, z: doubly_reparameterized_bound(log_weight, v, z)  # noqa: E731
        (bound, aux), pull = jax.vjp(bound, v, z)
        log_w = log_weight(v, z)[0]
        return bound, aux, log_w, log_mean_exp(log_w), pull((jnp.array([1.0, -2.0]), jnp.zeros(())))

    bound, aux, log_w, expected, (by_v, by_z) = jax.device_get(found(v, z))
    np.testing.assert_allclose(bound, expected, rtol=1e-6)
    np.testing.assert_allclose(aux, z.sum(), rtol=1e-6)
    log_w = log_w.astype(np.float64)
    share = np.exp(log_w) / np.exp(log_w).sum(0)
    slope = np.cos(z * v) * given[None, :, None] * [[[1.0], [-2.0]]]
    np.testing.assert_allclose(by_v, (share[..., None] * slope * z).sum((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(by_z, share[..., None] ** 2 * slope * v, rtol=1e-5)


def test_free_bits_are_free_up_to_their_number():
    kl = np.float32([[0.1, 2.0, 0.0], [0.3, 1.0, 0.6]])

    @jax.jit
    def found(kl):
        """The value and its slopes; and that of the batch spread over devices."""
        spread = jax.vmap(lambda kl: kl_with_free_bits(kl[None], 0.25, "d"), axis_name="d")(kl)
        return jax.value_and_grad(lambda kl: kl_with_free_bits(kl, 0.25, None))(kl), spread

    (value, slope), spread = jax.device_get(found(kl))
    np.testing.assert_allclose(value, 0.25 + 1.5 + 0.3, rtol=1e-6)
    np.testing.assert_allclose(slope, [[0, 0.5, 0.5], [0, 0.5, 0.5]])
    # Of the whole batch, also where it is spread over devices.
    np.testing.assert_allclose(spread.mean(), value, rtol=1e-6)


def test_free_bits_move_the_loss_and_not_what_is_logged(random_state):
    free = model_of(free_bits=50.0)
    state, batch = random_state(free), examples(8)
    steps = [jax.jit(m.train_step)(jax.random.key(0), state, batch, 0) for m in (model_of(), free)]
    for name in ("elbo", "kl", "reconstruction"):
        np.testing.assert_array_equal(steps[0][1][name], steps[1][1][name])
    # No latent has as much as is free: the KL has no gradient.
    no_kl = model_of(beta=0.0)
    expected, _ = jax.jit(no_kl.train_step)(jax.random.key(0), state, batch, 0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        steps[1][0].net.params,
        expected.net.params,
    )
    assert np.abs(steps[0][0].net.params["posterior"]["bias"]
                  - expected.net.params["posterior"]["bias"]).max() > 1e-4  # fmt: skip


def test_evaluation_has_as_many_draws_as_training(random_state):
    model = TINY["iwae"]
    state, batch = random_state(model), batch_of(6, model.spec)
    found = jax.jit(model.eval_step)(jax.random.key(3), state, batch)
    assert (found["nll"] < -found["elbo"]).all()
    np.testing.assert_allclose(found["elbo"], -found["reconstruction"] - found["kl"], rtol=1e-5)


@pytest.mark.parametrize("fields, match", [
    ({"k": 0}, "`k` must be at least 1; got 0"),
    ({"free_bits": -1.0}, "`free_bits` must not be negative"),
    ({"free_bits": 0.5, "k": 2}, "`free_bits`=0.5 has no effect without `k`=1"),
    ({"free_bits": 0.5, "accumulate": 2}, "set `accumulate`=1"),
])  # fmt: skip
def test_refuses_impossible_fields(fields, match):
    with pytest.raises(UserError, match=match):
        model_of(**fields)
