"""Likelihoods that any model of levels should beat: uniform, factorized, mixture. Exact, in nats.

The mixture has k factorized categoricals (Bernoullis when levels == 2) and is fitted by EM
(Dempster, Laird & Rubin, 1977), each component smoothed towards the factorized baseline. What
is free (alpha, k, strength) is chosen on the validation split, from the lists below. Our own,
because scikit-learn's mixtures are of normals alone.
"""

import math
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple, Self

import numpy as np

from jaxgen.errors import UserError

ALPHAS = (0.01, 0.1, 0.5, 1.0)
"""Factorized: examples added to the count of each level."""
COMPONENTS = (5, 10, 20, 40, 80, 160)
"""Mixture: sizes, tried in this order until validation stops improving."""
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Mixture: examples, distributed as the factorized baseline, added to each component."""
EM_STRENGTH = 1.0
"""The strength during EM; `STRENGTHS` then differ by one more M-step, so each k is one fit."""
ITERATIONS = 40

# Past 2^26 indicators (256 MiB in float32) the encoding is sparse, and the training and
# validation splits are cut to 2^23 sub-pixels; 2^23 parameters are 32 MiB.
_DENSE, _SUBPIXELS, _PARAMETERS = 2**26, 2**23, 2**23
_CHUNK = 1000


class Mixture(NamedTuple):
    """A mixture of k factorized categoricals."""

    log_weights: np.ndarray
    """[k]"""
    log_probs: np.ndarray
    """[levels dims k]"""


class Counts(NamedTuple):
    """Expected numbers of training examples: what one E-step leaves for the M-step."""

    components: np.ndarray
    """[k]"""
    levels: np.ndarray
    """[levels dims k]"""


def uniform(levels: int, dims: int) -> float:
    """Returns the nats of one image when all images are equally likely."""
    return dims * math.log(levels)


def encode(x: np.ndarray, levels: int, dtype: Any = np.float32):
    """Returns the indicators [n (levels-1)*dims] of x [n dims] being at each level but 0.

    Level 0 follows from the others. The result is a numpy array, or a scipy CSR array (one
    entry per non-zero sub-pixel) where the dense one would be large.
    """
    if x.size * (levels - 1) <= _DENSE:
        rest = np.arange(1, levels, dtype=x.dtype)
        return (x[:, None] == rest[:, None]).reshape(len(x), -1).astype(dtype)
    from scipy.sparse import csr_array

    row, column = np.nonzero(x)
    column = column + (x[row, column].astype(np.int64) - 1) * x.shape[1]
    shape = len(x), (levels - 1) * x.shape[1]
    return csr_array((np.ones(len(row), dtype), (row, column)), shape)


def affine(mixture: Mixture, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Returns (matrix, constant): log p(x, component) [n k] is encode(x) @ matrix + constant."""
    absent = mixture.log_probs[0]
    matrix = (mixture.log_probs[1:] - absent).reshape(-1, absent.shape[-1])
    constant = mixture.log_weights + absent.sum(0, dtype=np.float64)
    return matrix.astype(dtype, copy=False), constant.astype(dtype)


def expect(mixture: Mixture, encoded) -> tuple[np.ndarray, np.ndarray]:
    """The E-step: returns responsibilities [n k], and log p(x) [n] in nats."""
    matrix, constant = affine(mixture, encoded.dtype)
    joint = encoded @ matrix + constant
    top = joint.max(1, keepdims=True)
    np.exp(np.subtract(joint, top, out=joint), out=joint)
    total = joint.sum(1, keepdims=True)
    return joint / total, (np.log(total) + top)[:, 0].astype(np.float64)


def count(responsibilities: np.ndarray, encoded, levels: int) -> Counts:
    """Returns the expected counts of encoded images under responsibilities [n k]."""
    components = responsibilities.sum(0, dtype=np.float64).astype(encoded.dtype)
    present = (encoded.T @ responsibilities).reshape(levels - 1, -1, len(components))
    # Level 0 by subtraction; rounding may take it just below zero.
    absent = np.maximum(components - present.sum(0), 0)
    return Counts(components, np.concatenate([absent[None], present]))


def maximize(counts: Counts, prior: np.ndarray) -> Mixture:
    """The M-step: `prior` [levels dims|1 1] is added to every component's counts of the levels
    (a Dirichlet(1 + prior)), and one example to the size of each component."""
    size = counts.components + 1
    log_probs = np.log(counts.levels + prior)
    log_probs -= np.log(counts.components + prior.sum(0))
    return Mixture(np.log(size / size.sum()), log_probs)


def histogram(x: np.ndarray, levels: int) -> Counts:
    """Returns the counts of x [n dims] as one component."""
    dims = x.shape[1]
    cells = (part.astype(np.int64) * dims + np.arange(dims) for part in _chunks(x))
    total = sum(np.bincount(c.ravel(), minlength=levels * dims) for c in cells)
    components, total = np.array([len(x)], np.float32), np.asarray(total, np.float32)
    return Counts(components, total.reshape(levels, dims, 1))


def maximize_factorized(counts: Counts, alpha: float) -> Mixture:
    """Returns the one-component mixture: counts plus alpha, normalized."""
    return maximize(counts, np.full((len(counts.levels), 1, 1), alpha, np.float32))


