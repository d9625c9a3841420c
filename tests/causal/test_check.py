"""The causality check finds every planted dependence, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.causal.check import CHUNK, check_autoregressive
from jaxgen.errors import UserError
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.spec import DataSpec


def _linear(matrix, shape, trailing=()):
    """A network whose output i depends on exactly the inputs where matrix[i] is not 0."""

    def fn(images):
        flat = np.asarray(images, np.float32).reshape(len(images), -1)
        out = flat @ matrix.T.astype(np.float32)
        out = out.reshape(-1, *shape, *(1,) * len(trailing))
        return np.broadcast_to(out, (*out.shape[:4], *trailing))

    return fn


@pytest.mark.parametrize("levels", [None, 2, 5])
@pytest.mark.parametrize("trailing", [(), (3,), (2, 2)])
def test_finds_exactly_the_planted_dependences(levels, trailing):
    shape = (3, 5, 3)
    rng = np.random.default_rng(0)
    # Powers of two and signs: no dependence is lost to rounding.
    planted = rng.choice([0, 0, 1, -2], size=(45, 45))
    report = check_autoregressive(_linear(planted, shape, trailing), shape, levels=levels)
    np.testing.assert_array_equal(report.sees, planted != 0)
    place = lambda i: tuple(int(n) for n in np.unravel_index(i, shape))  # noqa: E731
    expected = [(place(i), place(j)) for i in range(45) for j in range(45) if planted[i, j]]
    assert report.leaks == [(i, j) for i, j in expected if j >= i]
    unseen = [(place(i), place(j)) for i in range(45) for j in range(i) if not planted[i, j]]
    assert report.blind == unseen
    assert not report.is_autoregressive


@pytest.mark.parametrize("leak", [(7, 7), (0, 80), (79, 80), (None, None)])
def test_one_leak_among_several_chunks(leak):
    shape = (9, 9, 1)
    assert CHUNK < 81  # so that the last chunk is padded
    matrix = np.tril(np.ones((81, 81)), -1)
    if leak[0] is not None:
        matrix[leak] = 1
    report = check_autoregressive(_linear(matrix, shape), shape, levels=4)
    assert report.is_autoregressive == (leak[0] is None)
    assert report.blind == []
    places = [(n // 9, n % 9, 0) for n in leak if n is not None]
    assert report.leaks == ([tuple(places)] if places else [])


def test_not_differentiable_and_levels():
    # Output d counts the earlier sub-pixels at level 2: its gradient is zero everywhere.
    def count(images):
        assert images.dtype == jnp.int32 and int(images.max()) <= 3 and int(images.min()) >= 0
        hits = (np.asarray(images).reshape(len(images), -1) == 2).astype(np.int64)
        return (np.cumsum(hits, 1) - hits).reshape(images.shape)

    report = check_autoregressive(count, (2, 3, 2), levels=4, trials=20)
    np.testing.assert_array_equal(report.sees, np.tril(np.ones((12, 12), bool), -1))
    assert report.is_autoregressive


def test_nan_and_tolerance():
    def fn(images):
        flat = np.asarray(images, np.float32).reshape(len(images), -1)
        out = np.zeros_like(flat)
        out[:, 0] = np.nan
        out[:, 1] = 1e-3 * flat[:, 3]
        out[:, 2] = np.where(flat[:, 3] == 1, np.nan, 0.0)
        out[:, 3] = np.inf
        return out.reshape(images.shape)

    exact = check_autoregressive(fn, (1, 4, 1), levels=2)
    assert exact.leaks == [((0, 1, 0), (0, 3, 0)), ((0, 2, 0), (0, 3, 0))]
    assert "1 of 4 outputs are NaN" in str(exact)
    loose = check_autoregressive(fn, (1, 4, 1), levels=2, atol=1e-2)
    assert loose.leaks == [((0, 2, 0), (0, 3, 0))]


def test_report_text():
    matrix = np.tril(np.ones((27, 27)), -1)
    matrix[13, 12], matrix[13, 20], matrix[13, 13] = 0, 1, 1
    text = str(check_autoregressive(_linear(matrix, (3, 3, 3)), (3, 3, 3)))
    assert text.startswith("NOT autoregressive: 1 of 27 outputs")
    assert "output (1, 1, 1) sees (1, 1, 1), itself" in text
    assert "output (1, 1, 1) sees (2, 0, 2)" in text
    assert text.splitlines()[-3:] == ["  ### ### ###", "  ### .!- ---", "  --! --- ---"]
    clean = str(check_autoregressive(_linear(np.tril(matrix, -1), (3, 3, 3)), (3, 3, 3)))
    assert clean.startswith("autoregressive") and "of 351 earlier sub-pixels" in clean
    assert clean.splitlines()[-2] == "  ### .o- ---"


@pytest.mark.parametrize("bad", [lambda x: x[:, :, :, 0], lambda x: x[:1], lambda x: x.sum()])
def test_refuses_another_shape(bad):
    with pytest.raises(UserError, match="begins with the same four numbers"):
        check_autoregressive(bad, (2, 2, 2))


@pytest.mark.parametrize("kwargs", [{"trials": 0}, {"levels": 1}, {"shape": (3, 3)}])
def test_refuses_bad_arguments(kwargs):
    with pytest.raises(UserError, match="check_autoregressive needs"):
        check_autoregressive(lambda x: x, **{"shape": (2, 2, 1), **kwargs})


def test_same_key_same_report(key):
    # A threshold is crossed in some trials only: what is seen depends on the key.
    fn = lambda x: jnp.where(jnp.roll(x, 1, 2) > 0.9, 1.0, 0.0)  # noqa: E731
    a, b = (check_autoregressive(fn, (4, 4, 1), key=jax.random.key(1)).sees for _ in range(2))
    c = check_autoregressive(fn, (4, 4, 1), key=key).sees
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize("swap", [False, True])
def test_pixelcnn_passes_and_a_reversed_one_does_not(swap, random_state):
    model = PixelCNN(DataSpec(4, 4, 3, 4), features=6, blocks=1, head=6, first_kernel=3)
    params = random_state(model).net.params
    network = jax.jit(lambda x: model.network.apply({"params": params}, x))
    # B before G before R: the channels' order is part of the claim.
    fn = (lambda x: network(x[..., ::-1])[..., ::-1, :]) if swap else network
    report = check_autoregressive(fn, (4, 4, 3))
    assert report.is_autoregressive != swap
