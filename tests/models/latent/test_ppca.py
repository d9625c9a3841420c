"""A linear VAE reaches the maximum likelihood of probabilistic PCA through the real trainer.

With a linear decoder and a Gaussian of one scale, the VAE is probabilistic PCA, whose maximum
likelihood has a closed form (Tipping & Bishop 1999, J. R. Stat. Soc. B 61(3)); the posterior is
Gaussian with a diagonal covariance in the right basis, so the bound can be tight (Lucas et al.
2019, arXiv:1911.02469).
"""

import math

import jax
import numpy as np
import pytest

from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import Split
from jaxgen.models.latent.vae import VAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel import inference
from jaxgen.parallel.mesh import make_mesh
from jaxgen.runs import checkpoint
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.state import start
from jaxgen.spec import DataSpec
from jaxgen.training import trainer

SPEC = DataSpec(2, 4, 1, 256)
BIN = 2 / 255
LATENTS = 3
STEPS = 2500


def linear_images(num: int, seed: int) -> np.ndarray:
    """Levels [num 2 4 1] of b + W z + noise, z of three dimensions."""
    rng = np.random.default_rng(7)
    w = np.linalg.qr(rng.normal(size=(SPEC.dims, LATENTS)))[0] * np.array([0.24, 0.2, 0.16])
    b = rng.uniform(-0.05, 0.05, SPEC.dims)
    rng = np.random.default_rng(seed)
    x = b + rng.normal(size=(num, LATENTS)) @ w.T + 0.1 * rng.normal(size=(num, SPEC.dims))
    levels = np.round((x + 1) * 127.5)
    assert 0 < levels.min() and levels.max() < 255  # no level stands for a tail
    return levels.astype(np.uint8).reshape(num, *SPEC.shape)


def normal_log_density(x: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Log density [n] of rows of x, in nats."""
    centred = x - mean
    _, log_det = np.linalg.slogdet(cov)
    mahalanobis = np.einsum("nd,nd->n", centred, np.linalg.solve(cov, centred.T).T)
    return -0.5 * (mahalanobis + log_det + x.shape[1] * math.log(2 * math.pi))


def maximum_likelihood(x: np.ndarray, latents: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the best b + W z + noise (equations 7 and 8)."""
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    rest = values[:-latents].mean()
    best = np.full(len(values), rest)
    best[-latents:] = values[-latents:]
    return x.mean(0), (vectors * best) @ vectors.T


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The data set, x [n d] in [-1, 1], the model, its state, and ELBOs [n] on the train split."""
    before = jax.config.jax_debug_key_reuse
    jax.config.update("jax_debug_key_reuse", False)  # every validation is of the same noise
    sizes = {"train": (3000, 1), "validation": (200, 2), "test": (200, 3)}
    splits = {name: Split.of(linear_images(*size), None) for name, size in sizes.items()}
    dataset = Dataset("linear", SPEC, splits, (), "linear", "a linear-Gaussian model")
    model = VAE(
        SPEC, hidden=(), latents=LATENTS, likelihood="gaussian", scale="shared", dropout=0.0,
        ema=0.99, optimizer=Optimizer(learning_rate=5e-2, decay_steps=STEPS),
    )  # fmt: skip
    config = TrainConfig(
        steps=STEPS, batch_size=300, log_every=500, eval_every=STEPS, samples=10, devices=1
    )
    run, directory = Run("vae", model, DataConfig(), config), tmp_path_factory.mktemp("linear")
    trainer.Trainer(run, dataset, directory, None).train()
    fresh = jax.eval_shape(lambda: start(model.init(jax.random.key(0), SPEC.example(1))))
    with checkpoint.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        progress, step = checkpoints.restore(fresh)
    assert step == STEPS and int(progress.skipped) == 0
    elbo = np.mean([
        inference.per_example(
            model, make_mesh(1), jax.random.key(i), progress.state, splits["train"], 3000
        )["elbo"]
        for i in range(20)
    ], axis=0)  # fmt: skip
    jax.config.update("jax_debug_key_reuse", before)
    x = splits["train"].x.reshape(-1, SPEC.dims) * BIN - 1.0
    return x, progress.state, elbo


def decoder(state) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the density that the trained decoder stands for."""
    out, log_scale = (state.ema["params"][name] for name in ("out", "log_scale"))
    w, sigma = np.asarray(out["kernel"], np.float64).T, math.exp(float(log_scale))
    return np.asarray(out["bias"], np.float64), w @ w.T + sigma**2 * np.eye(SPEC.dims)


def test_the_closed_form_is_a_maximum():
    """Nothing near it has a higher likelihood, and one latent fewer is far below it."""
    x = linear_images(1000, 1).reshape(-1, SPEC.dims) * BIN - 1.0
    mean, cov = maximum_likelihood(x, LATENTS)
    top = normal_log_density(x, mean, cov).mean()
    rng = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(cov)
    w = vectors[:, -LATENTS:] * np.sqrt(values[-LATENTS:] - values[0])
    for _ in range(20):
        near = w + 0.01 * rng.normal(size=w.shape)
        other = near @ near.T + values[0] * math.exp(0.1 * rng.normal()) * np.eye(SPEC.dims)
        assert normal_log_density(x, mean, other).mean() < top
    assert normal_log_density(x, *maximum_likelihood(x, LATENTS - 1)).mean() < top - 0.1


@pytest.mark.slow
def test_the_decoder_reaches_the_maximum_likelihood(trained):
    x, state, _ = trained
    best = normal_log_density(x, *maximum_likelihood(x, LATENTS)).mean()
    ours = normal_log_density(x, *decoder(state)).mean()
    print(f"maximum {best:.4f} nats, trained {ours:.4f}: {best - ours:.4f} below")
    assert -1e-9 < best - ours < 0.02


@pytest.mark.slow
def test_the_bound_is_tight(trained):
    """The ELBO is of masses, the density times the bin's width in each of the D dimensions."""
    x, state, elbo = trained
    exact = normal_log_density(x, *decoder(state)).mean()
    bound = elbo.mean() - SPEC.dims * math.log(BIN)
    print(f"log p(x) {exact:.4f} nats, ELBO {bound:.4f}: {exact - bound:.4f} below")
    assert -0.005 < exact - bound < 0.03  # 20 draws of z per example: an error of 0.002 nats
