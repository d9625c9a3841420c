"""Importance-weighted bounds of a split, for many numbers of draws in one pass.

L_k = E log (1/k) sum_i w_i with w_i = p(x, z_i) / q(z_i | x), nats (Burda et al. 2016,
arXiv:1509.00519, eq. 8).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jaxgen.data.splits import Split
from jaxgen.parallel.inference import examples
from jaxgen.parallel.mesh import SPLIT, WHOLE, data_parallel, put

BLOCK = 100
"""Draws that are summed on the devices, in float32; blocks are added on the host, in float64.

Log weights near -10,000 are a thousandth apart in float32, so that their running log-sum-exp
would stand still after some ten thousand draws. Here only differences from the maximum are
taken, and never more than a block of them is added up."""


class Weights(NamedTuple):
    """Sums of the weights of some draws, each weight over the largest one: [b] each."""

    log_largest: Any
    total: Any
    squares: Any


class Bound(NamedTuple):
    """L_k for every example and every k."""

    ks: tuple[int, ...]
    values: np.ndarray
    """Nats, float64 [n ks]."""
    effective: np.ndarray
    """Effective sample sizes (sum w)^2 / sum w^2 of the k draws, float64 [n ks]: near k where q is
    the posterior, near 1 where one draw outweighs all others."""


def ladder(draws: int) -> tuple[int, ...]:
    """1, 5, 50, 500, ... below a number of draws, and that number."""
    steps = [1, *(5 * 10**i for i in range(len(str(draws))))]
    return (*(k for k in steps if k < draws), draws)


def importance_weighted(
    model: Any,
    mesh: Mesh,
    key: Key[Array, ""],
    state: Any,
    split: Split,
    batch_size: int,
    ks: Sequence[int],
) -> Bound:
    """The bounds of a whole split, from the same draws: L_k has the first k of them.

    `model` has `log_weight`. Memory does not grow with k. Draw i of an example is a function of
    (key, i, its place in the split), so that devices and batches change nothing but rounding.
    """
    num, add = len(split), _summed(model, mesh)
    size = -(-min(batch_size, num) // mesh.size) * mesh.size
    values, effective = [], []
    for start in range(0, num, size):
        ids = np.arange(start, start + size, dtype=np.int32) % num  # filled up by repeating
        batch = put(mesh, SPLIT, {**examples(split, model.spec, ids), "index": ids})
        blocks = lambda a, b, batch=batch: add(key, state, batch, jnp.int32(a), jnp.int32(b))  # noqa: E731
        at = list(_accumulated(blocks, tuple(ks)))
        tops = np.stack([w.log_largest for w in at], -1)
        totals = np.stack([w.total for w in at], -1)
        with np.errstate(all="ignore"):  # weights that are all zero: -inf, and 0 / 0 draws
            values.append(tops + np.log(totals) - np.log(ks))
            effective.append(totals**2 / np.stack([w.squares for w in at], -1))
    return Bound(tuple(ks), np.concatenate(values)[:num], np.concatenate(effective)[:num])


def _accumulated(blocks: Callable[[int, int], Weights], ks: tuple[int, ...]) -> Iterator[Weights]:
    """The sums of the first k draws for each k, ascending; `blocks(a, b)` are those of draws
    a..b-1."""
    all_of_them: Weights | None = None
    done = 0
    for k in ks:
        while done < k:
            last = min(k, done + BLOCK)
            new = Weights(*(np.asarray(x, np.float64) for x in blocks(done, last)))
            all_of_them = new if all_of_them is None else merged(all_of_them, new)
            done = last
        assert all_of_them is not None and done == k, "ks ascend from 1 on"
        yield all_of_them


def merged(a: Weights, b: Weights) -> Weights:
    """The sums of two disjoint sets of draws, in float64."""
    largest = np.maximum(a.log_largest, b.log_largest)
    shrink = [_ratio(w.log_largest, largest, np) for w in (a, b)]
    total = a.total * shrink[0] + b.total * shrink[1]
    squares = a.squares * shrink[0] ** 2 + b.squares * shrink[1] ** 2
    return Weights(largest, total, squares)


def _ratio(log_weight: Any, log_largest: Any, library: Any) -> Any:
    """exp(log_weight - log_largest), 0 where the largest weight is 0."""
    none = log_largest == -library.inf
    difference = library.where(none, 0.0, log_weight) - library.where(none, 0.0, log_largest)
    return library.where(none, 0.0, library.exp(difference))


@functools.lru_cache(maxsize=4)
def _summed(model: Any, mesh: Mesh) -> Callable[..., Weights]:
    """(key, state, batch, first, last) -> the sums of draws first..last-1, compiled once for any
    number of them, on all devices."""

    def step(key: Any, state: Any, batch: Any, first: Any, last: Any) -> Weights:
        def add(i: Any, sums: Weights) -> Weights:
            log_weight = model.log_weight(jax.random.fold_in(key, i), state, batch)
            largest = jnp.maximum(sums.log_largest, log_weight)
            shrink = _ratio(sums.log_largest, largest, jnp)
            weight = _ratio(log_weight, largest, jnp)
            total = sums.total * shrink + weight
            return Weights(largest, total, sums.squares * shrink**2 + weight**2)

        zeros = jnp.zeros(batch["index"].shape, jnp.float32)
        return jax.lax.fori_loop(first, last, add, Weights(zeros - jnp.inf, zeros, zeros))

    return data_parallel(step, mesh, (WHOLE, WHOLE, SPLIT, WHOLE, WHOLE), SPLIT)