def fit_mixture(
    x: np.ndarray, levels: int, k: int, prior: np.ndarray, seed: int = 0, dtype: Any = np.float32
) -> tuple[Counts, list[float]]:
    """Returns the counts of k components after EM on x [n dims], and per iteration the
    objective, which EM never lowers: log-likelihood plus log-prior, in nats, up to a constant."""
    encoded, objective = encode(x, levels, dtype), []
    counts = count(_nearest_seeds(x, k, seed).astype(dtype), encoded, levels)
    for _ in range(ITERATIONS):
        mixture = maximize(counts, prior)
        responsibilities, log_prob = expect(mixture, encoded)
        of_probs = np.sum(prior[..., 0] * mixture.log_probs.sum(-1, dtype=np.float64))
        objective.append(float(log_prob.sum() + of_probs + mixture.log_weights.sum()))
        counts = count(responsibilities, encoded, levels)
    return counts, objective


def _nearest_seeds(x: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Each example [n dims] assigned to the nearest of k of them, drawn by k-means++: [n k]."""
    from sklearn.cluster import kmeans_plusplus

    x = x.astype(np.float32)
    centers = np.asarray(kmeans_plusplus(_subset(x, 5000, seed), k, random_state=seed)[0])
    distance = np.square(centers).sum(1) - 2 * x @ centers.T
    return np.eye(k)[distance.argmin(1)]


def mixture_nll(mixture: Mixture, x: np.ndarray) -> np.ndarray:
    """Returns -log p(x) [n] in nats of x [n dims], in float64 throughout."""
    from scipy.special import logsumexp

    levels = len(mixture.log_probs)
    matrix, constant = affine(Mixture(*(a.astype(np.float64) for a in mixture)), np.float64)
    parts = (encode(part, levels, np.float64) @ matrix + constant for part in _chunks(x))
    return np.concatenate([np.zeros(0), *(-np.asarray(logsumexp(joint, 1)) for joint in parts)])


@dataclass(frozen=True)
class Baselines:
    """The fitted baselines, and how they were fitted."""

    levels: int
    factorized: Mixture
    mixture: Mixture
    protocol: str

    def nll(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns nats [n] of each image [n h w c] under each baseline."""
        x = _flat(images, self.levels)
        return {
            "uniform": np.full(len(x), uniform(self.levels, x.shape[1])),
            "factorized": mixture_nll(self.factorized, x),
            "mixture": mixture_nll(self.mixture, x),
        }

    def save(self, path: str | PathLike) -> None:
        """Writes one .npz."""
        arrays = [*self.factorized, *self.mixture]
        np.savez_compressed(path, *arrays, levels=self.levels, protocol=self.protocol)

    @classmethod
    def load(cls, path: str | PathLike) -> Self:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as f:
            a = [f[f"arr_{i}"] for i in range(4)]
            return cls(int(f["levels"]), Mixture(*a[:2]), Mixture(*a[2:]), str(f["protocol"]))


def fit_baselines(
    train: np.ndarray, validation: np.ndarray, levels: int, seed: int = 0
) -> Baselines:
    """Returns the baselines fitted on train [n h w c], with all choices made on validation.

    A large problem is fitted on a seeded draw from both splits; the protocol says so.
    """
    x, v = _flat(train, levels), _flat(validation, levels)
    examples = len(x) if x.size * (levels - 1) <= _DENSE else max(_SUBPIXELS // x.shape[1], 1)
    part, v = _subset(x, examples, seed), _subset(v, examples, seed)
    counts = histogram(x, levels)
    fits = [maximize_factorized(counts, alpha) for alpha in ALPHAS]
    alpha, factorized, _ = _least(ALPHAS, fits, v)
    k, strength, mixture = _choose_mixture(part, v, factorized, seed)
    protocol = (
        f"factorized[alpha={alpha:g}, train {len(x)}] mixture[k={k}, strength={strength:g}, "
        f"EM {ITERATIONS} iterations, train {len(part)} of {len(x)}] "
        f"chosen on validation {len(v)} of {len(validation)}, seed={seed}"
    )
    return Baselines(levels, factorized, mixture, protocol)


def _choose_mixture(
    x: np.ndarray, validation: np.ndarray, factorized: Mixture, seed: int
) -> tuple[int, float, Mixture]:
    """Returns (k, strength, mixture) with the lowest nats on validation [n dims]."""
    mean = np.exp(factorized.log_probs)
    best, least = (1, 0.0, factorized), math.inf
    for k in COMPONENTS:
        if k * 10 > len(x) or k * mean.size > _PARAMETERS:
            break
        counts, _ = fit_mixture(x, len(mean), k, np.float32(EM_STRENGTH) * mean, seed)
        fits = [maximize(counts, np.float32(strength) * mean) for strength in STRENGTHS]
        strength, mixture, nats = _least(STRENGTHS, fits, validation)
        if nats >= least:
            break
        best, least = (k, strength, mixture), nats
    return best


def _least(
    values: tuple[float, ...], fits: list[Mixture], validation: np.ndarray
) -> tuple[float, Mixture, float]:
    """Returns the value and fit with the lowest nats on validation [n dims], and the nats."""
    nats = [mixture_nll(fit, validation).mean() for fit in fits]
    i = int(np.argmin(nats))
    return values[i], fits[i], float(nats[i])


def _flat(images: np.ndarray, levels: int) -> np.ndarray:
    if images.size and images.max() >= levels:
        raise UserError(f"images of {levels} levels hold 0..{levels - 1}; found {images.max()}")
    return images.reshape(len(images), -1)


def _subset(x: np.ndarray, size: int, seed: int) -> np.ndarray:
    """At most `size` of the examples, in their order."""
    if len(x) <= size:
        return x
    return x[np.sort(np.random.default_rng(seed).choice(len(x), size, replace=False))]


def _chunks(x: np.ndarray) -> list[np.ndarray]:
    return [x[i : i + _CHUNK] for i in range(0, len(x), _CHUNK)]
