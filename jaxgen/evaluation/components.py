"""Principal components, by scikit-learn: what a linear code of the same size keeps."""

from typing import Any

import numpy as np


def fitted(x: np.ndarray, size: int) -> Any:
    """scikit-learn's PCA of rows x [n d]: as many components as `size`, n and d allow."""
    from sklearn.decomposition import PCA

    solver = "full" if x.shape[1] <= 1000 else "randomized"
    # Of constant data no component has a share of the variance: 0 / 0, which is not asked for.
    with np.errstate(divide="ignore", invalid="ignore"):
        return PCA(min(size, *x.shape), svd_solver=solver, random_state=0).fit(x)
