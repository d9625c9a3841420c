"""Numbers for networks and models, without a compilation."""

import jax
import numpy as np


def filled(network, *given, seed=1):
    """What `init` makes of such arguments, of random numbers, biases and averages too: positive
    where a variance must be."""
    rng = np.random.default_rng(seed)

    def fill(leaf):
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        if len(leaf.shape) > 1:
            fan_in = np.prod(leaf.shape[:-1])
            values = rng.normal(size=leaf.shape) * 1.5 / fan_in**0.5
        else:
            values = rng.uniform(0.5, 1, leaf.shape)
        return np.asarray(values, np.float32)

    shapes = jax.eval_shape(network.init, jax.random.key(0), *given)
    return jax.tree.map(fill, shapes)
