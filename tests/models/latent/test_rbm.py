"""The Boltzmann machine on pixels few enough to sum over: its density, chains, and constant."""

import itertools

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxgen.cli import main, train
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.evaluation.partition import of_runs
from jaxgen.model import Request
from jaxgen.models.latent.rbm import RBM
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.inference import examples
from jaxgen.registry import load_run
from jaxgen.spec import DataSpec

SPEC = DataSpec(2, 3, 1, 2)
IMAGES = np.array(list(itertools.product((0, 1), repeat=SPEC.dims)), np.uint8)
IMAGES = IMAGES.reshape(-1, *SPEC.shape)


def batch_of(images):
    return {"x": np.asarray(images), "index": np.arange(len(images))}


def log_joint(params, hidden):
    """The negative energy [images, hidden states] of every pair, in float64 (Hinton 2012,
    equation 1)."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = IMAGES.reshape(len(IMAGES), -1).astype(np.float64)
    h = np.array(list(itertools.product((0.0, 1.0), repeat=hidden)))
    return (x @ p["visible"])[:, None] + h @ p["hidden"] + x @ p["weights"] @ h.T


@pytest.fixture(scope="module")
def machine(random_state):
    model = RBM(SPEC, hidden=4, chains=50, sweeps=60, ais_steps=200)
    state = random_state(model)
    state = state.replace(machine=state.machine.replace(ema=state.machine.net.variables))
    joint = log_joint(state.machine.ema["params"], 4)
    return model, state, joint


def test_density_is_the_sum_over_hidden_states(machine):
    model, state, joint = machine
    found = jax.jit(model.log_unnormalized)(state, batch_of(IMAGES))
    np.testing.assert_allclose(found, logsumexp(joint, 1), rtol=1e-5)
    features = jax.jit(model.embed)(state, batch_of(IMAGES))
    h = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    posterior = np.exp(joint - logsumexp(joint, 1, keepdims=True)) @ h
    np.testing.assert_allclose(features, posterior, rtol=1e-5)


def test_pseudo_likelihood_is_that_of_each_pixel_given_the_others(machine):
    model, state, joint = machine
    log_p = logsumexp(joint, 1).reshape((2,) * SPEC.dims)
    each = [log_p - logsumexp(log_p, axis, keepdims=True) for axis in range(SPEC.dims)]
    found = jax.jit(model.eval_step)(jax.random.key(0), state, batch_of(IMAGES))["pseudo_nll"]
    np.testing.assert_allclose(found, -sum(each).ravel(), rtol=1e-4, atol=1e-5)


def test_the_constant_is_the_sum_over_every_image(machine, key):
    """Runs of annealing have the mean Z: within five standard errors, and near it in logarithms."""
    model, state, joint = machine
    annealed = jax.jit(model.log_partition, static_argnums=2)
    runs = np.asarray(annealed(key, state, 2000))
    weights = np.exp(np.asarray(runs, np.float64) - logsumexp(joint))
    assert abs(weights.mean() - 1) < 5 * weights.std() / len(weights) ** 0.5
    found = of_runs(np.asarray(runs, np.float64))
    assert found.low < found.log_z < found.high and abs(found.log_z - logsumexp(joint)) < 0.05
    # Too few densities in between: the estimate is of the same mean, with a larger error.
    coarse = RBM(SPEC, hidden=4, chains=50, ais_steps=1)
    rough = jax.jit(coarse.log_partition, static_argnums=2)(key, state, 2000)
    assert np.exp(np.asarray(rough, np.float64)).std() > 3 * np.exp(np.asarray(runs)).std()
    again = annealed(jax.random.clone(key), state, 3, 7)
    np.testing.assert_allclose(again, runs[7:10], rtol=1e-6)


def test_an_interval_is_three_standard_errors_of_the_mean_weight():
    found = of_runs(np.log([1.0, 2.0, 3.0, 4.0]) - 1000)
    error = 3 * np.std([1, 2, 3, 4], ddof=1) / 2
    expected = np.log(2.5), np.log(2.5 + error)
    np.testing.assert_allclose((found.log_z + 1000, found.high + 1000), expected, atol=1e-9)
    np.testing.assert_allclose(found.low + 1000, np.log(2.5 - error), atol=1e-9)
    assert abs(found.effective - 100 / 30) < 1e-9
    wide = of_runs(np.array([0.0, 9.0, -3.0]))
    assert wide.low is None and "three standard errors: -inf to" in str(wide)


@pytest.mark.slow
def test_chains_end_with_the_machine_s_density(machine, key):
    model, state, joint = machine
    log_p = logsumexp(joint, 1) - logsumexp(joint)
    places = 2 ** np.arange(SPEC.dims)[::-1]
    for temperature in (1.0, 2.0):
        p = np.exp(logsumexp(joint / temperature, 1) - logsumexp(joint / temperature))
        num = 20_000
        x = jax.jit(model.sample, static_argnums=2)(
            jax.random.clone(key), state, num, Request(temperature=temperature)
        )
        counts = np.bincount(np.asarray(x).reshape(num, -1) @ places, minlength=len(p))
        assert (np.abs(counts - num * p) < 5 * (num * p * (1 - p)) ** 0.5 + 1).all()
    assert np.exp(log_p).max() > 2 * np.exp(log_p).min()


def test_completions_have_the_density_given_the_known_pixels(machine, key):
    model, state, joint = machine
    num, log_p = 8000, logsumexp(joint, 1).reshape((2,) * SPEC.dims)
    known = np.array([1, 0, 1, 1, 0, 1], bool).reshape(SPEC.shape)
    given = np.array([1, 0, 0, 1, 1, 0], np.uint8).reshape(SPEC.shape)
    many = lambda a: np.broadcast_to(a, (num, *SPEC.shape))  # noqa: E731
    x = jax.jit(model.complete)(jax.random.clone(key), state, many(given), many(known))
    x = np.asarray(x).reshape(num, -1)
    assert (x[:, known.ravel()] == given.ravel()[known.ravel()]).all()
    table = log_p[1, :, 0, 1, :, 0]
    p = np.exp(table - logsumexp(table))
    counts = np.histogram2d(x[:, 1], x[:, 4], bins=[[-1, 0.5, 2]] * 2)[0]
    assert (np.abs(counts - num * p) < 5 * (num * p * (1 - p)) ** 0.5).all()


def test_with_many_chains_a_step_is_the_gradient_of_the_likelihood(machine, key):
    """Chains that have run long stand for the density; data are one batch."""
    model, state, joint = machine
    p = np.exp(logsumexp(joint, 1) - logsumexp(joint))
    num, data = 20_000, IMAGES[[3, 17, 40, 41]]
    plain = RBM(SPEC, hidden=4, chains=num, optimizer=Optimizer("sgd", 1.0, b1=0.0))
    chosen = np.random.default_rng(0).choice(len(IMAGES), num, p=p)
    state = state.replace(chains=jax.device_put(IMAGES[chosen].reshape(num, -1)))
    step = jax.jit(plain.train_step)
    new, metrics = step(jax.random.clone(key), state, batch_of(data), 0)
    old, params = jax.device_get((state.machine.net.params, new.machine.net.params))
    embed = jax.jit(model.embed)

    def statistics(images, weights):
        """Means of x, h and x h under the posterior of h."""
        x = images.reshape(len(images), -1).astype(np.float64)
        h = np.asarray(embed(state, batch_of(images)), np.float64)
        return {
            "visible": weights @ x, "hidden": weights @ h, "weights": (weights[:, None] * x).T @ h
        }  # fmt: skip

    of_data, of_model = statistics(data, np.full(4, 0.25)), statistics(IMAGES, p)
    for name, before in old.items():
        moved, expected = params[name] - before, of_data[name] - of_model[name]
        np.testing.assert_allclose(moved, expected, atol=5 * 0.5 / num**0.5)
        assert np.abs(expected).max() > 0.1
    assert not np.array_equal(new.chains, state.chains)


def test_what_cannot_be_is_refused():
    for spec, told in [
        (DataSpec(4, 4, 1, 17), "the data are 17 levels: make them so with --binarize"),
        (DataSpec(1, 1, 2, 0), "the data are real numbers"),
        (DataSpec(4, 4, 1, 2, 3), "leave --conditional out"),
    ]:
        with pytest.raises(UserError, match=told):
            RBM(spec)
    for field in ("hidden", "chains", "gibbs", "sweeps", "ais_steps", "accumulate"):
        with pytest.raises(UserError, match=f"`{field}`"):
            RBM(SPEC, **{field: 0})


@pytest.mark.slow
def test_annealing_reaches_the_exact_sum_on_binarized_digits(tmp_path, monkeypatch):
    """With 12 hidden units, whose 4,096 states can be summed: within 0.3 nats."""
    monkeypatch.setattr(train, "finish_seeds", lambda *args: None)
    main.main(["train", "--model=rbm", "--rbm.hidden=12", f"--run={tmp_path / 'run'}"])
    saved = load_run(tmp_path / "run")
    p = saved.state.machine.ema["params"]
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
    h = np.array(list(itertools.product((0.0, 1.0), repeat=12)))
    exact = logsumexp(h @ p["hidden"] + np.logaddexp(0, p["visible"] + h @ p["weights"].T).sum(1))
    model = saved.model
    runs = jax.jit(model.log_partition, static_argnums=2)(jax.random.key(5), saved.state, 500)
    assert abs(of_runs(np.asarray(runs, np.float64)).log_z - exact) < 0.3
    dataset = load(DataConfig(binarize="threshold"))
    test = examples(dataset.splits["test"], model.spec, slice(None))
    nll = exact - np.asarray(model.log_unnormalized(saved.state, test), np.float64)
    assert nll.mean() < 24.5  # independent pixels: 24.9
