"""The vector-quantized VAE: its codebook, its gradients, its two stages, its bound."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BATCH, batch_of, some

from jaxgen.causal.check import check_autoregressive
from jaxgen.errors import UserError
from jaxgen.model import Request
from jaxgen.models.latent.vqvae import VQVAE
from jaxgen.nn.codebook import Codebook, straight_through
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

SPEC = DataSpec(4, 6, 1, 5)
SGD = Optimizer("sgd", 0.1, b1=0.0)


def model_of(spec=SPEC, **fields):
    small = {
        "codes": 4,
        "size": 2,
        "halvings": 1,
        "filters": 3,
        "features": 3,
        "blocks": 1,
        "optimizer": SGD,
    }
    return VQVAE(spec, **{**small, **fields})


@jax.jit
def vectors_of(variables):
    return Codebook(**variables["codebook"]).vectors


@pytest.fixture(scope="module")
def make_state(random_state):
    """model -> random parameters, of which the averages are copies."""

    def make(model):
        state = random_state(model)
        own = lambda part: part.replace(ema=part.net.variables)  # noqa: E731
        return state.replace(autoencoder=own(state.autoencoder), prior=own(state.prior))

    return make


def test_codebook_is_the_mean_of_what_its_codes_stood_for():
    """The nearest by loops; with the same vectors again and again, each code goes to their mean."""
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(2, 3, 3, 2)).astype(np.float32), rng.normal(size=(5, 2))

    @jax.jit
    def begin(codes, x):
        codebook = Codebook.of(codes, 9)
        return codebook, codebook.vectors, codebook.nearest(x)

    codebook, vectors, found = jax.device_get(begin(codes.astype(np.float32), x))
    np.testing.assert_allclose(vectors, codes, rtol=1e-6)
    for place in np.ndindex(2, 3, 3):
        assert found[place] == ((codes - x[place]) ** 2).sum(1).argmin()
    rows, numbers = x.reshape(-1, 2), found.ravel()
    move = jax.jit(lambda codebook: codebook.moved(rows, numbers, 2, 0.9))
    moved = move(codebook)
    count = np.bincount(numbers, minlength=5) / 2
    np.testing.assert_allclose(moved.counts, 0.9 * 9 / 5 + 0.1 * count, rtol=1e-6)
    for k in range(5):
        total = x.reshape(-1, 2)[numbers == k].sum(0) / 2
        np.testing.assert_allclose(moved.sums[k], 0.9 * codes[k] * 9 / 5 + 0.1 * total, rtol=1e-5)
    for _ in range(300):
        codebook = move(codebook)
    vectors, perplexity = jax.device_get(jax.jit(lambda c: (c.vectors, c.perplexity))(codebook))
    for k in set(numbers):
        mean = x.reshape(-1, 2)[numbers == k].mean(0)
        np.testing.assert_allclose(vectors[k], mean, rtol=1e-4, atol=1e-6)
    assert np.isfinite(vectors).all()
    p = count / count.sum()
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    np.testing.assert_allclose(perplexity, np.exp(entropy), rtol=1e-4)


def test_gradient_goes_straight_through():
    x, z = jnp.array([1.0, 2.0]), jnp.array([5.0, -1.0])
    value, pull = jax.vjp(straight_through, x, z)
    np.testing.assert_allclose(value, z)
    to_x, to_z = pull(jnp.array([3.0, 4.0]))
    np.testing.assert_array_equal(to_x, [3.0, 4.0])
    np.testing.assert_array_equal(to_z, [0.0, 0.0])


def test_first_stage_is_the_paper_s_loss(make_state):
    """Equation 3, the codebook by averages: the encoder's gradient is that of the reconstruction at
    the code, pulled back as if it were at the encoding, and of the commitment."""
    model = model_of(commitment=0.7)
    state, batch = make_state(model), batch_of(6, SPEC)
    new, metrics = jax.jit(model.train_step)(jax.random.key(0), state, batch, 0)
    variables = state.autoencoder.net.variables

    @jax.jit
    def gradients(params):
        x, codebook = SPEC.to_float(batch["x"]), Codebook(**variables["codebook"])
        apply = lambda p, *a, method: model.network.apply({"params": p}, *a, method=method)  # noqa: E731
        e, pull = jax.vjp(lambda p: apply(p, x, method="encode"), params)
        z = codebook.vectors[codebook.nearest(e)]

        def decode(p, z):
            return -model.observation.log_prob(apply(p, z, method="decode"), batch["x"]).mean()

        loss, (to_params, to_z) = jax.value_and_grad(decode, (0, 1))(params, z)
        (to_encoder,) = pull(to_z + 2 * 0.7 * (e - z) / len(x))
        return loss, jax.tree.map(jnp.add, to_params, to_encoder), ((e - z) ** 2).sum() / len(x)

    loss, grads, far = jax.device_get(gradients(variables["params"]))
    np.testing.assert_allclose(metrics["reconstruction"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["commitment"], far, rtol=1e-4)
    params = jax.device_get(variables["params"])
    expected = jax.tree.map(lambda p, g: p - np.float32(0.1) * g, params, grads)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, new.autoencoder.net.params, expected)
    jax.tree.map(np.testing.assert_array_equal, new.prior, state.prior)


def test_second_stage_trains_the_prior_alone(make_state):
    model = model_of(prior_from=7, dropout=0.0)
    assert model.changes == (7,) and model.at(6) == model and model.at(7).changes == ()
    later, state, batch = model.at(7), make_state(model), batch_of(6, SPEC)
    new, metrics = jax.jit(later.train_step)(jax.random.key(0), state, batch, 7)
    jax.tree.map(np.testing.assert_array_equal, new.autoencoder, state.autoencoder)
    evaluate = jax.jit(model.eval_step)
    before = jax.device_get(evaluate(jax.random.key(0), state, batch))
    np.testing.assert_allclose(metrics["code_nats"], before["code_nats"].mean(), rtol=1e-5)
    own = new.prior.replace(ema=new.prior.net.variables)
    after = jax.device_get(evaluate(jax.random.key(0), new.replace(prior=own), batch))
    assert after["code_nats"].mean() < before["code_nats"].mean()
    np.testing.assert_array_equal(after["reconstruction"], before["reconstruction"])


@pytest.mark.parametrize("codes", some([2, 3, 4], [3]))
def test_the_prior_is_a_density_of_names(codes, make_state):
    """It sums to one; a code's number says nothing about its size, and no future is seen."""
    model = model_of(codes=codes)
    state, grid = make_state(model), model.grid
    assert grid == DataSpec(2, 3, 1, codes)
    every = np.array(list(itertools.product(range(codes), repeat=6)), np.uint8)
    chain = model.prior.chain(state.prior.ema)
    log_p = jax.jit(lambda x: chain.log_prob(x).sum((1, 2, 3)))(every.reshape(-1, *grid.shape))
    assert abs(np.exp(np.asarray(log_p, np.float64)).sum() - 1) < 1e-5 and log_p.std() > 0.1
    see = jax.jit(lambda x: chain.network.apply(chain.variables, grid.to_float(x)))
    check_autoregressive(see, grid.shape, levels=codes)
    enter = jax.jit(lambda x: chain.network._entered(grid.to_float(x)))
    entered = enter(np.arange(codes).reshape(-1, 1, 1, 1))
    np.testing.assert_array_equal(entered.reshape(codes, codes), np.eye(codes))


