"""Asymmetric numeral systems, the range variant (Duda 2013, arXiv:1311.2540), in uint32.

A state x in [2^24, 2^32) takes in a level of frequency f, start s, out of 2^20 by
x -> (x // f) * 2^20 + s + x % f, so that it grows by log2(2^20 / f) bits; its low bytes go out
first, as many as keep it below 2^32. Decoding undoes that, last in, first out. Several states,
the lanes, take turns on one stream of bytes (Giesen 2014, arXiv:1402.3392), so that symbols are
coded side by side.

Our own, because a level that is decoded decides the network's next input: coder and sampler are one
compiled program, which a library on the host would leave at every sub-pixel.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

BITS = 20
TOTAL = 1 << BITS
"""The sum of all frequencies. A level costs at least 1 of it: 256 levels lose 0.0004 bits."""
LOW = 1 << 24
"""The least state. At 16 times TOTAL, what rounding in x // f costs is below 0.001 bits."""
LANES = 16
"""States that take turns; each adds four bytes to a file."""
MOST = 3
"""Bytes that one symbol takes at most."""
BLOCK = 16
"""Levels that are summed at once."""


class Reader(NamedTuple):
    """A decoder between two symbols."""

    lanes: UInt32[Array, " lanes"]
    place: Int[Array, ""]
    """The next byte of the stream."""


class Slot(NamedTuple):
    """Where a level lies in 0..2^20-1; size 0: it is not coded."""

    start: UInt32[Array, " b"]
    size: UInt32[Array, " b"]


def quantize(log_masses: Float[Array, "b k"]) -> UInt32[Array, "b k"]:
    """Frequencies of the levels: each at least 1, their sum 2^20, nearly proportional to masses.

    What rounding leaves goes to the likeliest level. Where masses are not finite, all levels are
    equally likely: whatever a network says can be coded.
    """
    levels = log_masses.shape[-1]
    masses = jnp.exp(log_masses - log_masses.max(-1, keepdims=True))
    total = masses.sum(-1, keepdims=True)
    share = jnp.where(jnp.isfinite(total), masses / total, 1.0 / levels)
    sizes = 1 + jnp.floor((TOTAL - levels) * share).astype(jnp.int32)
    spare = TOTAL - sizes.sum(-1, keepdims=True)
    # By comparisons: on CPU argmax takes longer than all the rest.
    number = jnp.arange(levels)[None]
    among = jnp.where(sizes == sizes.max(-1, keepdims=True), number, levels)
    likeliest = number == among.min(-1, keepdims=True)
    return jnp.where(likeliest, sizes + spare, sizes).astype(jnp.uint32)


def least_bits(levels: int) -> float:
    """Bits that any symbol of so many levels adds to a file, at least: half of what the likeliest
    one carries, whatever rounding takes away."""
    return math.log2(TOTAL / (TOTAL - levels + 1)) / 2


def starts(sizes: UInt32[Array, "b k"]) -> UInt32[Array, "b k"]:
    """The sum of the sizes of all levels before each one.

    By products with triangles of 16 levels: sums below 2^24 are exact in float32, whatever their
    order, and on CPU this takes a third of the time of a cumulative sum.
    """
    batch, levels = sizes.shape
    blocks = -(-levels // BLOCK)
    padded = jnp.pad(sizes, ((0, 0), (0, blocks * BLOCK - levels))).astype(jnp.float32)
    inside = _sums_before(padded.reshape(batch, blocks, BLOCK))
    before = _sums_before(padded.reshape(batch, blocks, BLOCK).sum(-1))
    return (inside + before[..., None]).reshape(batch, -1)[:, :levels].astype(jnp.uint32)


def _sums_before(x: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
    earlier = np.triu(np.ones((x.shape[-1],) * 2, np.float32), 1)
    return jnp.matmul(x, earlier, precision=lax.Precision.HIGHEST)


def decode(
    reader: Reader,
    stream: UInt8[Array, " n"],
    sizes: UInt32[Array, "b k"],
    starts: UInt32[Array, "b k"],
    coded: Bool[Array, " b"],
) -> tuple[Reader, Int[Array, " b"]]:
    """The next level of each example, b a multiple of the lanes; 0 where it is not coded."""

    def turn(reader: Reader, now: tuple[Array, Array, Array]) -> tuple[Reader, Array]:
        sizes, starts, coded = now
        x, place = reader
        point = x & (TOTAL - 1)
        level = jnp.where(coded, (starts <= point[:, None]).sum(-1) - 1, 0)
        start, size = at_level(starts, level), at_level(sizes, level)
        new = size * (x >> BITS) + point - start
        # It was at least LOW before bytes went out: so many have to come back.
        count = sum((new < LOW >> 8 * i).astype(jnp.uint32) for i in range(MOST))
        count = jnp.where(coded, count, 0)
        first = place + (jnp.cumsum(count) - count).astype(jnp.int32)
        word = sum(stream[first + i].astype(jnp.uint32) << 8 * (MOST - 1 - i) for i in range(MOST))
        new = (new << 8 * count) | (word >> 8 * (MOST - count))
        place = place + count.sum().astype(jnp.int32)
        return Reader(jnp.where(coded, new, x), place), level

    turns = jax.tree.map(lambda x: x.reshape(-1, LANES, *x.shape[1:]), (sizes, starts, coded))
    reader, levels = lax.scan(turn, reader, turns)
    return reader, levels.reshape(-1)


def at_level(table: UInt32[Array, "b k"], level: Int[Array, " b"]) -> UInt32[Array, " b"]:
    """The table's entry for each example's level."""
    return jnp.take_along_axis(table, level[:, None], -1)[:, 0]


@jax.jit
def encode(
    lanes: UInt32[Array, " lanes"], slots: Slot
) -> tuple[UInt32[Array, " lanes"], UInt8[Array, "n lanes 3"], Bool[Array, "n lanes 3"]]:
    """The states that `decode` starts from to find these symbols and then be left with `lanes`.

    slots: of the symbols [t b] in the order in which they are decoded. Also the bytes that it
    reads, in order, and which of them there are (see `join`).
    """

    def turn(x: Array, slot: Slot) -> tuple[Array, tuple[Array, Array]]:
        start, size = slot
        coded, size = size > 0, jnp.maximum(size, 1)
        # Not x >= size << 12: the size of a level that is certain is 2^20, and 2^32 would be 0.
        count = sum((x >> 32 - BITS + 8 * i >= size).astype(jnp.uint32) for i in range(MOST))
        count = jnp.where(coded, count, 0)[:, None]
        place = jnp.arange(MOST, dtype=jnp.uint32)[None]
        there = place < count
        out = x[:, None] >> 8 * jnp.where(there, count - 1 - place, 0)
        left = x >> 8 * count[:, 0]
        new = ((left // size) << BITS) + left % size + start
        return jnp.where(coded, new, x), (out.astype(jnp.uint8), there)

    turns = jax.tree.map(lambda x: x.reshape(-1, LANES), slots)
    lanes, (out, there) = lax.scan(turn, lanes, turns, reverse=True)
    return lanes, out, there


def join(out: UInt8[Array, "n lanes 3"], there: Bool[Array, "n lanes 3"]) -> bytes:
    """The bytes that there are."""
    return np.asarray(out)[np.asarray(there)].tobytes()
