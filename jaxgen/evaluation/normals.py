"""Likelihoods that any model of real numbers should beat: one normal, and a mixture of normals.

Fitted by EM on the train split by scikit-learn; the number of normals is chosen on validation.
Exact, in nats, with full covariances up to 32 dimensions and diagonal ones beyond.
"""

from dataclasses import dataclass
from os import PathLike
from typing import Any, Self

import numpy as np

COMPONENTS = (2, 4, 8, 16, 32, 64)
"""Mixture: sizes, tried in this order until validation stops improving."""
FULL = 32
"""Dimensions up to which covariances are full."""
MAX_VALUES = 2**23
"""The train and validation splits are cut to so many numbers, 64 MiB, by a seeded draw."""


@dataclass(frozen=True)
class Normals:
    """A normal and a mixture of normals, fitted."""

    normal: Any
    """scikit-learn's GaussianMixture, of one component."""
    mixture: Any
    protocol: str

    def nll(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Returns nats [n] of each datum [n h w c] of floats."""
        flat = _flat(x)
        return {
            "normal": -self.normal.score_samples(flat),
            "mixture": -self.mixture.score_samples(flat),
        }

    def save(self, path: str | PathLike) -> None:
        """Writes one .npz."""
        arrays: dict[str, Any] = {"protocol": self.protocol}
        for name, fit in (("normal", self.normal), ("mixture", self.mixture)):
            arrays |= {f"{name}_{n}": getattr(fit, f"{n}_") for n in _ARRAYS}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: str | PathLike) -> Self:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            normal, mixture = (
                _fitted({n: file[f"{name}_{n}"] for n in _ARRAYS}) for name in ("normal", "mixture")
            )
            return cls(normal, mixture, str(file["protocol"]))


_ARRAYS = "weights", "means", "covariances", "precisions_cholesky"


def fit_normals(train: np.ndarray, validation: np.ndarray, seed: int = 0) -> Normals:
    """Returns the baselines fitted on train [n h w c] of floats, the size of the mixture chosen on
    validation."""
    from threadpoolctl import threadpool_limits

    x, v = (_subset(_flat(split), seed) for split in (train, validation))
    with threadpool_limits(1):  # faster at this size, and the same on any number of cores
        normal = mixture = _unfitted(1, x.shape[1], seed).fit(x)
        best = -normal.score(v)
        for k in COMPONENTS:
            if k * 10 > len(x):
                break
            fit = _unfitted(k, x.shape[1], seed).fit(x)
            if -fit.score(v) >= best:
                break
            mixture, best = fit, -fit.score(v)
    protocol = (
        f"normal[{_covariance(x.shape[1])} covariance] mixture[k={len(mixture.weights_)}, EM] "
        f"train {len(x)} of {len(train)}, chosen on validation {len(v)} of {len(validation)}, "
        f"seed={seed}"
    )
    return Normals(normal, mixture, protocol)


def _unfitted(components: int, dims: int, seed: int = 0) -> Any:
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(components, covariance_type=_covariance(dims), random_state=seed)


def _fitted(arrays: dict[str, np.ndarray]) -> Any:
    """The mixture that has these arrays."""
    fit = _unfitted(*arrays["means"].shape)
    for name, array in arrays.items():
        setattr(fit, f"{name}_", array)
    return fit


def _covariance(dims: int) -> str:
    return "full" if dims <= FULL else "diag"


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float64)


def _subset(x: np.ndarray, seed: int) -> np.ndarray:
    """Examples of [n dims], as many as `MAX_VALUES` hold, in their order."""
    size = max(MAX_VALUES // x.shape[1], 2)
    if len(x) <= size:
        return x
    return x[np.sort(np.random.default_rng(seed).choice(len(x), size, replace=False))]