def test_bound_is_below_the_mass_and_samples_are_of_the_product(make_state):
    """On images that can be counted: p(x), the sum over all codes, is above the bound; and x is
    drawn with it."""
    spec = DataSpec(2, 2, 1, 2)
    model = model_of(spec, halvings=1, codes=3)
    state = make_state(model)
    images = np.array(list(itertools.product((0, 1), repeat=4)), np.uint8).reshape(-1, 2, 2, 1)
    batch = {"x": jax.device_put(images), "index": np.arange(16)}
    codes = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)

    @jax.jit
    def every_code(state):
        """log p(z) and log p(x | z) of each, and the code that each image has."""
        vectors = Codebook(**state.autoencoder.ema["codebook"]).vectors
        given = lambda k: jnp.tile(vectors[k], (16, 1, 1, 1))  # noqa: E731
        log_px = [model.log_px(state.autoencoder.ema, given(k), batch) for k in range(3)]
        log_z = model.prior.chain(state.prior.ema).log_prob(codes)
        return log_z, log_px, model.quantized(state.autoencoder.ema, batch["x"])

    log_z, log_px, chosen = jax.device_get(every_code(state))
    joint = np.asarray(log_z, np.float64).reshape(3, 1) + np.asarray(log_px, np.float64)
    log_p = np.log(np.exp(joint).sum(0))
    assert abs(np.exp(log_p).sum() - 1) < 1e-5
    nll = np.asarray(jax.jit(model.eval_step)(jax.random.key(0), state, batch)["nll"])
    assert (-nll < log_p + 1e-5).all() and (log_p + nll).max() > 0.01
    likeliest = joint[chosen.ravel(), np.arange(16)]
    np.testing.assert_allclose(-nll, likeliest, rtol=1e-5, atol=1e-5)
    num = 20_000
    drawn = jax.jit(model.sample, static_argnums=2)(jax.random.key(3), state, num)
    counts = np.bincount(np.asarray(drawn).reshape(num, 4) @ [8, 4, 2, 1], minlength=16)
    p = np.exp(log_p)
    assert (np.abs(counts - num * p) < 5 * (num * p * (1 - p)) ** 0.5 + 1).all()


