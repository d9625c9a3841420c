"""The linear autoencoder is PCA; what is added in training is not what is to be decoded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA
from tiny import data_of

from jaxgen.data.config import DataConfig
from jaxgen.errors import UserError
from jaxgen.models.latent.autoencoder import Autoencoder
from jaxgen.optim.optimizer import Optimizer
from jaxgen.spec import DataSpec

DIGITS = data_of(DataConfig())
STEPS, LATENTS = 1500, 4


@pytest.fixture(scope="module")
def linear():
    """A linear autoencoder that was trained on all training digits at once, its state, and them."""
    rate = Optimizer(learning_rate=2e-2, decay_steps=STEPS)
    model = Autoencoder(
        DIGITS.spec, architecture="linear", latents=LATENTS, ema=0.9, optimizer=rate
    )
    x = jax.device_put(DIGITS.splits["train"].x)
    batch = {"x": x, "index": np.arange(len(x))}

    @jax.jit
    def train(state):
        step = lambda t, state: model.train_step(jax.random.key(0), state, batch, t)[0]  # noqa: E731
        return jax.lax.fori_loop(0, STEPS, step, state)

    return model, train(jax.jit(model.init)(jax.random.key(0), batch)), batch


def test_linear_is_pca(linear):
    """Its error is that of the best subspace, and its decoder spans it, to a thousandth."""
    model, state, batch = linear
    x = np.asarray(model.spec.to_float(batch["x"])).reshape(len(batch["x"]), -1)
    pca = PCA(LATENTS).fit(x)
    best = ((pca.inverse_transform(pca.transform(x)) - x) ** 2).sum(1).mean()
    evaluated = jax.jit(model.eval_step)(jax.random.key(0), state, batch)
    error = float(np.asarray(evaluated["squared_error"]).mean())
    assert best <= error * (1 + 1e-6) and error < best * (1 + 1e-3)
    # Beyond the subspace of PCA lies less than a thousandth of every direction of the decoder's.
    decode = jax.jit(lambda z: model.decode(None, state, z))
    z = np.concatenate([np.zeros((1, LATENTS)), np.eye(LATENTS)]).astype(np.float32)
    zero, *each = np.asarray(decode(z)).reshape(len(z), -1)
    directions = (np.stack(each) - zero).T
    basis = np.linalg.qr(directions)[0]
    cosines = np.linalg.svd(pca.components_ @ basis, compute_uv=False)
    assert 1 - cosines.min() ** 2 < 1e-3


def test_codes_decode_to_what_was_scored(linear):
    model, state, batch = linear

    @jax.jit
    def found(key):
        codes = model.encode(key, state, batch)
        decoded, embedded = model.decode(key, state, codes), model.embed(state, batch)
        error = ((decoded - model.spec.to_float(batch["x"])) ** 2).sum((1, 2, 3))
        return error, model.eval_step(key, state, batch)["squared_error"], embedded, codes

    error, scored, embedded, codes = found(jax.random.key(0))
    np.testing.assert_allclose(error, scored, rtol=1e-5)
    np.testing.assert_array_equal(embedded, codes)


@pytest.mark.slow
def test_denoising_decodes_the_clean_data_from_noisy(random_state):
    """In training the error is that of a network whose input alone has noise, one normal of that
    deviation for each sub-pixel."""
    plain = Autoencoder(DataSpec(3, 2, 2, 5), hidden=(7,), latents=2)
    noisy = Autoencoder(DataSpec(3, 2, 2, 5), hidden=(7,), latents=2, noise=0.7)
    state, x = random_state(plain), np.random.default_rng(0).integers(5, size=(20, 3, 2, 2))
    batch = {"x": jnp.asarray(x, jnp.uint8), "index": np.arange(20)}
    floats = plain.spec.to_float(batch["x"])
    key = jax.random.key(3)
    one = lambda i: jax.random.normal(jax.random.fold_in(key, i), (3, 2, 2))  # noqa: E731
    noise = jax.jit(jax.vmap(one))(jnp.arange(20))
    apply = jax.jit(plain.network.apply)
    for model, given in ((plain, floats), (noisy, floats + 0.7 * noise)):
        decoded = apply(state.net.variables, given)
        expected = ((decoded - floats) ** 2).sum((1, 2, 3)).mean()
        measured = jax.jit(model.train_step)(key, state, batch, 0)[1]["squared_error"]
        np.testing.assert_allclose(measured, expected, rtol=1e-5)
    clean = ((apply(state.ema, floats) - floats) ** 2).sum((1, 2, 3))
    evaluated = jax.jit(noisy.eval_step)(key, state, batch)["squared_error"]
    np.testing.assert_allclose(evaluated, clean, rtol=1e-5)


def test_what_cannot_be_is_refused():
    spec = DataSpec(4, 4, 1, 5)
    for wrong, field in [
        ({"latents": 0}, "`latents`"), ({"hidden": (8, 0)}, "`hidden`"),
        ({"noise": -1.0}, "`noise`"), ({"ema": 1.0}, "`ema`"), ({"accumulate": 0}, "`accumulate`"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=field):
            Autoencoder(spec, **wrong)
