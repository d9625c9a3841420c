"""Frequency tables, and rANS against Python's exact integers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.compression import rans
from jaxgen.distributions.likelihoods import LIKELIHOODS

quantize = jax.jit(rans.quantize)

# Tables.


def tables():
    """name -> masses [b k]: usual and extreme ones."""
    rng = np.random.default_rng(0)
    one = np.full((2, 256), 1e-30)
    one[[0, 1], [0, 255]] = 1.0
    return {
        "two levels": rng.dirichlet([0.05] * 2, 500),
        "seventeen levels": rng.dirichlet([0.2] * 17, 500),
        "256 levels": rng.dirichlet([0.02] * 256, 500),
        "uniform": np.full((1, 256), 1 / 256),
        "uniform with a remainder": np.full((1, 7), 1 / 7),
        "one level has all": one,
        "the only level": np.ones((1, 1)),
        "a tie": np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]),
    }


@pytest.mark.parametrize("name", tables())
def test_frequencies_sum_to_the_total_and_none_is_zero(name):
    masses = tables()[name]
    with np.errstate(divide="ignore"):
        logs = np.log(masses).astype(np.float32)
    sizes = np.asarray(quantize(logs), np.int64)
    levels = masses.shape[1]
    assert (sizes.sum(-1) == 2**20).all()
    assert (sizes >= 1).all()
    # Nearly proportional: rounding, and the 1 that each level has at least.
    given = 1 + masses / masses.sum(-1, keepdims=True) * (2**20 - levels)
    rest = np.sort(np.abs(sizes - given), -1)
    assert (rest[:, :-1] <= 1.2).all()
    assert (rest[:, -1] <= levels + 1).all()
    # Bits that the table costs on average, beside the entropy.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(masses > 0, masses * np.log2(masses / (sizes / 2**20)), 0.0)
    assert (ratio.sum(-1) < 1.5 * levels / 2**20 * math.log2(math.e)).all()


def test_what_is_not_finite_is_coded_as_uniform():
    logs = np.zeros((3, 5), np.float32)
    logs[0, 2], logs[1, 3], logs[2] = np.nan, np.inf, -np.inf
    sizes = np.asarray(quantize(logs), np.int64)
    assert (sizes.sum(-1) == 2**20).all()
    assert (abs(sizes - 2**20 / 5) < 5).all()


@pytest.mark.parametrize("levels", [1, 2, 15, 16, 17, 256, 300])
def test_starts_are_the_exact_sums_before(levels):
    sizes = np.asarray(quantize(np.random.default_rng(0).normal(size=(9, levels)) * 4))
    expected = np.cumsum(sizes.astype(np.int64), -1) - sizes
    np.testing.assert_array_equal(jax.jit(rans.starts)(sizes), expected)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_masses_are_log_prob_of_every_level(name):
    likelihood = LIKELIHOODS[name](2 if name == "bernoulli" else 6)
    params = np.random.default_rng(0).normal(size=(3, 2, likelihood.num_params))
    found = jax.jit(likelihood.log_masses)(jnp.asarray(params, jnp.float32))
    assert found.shape == (3, 2, likelihood.levels)
    log_prob = jax.jit(likelihood.log_prob)
    for level in range(likelihood.levels):
        expected = log_prob(jnp.asarray(params, jnp.float32), jnp.full((3, 2), level))
        np.testing.assert_allclose(found[..., level], expected, rtol=1e-6)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1.0, rtol=1e-5)


# rANS, in Python's integers.


def slow_encode(lanes, slots):
    """Duda's rule, symbol after symbol in reverse: the states, and the bytes in reading order."""
    x, out = [int(v) for v in lanes], []
    for lane, start, size in reversed(slots):
        if size == 0:
            continue
        emitted = []
        while x[lane] >= (2**24 // 2**20) * 256 * size:
            emitted.append(x[lane] % 256)
            x[lane] //= 256
        x[lane] = x[lane] // size * 2**20 + start + x[lane] % size
        assert 2**24 <= x[lane] < 2**32
        out += emitted
    return x, bytes(reversed(out))


def symbols(name, steps=60, batch=32):
    """Sizes and starts [t b k], the levels drawn from them, and which examples are coded."""
    rng = np.random.default_rng(1)
    masses = tables()[name]
    rows = rng.integers(len(masses), size=(steps, batch))
    with np.errstate(divide="ignore"):
        logs = np.log(masses[rows]).astype(np.float32)
    sizes = np.asarray(jax.vmap(quantize)(logs))
    starts = np.cumsum(sizes, -1, dtype=np.uint32) - sizes
    cdf = np.cumsum(masses[rows], -1)
    levels = (rng.random((steps, batch, 1)) * cdf[..., -1:] > cdf).sum(-1)
    # Unlikely levels too: those that take the most bytes.
    levels = np.where(rng.random(levels.shape) < 0.05, rng.integers(masses.shape[1]), levels)
    return sizes, starts, levels, np.arange(batch) < 27


@pytest.mark.parametrize("spread", [0.0, 40.0])
def test_every_number_of_levels_comes_back(spread):
    """From one, which is certain, to 256: each example has another number of them, as many entries
    of its table being empty as it has less. Flat, and nearly certain."""
    most, steps = 256, 5
    count = np.arange(1, most + 1)
    logs = np.random.default_rng(0).normal(0, spread + 1e-9, (most, most))
    sizes = np.zeros((most, most), np.uint32)
    for k in count:  # by the definition: at least 1 each, the rest to the likeliest
        share = np.exp(logs[k - 1, :k] - logs[k - 1, :k].max())
        sizes[k - 1, :k] = 1 + np.floor((2**20 - k) * share / share.sum())
        sizes[k - 1, np.argmax(sizes[k - 1])] += 2**20 - sizes[k - 1].sum()
    starts = np.cumsum(sizes, -1, dtype=np.uint32) - sizes
    levels = np.random.default_rng(1).integers(0, count, (steps, most))
    levels[0] = sizes.argmax(-1)
    rows = np.arange(most)[None]
    slots = rans.Slot(starts[rows, levels], sizes[rows, levels])
    first = rans.LOW + np.arange(rans.LANES, dtype=np.uint32) * 2**24 * 15
    lanes, out, there = rans.encode(first, slots)
    stream = rans.join(out, there)

    @jax.jit
    def decode(lanes, stream):
        def step(reader, _):
            return rans.decode(reader, stream, sizes, starts, jnp.ones(most, bool))

        return jax.lax.scan(step, rans.Reader(lanes, jnp.int32(0)), None, steps)

    padded = np.frombuffer(stream + bytes(rans.MOST), np.uint8)
    reader, found = decode(lanes, padded)
    np.testing.assert_array_equal(found, levels)
    np.testing.assert_array_equal(reader.lanes, first)
    assert int(reader.place) == len(stream)


def test_a_level_that_is_certain_costs_nothing():
    """Its size is 2^20: the bound above which bytes go out is 2^32, which uint32 has not."""
    slots = rans.Slot(np.zeros((9, 32), np.uint32), np.full((9, 32), 2**20, np.uint32))
    first = np.linspace(2**24, 2**32 - 1, rans.LANES).astype(np.uint32)
    lanes, out, there = rans.encode(first, slots)
    np.testing.assert_array_equal(lanes, first)
    assert rans.join(out, there) == b""


def test_no_symbol_adds_less_than_the_least():
    """`least_bits` bounds how many images a file can hold, from its bytes."""
    steps = 10_000
    for levels in (2, 17, 256):
        certain = 2**20 - levels + 1  # the largest size
        slots = rans.Slot(np.zeros((steps, 16), np.uint32),
                          np.full((steps, 16), certain, np.uint32))  # fmt: skip
        first = np.full(rans.LANES, rans.LOW, np.uint32)
        lanes, out, there = rans.encode(first, slots)
        grown = np.log2(np.asarray(lanes, float) / rans.LOW).sum() + 8 * len(rans.join(out, there))
        bits = grown / (steps * 16)
        assert rans.least_bits(levels) < bits < 2.2 * rans.least_bits(levels)


@pytest.mark.parametrize("name", tables())
def test_rans_is_that_of_exact_integers_and_comes_back(name):
    sizes, starts, levels, coded = symbols(name)
    size = np.take_along_axis(sizes, levels[..., None], -1)[..., 0] * coded
    start = np.take_along_axis(starts, levels[..., None], -1)[..., 0]
    rng = np.random.default_rng(2)
    first = rng.integers(2**24, 2**32, size=rans.LANES, dtype=np.uint32)
    first[:2] = 2**24, 2**32 - 1
    lanes, out, there = rans.encode(first, rans.Slot(start, size))
    stream = rans.join(out, there)
    number = np.broadcast_to(np.arange(32) % rans.LANES, size.shape)
    flat = zip(number.ravel(), start.ravel(), size.ravel(), strict=True)
    expected = slow_encode(first, [tuple(map(int, slot)) for slot in flat])
    assert ([int(x) for x in lanes], stream) == expected
    # Within 0.01 % and a state of its information content.
    ideal = -np.log2(size[:, coded] / 2**20).sum()
    grown = np.log2(np.asarray(lanes, float) / np.asarray(first, float)).sum()
    assert 8 * len(stream) + grown == pytest.approx(ideal, rel=2e-3, abs=0.5)

    @jax.jit
    def decode(lanes, stream):
        def step(reader, table):
            return rans.decode(reader, stream, *table, jnp.asarray(coded))

        return jax.lax.scan(step, rans.Reader(lanes, jnp.int32(0)), (sizes, starts))

    padded = np.frombuffer(stream + bytes(rans.MOST), np.uint8)
    reader, found = decode(lanes, padded)
    np.testing.assert_array_equal(found, levels * coded)
    np.testing.assert_array_equal(reader.lanes, first)
    assert int(reader.place) == len(stream)