def test_samplers_agree_bit_for_bit_and_each_sample_is_of_its_number(make_state):
    model = model_of(codes=4)
    state = make_state(model)
    naive = model_of(codes=4, sampler="naive")

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def draw(model, num, start=0):
        return model.sample(jax.random.key(1), state, num, Request(start=start))

    whole = np.asarray(draw(naive, 12))
    np.testing.assert_array_equal(np.concatenate([draw(model, 4, i) for i in (0, 4, 8)]), whole)
    np.testing.assert_array_equal(draw(model, 4, 5), whole[5:9])
    assert len(np.unique(whole, axis=0)) > 6


def test_codes_come_back_and_vectors_decode(make_state):
    model = model_of()
    state, batch = make_state(model), batch_of(5, SPEC)
    z = np.asarray(jax.jit(model.encode)(jax.random.key(0), state, batch))
    vectors = np.asarray(vectors_of(state.autoencoder.ema))
    distance = ((z.reshape(-1, 1, 2) - vectors[None]) ** 2).sum(-1).min(1)
    np.testing.assert_allclose(distance, 0, atol=1e-9)
    shown = jax.jit(model.inspect)(jax.random.key(0), state, batch)
    assert 1 <= shown.numbers["codes in use"] <= 4
    np.testing.assert_allclose(shown.heatmaps["share of each code"].sum(), 1, rtol=1e-6)
    slope = jax.jit(jax.grad(lambda z: model.decode(jax.random.key(0), state, z).sum()))(z)
    assert np.abs(slope).max() > 0


SHAPES = {
    "one pixel": DataSpec(1, 1, 1, 5),
    "odd": DataSpec(5, 3, 3, 4, 3),
    "sound": DataSpec(1, 9, 1, 16, rate=4000),
    "points": DataSpec(1, 1, 2, 0, ranges=((-1.0, 1.0),) * 2),
}


@pytest.mark.parametrize("name", some(SHAPES, []))
def test_any_shape_of_x(name, random_state):
    spec = SHAPES[name]
    model = model_of(spec, halvings=2)
    state, batch = random_state(model), batch_of(BATCH, spec)

    @jax.jit
    def whole(state):
        new, metrics = model.train_step(jax.random.key(0), state, batch, 0)
        new, more = model.at(1000).train_step(jax.random.key(1), new, batch, 1000)
        return metrics | more, model.sample(jax.random.key(2), new, 3)

    metrics, x = whole(state)
    assert all(np.isfinite(value) for value in metrics.values())
    assert x.shape == (3, *spec.shape) and x.dtype == spec.dtype


def test_the_codebook_begins_among_what_is_encoded():
    model, batch = model_of(codes=16), batch_of(40, SPEC)
    state = jax.jit(model.init)(jax.random.key(0), batch)
    variables = state.autoencoder.net.variables
    vectors = np.asarray(vectors_of(variables))
    e = np.asarray(jax.jit(model.encoded)(variables, batch["x"])).reshape(-1, 2)
    distance = np.linalg.norm(vectors[:, None] - e[None], axis=-1).min(1)
    assert distance.max() < 0.06 and len(np.unique(vectors, axis=0)) == 16


def test_what_cannot_be_is_refused():
    for field, value in [
        ("codes", 1), ("codes", 257), ("size", 0), ("filters", 0), ("halvings", -1),
        ("commitment", -1.0), ("decay", 1.0), ("ema", 1.0), ("dropout", -0.1), ("halvings", 99),
        ("accumulate", 0), ("prior_from", -1),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=f"`{field}`"):
            model_of(**{field: value})
