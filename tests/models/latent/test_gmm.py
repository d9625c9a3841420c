"""The mixture of Gaussians against SciPy's densities, EM's fit, and its own samples."""

import jax
import numpy as np
import pytest
import scipy.stats
from sklearn.mixture import GaussianMixture
from tiny import some

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.latent.gmm import FULL, GMM
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec


def spec(dims):
    return DataSpec(1, 1, dims, 0, ranges=((-1.0, 1.0),) * dims)


def random_mixture(random_state, dims, components=3):
    model = GMM(spec(dims), components=components)
    return model, random_state(model)


@pytest.mark.parametrize("dims", some([1, 3, FULL + 1], [3, FULL + 1]))
def test_density_is_scipy_s(random_state, dims):
    model, state = random_mixture(random_state, dims)
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), state.ema["params"])
    weights = np.exp(params["logits"] - params["logits"].max())
    weights /= weights.sum()
    x = np.random.default_rng(0).normal(size=(7, 1, 1, dims)).astype(np.float32)
    density = np.zeros(7)
    for k, weight in enumerate(weights):
        root = np.diag(np.exp(params["log_diagonal"][k]))
        if dims <= FULL:
            root[np.tril_indices(dims, -1)] = params["below"][k]
        normal = scipy.stats.multivariate_normal(params["mean"][k], np.linalg.inv(root.T @ root))
        density += weight * normal.pdf(x.reshape(7, dims))
    batch = {"x": jax.device_put(x), "index": np.arange(7)}
    nll = jax.jit(model.eval_step)(jax.random.key(0), state, batch)["nll"]
    np.testing.assert_allclose(nll, -np.log(density), rtol=1e-4, atol=1e-4)
    shares = np.asarray(jax.jit(model.embed)(state, batch))
    np.testing.assert_allclose(shares.sum(-1), np.ones(7), rtol=1e-5)


@pytest.mark.parametrize("dims", [2, FULL + 1])
def test_samples_have_its_mean_and_covariance(random_state, dims):
    model, state = random_mixture(random_state, dims)
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), state.ema["params"])
    weights = np.exp(params["logits"]) / np.exp(params["logits"]).sum()
    mean = weights @ params["mean"]
    covariance = np.zeros((dims, dims))
    for k, weight in enumerate(weights):
        root = np.diag(np.exp(params["log_diagonal"][k]))
        if dims <= FULL:
            root[np.tril_indices(dims, -1)] = params["below"][k]
        offset = params["mean"][k] - mean
        covariance += weight * (np.linalg.inv(root.T @ root) + np.outer(offset, offset))
    num = 40_000
    sample = jax.jit(lambda t: model.sample(jax.random.key(0), state, num, Request(temperature=t)))
    drawn = np.asarray(sample(1.0), np.float64).reshape(num, dims)
    error = np.sqrt(np.diag(covariance) / num)
    assert (np.abs(drawn.mean(0) - mean) < 5 * error).all()
    products = (drawn - mean)[:, :, None] * (drawn - mean)[:, None]
    assert (np.abs(products.mean(0) - covariance) < 5.5 * products.std(0) / num**0.5).all()
    cold = np.asarray(sample(1e-6))[:50]
    apart = np.abs(cold.reshape(50, 1, dims) - params["mean"]).max(-1).min(1)
    assert apart.max() < 1e-4


@pytest.mark.slow
def test_gradient_reaches_what_em_reaches():
    """On the ring, of as many Gaussians; by chance either may be the better one."""
    data = load(DataConfig(dataset="ring"))
    model = GMM(data.spec, components=8, ema=0.9, optimizer=Optimizer(learning_rate=2e-2))
    x = jax.device_put(data.splits["train"].x[:4000])
    batch = {"x": x, "index": np.arange(len(x))}

    @jax.jit
    def train(state):
        step = lambda t, state: model.train_step(jax.random.key(0), state, batch, t)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 600, step, state)

    state = model.init(jax.random.key(1), batch)
    # Each of the means is an example.
    means = np.asarray(state.net.params["mean"])
    assert (np.abs(np.asarray(x).reshape(1, -1, 2) - means[:, None]).max(-1).min(1) == 0).all()
    ours = float(model.eval_step(jax.random.key(0), train(state), batch)["nll"].mean())
    em = GaussianMixture(8, n_init=5, random_state=0).fit(np.asarray(x).reshape(-1, 2))
    theirs = -em.score(np.asarray(x).reshape(-1, 2))
    assert abs(ours - theirs) < 0.02


def test_refuses_what_it_cannot_be():
    with pytest.raises(UserError, match="the data has 17 levels"):
        GMM(DataSpec(8, 8, 1, 17))
    with pytest.raises(UserError, match="leave --conditional out"):
        GMM(DataSpec(1, 1, 2, 0, 3, ranges=((0.0, 1.0),) * 2))
    with pytest.raises(UserError, match="`components` must be at least 1"):
        GMM(spec(2), components=0)
