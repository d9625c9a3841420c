"""Latents found by gradient descent, against least squares and against those that made the data."""

import jax
import numpy as np
import pytest
from tiny import TINY, some
from toys import SMALL, Codes

from jaxgen.evaluation.projection import project


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("prior", [0.0, 2.0])
def test_a_linear_decoder_s_is_the_least_squares_solution(prior, random_state):
    """With the prior, ridge regression's; from the worst of starts, and beside others."""
    model = Codes(SMALL)
    state, x = random_state(model), normal(1, 3, *SMALL.shape)
    starts = np.stack([normal(2, 3, 4), np.full((3, 4), 9, np.float32)])
    how = {"steps": 400, "rate": 0.3, "prior": prior}
    found = project(model, jax.random.key(0), state, x, starts, **how)
    up = np.asarray(state.ema["params"]["up"], np.float64)
    flat = np.asarray(x, np.float64).reshape(3, -1)
    z = np.linalg.solve(up @ up.T + prior * np.eye(4), up @ flat.T).T
    np.testing.assert_allclose(found.z, z, atol=2e-3)
    error = ((z @ up - flat) ** 2).mean(1)
    np.testing.assert_allclose(found.error, error, rtol=1e-3)
    np.testing.assert_allclose(np.asarray(found.x).reshape(3, -1), z @ up, atol=1e-2)
    # To what is far away Adam takes steps of the rate, which falls along a cosine.
    far = project(model, jax.random.key(0), state, 1e6 * x, 0 * starts, **how)
    falling = 0.5 + 0.5 * np.cos(np.pi * np.arange(400) / 400)
    np.testing.assert_allclose(np.abs(far.z), 0.3 * falling.sum(), rtol=0.02)
    alone = project(model, jax.random.key(0), state, x[:1], starts[:, :1], **how)
    np.testing.assert_allclose(alone.z, found.z[:1], atol=1e-3)


@pytest.mark.parametrize("name", some(["vae", "stylegan2"], ["vae"]))
def test_what_a_model_generated_is_found_again(name, random_state):
    """Noise that is drawn on the way included, which follows from the key and the number."""
    model = TINY[name]
    state, label = random_state(model), np.arange(4) % 3
    z = normal(3, 4, sum(model.groups))
    x = np.asarray(jax.jit(model.decode)(jax.random.key(5), state, z, label, 7))
    starts = np.concatenate([normal(4, 3, *z.shape), z[None] + 0.3])
    found = project(model, jax.random.key(5), state, x, starts, label, 7, steps=300, rate=0.1)
    spread = float(((x - x.mean(0, keepdims=True)) ** 2).mean())
    assert found.error.max() < 1e-3 * spread


def test_the_best_start_and_the_best_of_its_way_are_kept(random_state):
    """With a rate at which every step is a bound too far, the start itself."""
    model = Codes(SMALL)
    state = random_state(model)
    z = normal(1, 2, 4)
    x = jax.jit(model.decode)(jax.random.key(0), state, z)
    starts = np.stack([z + 1, z, z - 1])
    found = project(model, jax.random.key(0), state, x, starts, steps=3, rate=1e3)
    np.testing.assert_allclose(found.z, z, atol=1e-6)
