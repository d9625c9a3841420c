"""The order of the examples: a batch is a function of (seed, step), so resuming needs no
iterator state."""

from functools import lru_cache

import numpy as np

from jaxgen.errors import UserError


def indices(
    seed: int, step: int, batch_size: int, num_examples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the example ids and the epoch of each, both int32 [batch_size], of one step.

    Every epoch holds every example exactly once; a batch may straddle two epochs.
    """
    if seed < 0:
        raise UserError(f"--seed must not be negative; got {seed}")
    if batch_size < 1:
        raise UserError(f"--batch_size must be positive; got {batch_size}")
    if batch_size > num_examples:
        raise UserError(
            f"--batch_size {batch_size} is larger than the train split, which has "
            f"{num_examples} examples; use --batch_size {num_examples} or less"
        )
    epoch, place = np.divmod(step * batch_size + np.arange(batch_size), num_examples)
    ids = np.empty(batch_size, np.int32)
    for e in range(epoch[0], epoch[-1] + 1):
        ids[epoch == e] = _permutation(seed, e, num_examples)[place[epoch == e]]
    return ids, epoch.astype(np.int32)


# Two, because a batch that straddles epochs needs both.
@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_examples).astype(np.int32)
