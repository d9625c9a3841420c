"""Compiled functions of examples, run over a whole split in bounded memory."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Array

CHUNK = 1024
"""Examples at a time, at most."""

MAX_PIXELS = 2**22
"""Numbers at a time, at most: 16 MiB of floats."""


def by_chunks(function: Callable[[np.ndarray, np.ndarray], Array], x: np.ndarray) -> np.ndarray:
    """Returns function(x[ids], ids) for all examples of x [n ...], in memory; `ids` is int32."""
    num = len(x)
    chunk = max(1, min(CHUNK, MAX_PIXELS // x[0].size))
    result = None
    for start in range(0, num, chunk):
        # The last chunk wraps around: one shape, one compilation.
        ids = np.arange(start, start + chunk, dtype=np.int32) % num
        part = np.asarray(function(x[ids], ids))
        if result is None:
            result = np.empty((num, *part.shape[1:]), part.dtype)
        result[start : start + chunk] = part[: num - start]
    assert result is not None, "no examples"
    return result
