"""The order of the examples: a batch is a function of (seed, example number), so resuming needs no
iterator state, and a batch may change its size on the way."""

from functools import lru_cache

import numpy as np

from jaxgen.errors import UserError


def indices(
    seed: int, first_example: int, count: int, num_examples: int, stream: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids and the epoch of examples number first_example..first_example+count-1 of
    the endless order that `seed` names, both int32 [count].

    Every epoch holds every one of `num_examples` examples exactly once; `count` may span several.
    Made on the host, not within `jax.jit`.
    Orders of different `stream` are independent: for columns that are shuffled apart.
    """
    if seed < 0:
        raise UserError(f"--seed must not be negative; got {seed}")
    if min(first_example, stream) < 0 or count < 1 or num_examples < 1:
        raise UserError(
            f"indices needs first_example and stream >= 0, count and num_examples >= 1; got "
            f"{first_example}, {stream}, {count}, {num_examples}"
        )
    epoch, place = np.divmod(first_example + np.arange(count), num_examples)
    ids = np.empty(count, np.int32)
    for e in range(epoch[0], epoch[-1] + 1):
        here = epoch == e
        ids[here] = _permutation(seed, e, num_examples, stream)[place[here]]
    return ids, epoch.astype(np.int32)


# Four, because a batch that straddles epochs needs two of each of two streams.
@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int, stream: int) -> np.ndarray:
    entropy = (seed, epoch, stream) if stream else (seed, epoch)
    return np.random.default_rng(entropy).permutation(num_examples).astype(np.int32)
