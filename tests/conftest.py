"""Every test runs with four CPU devices, with JAX's own checks on, and with caches of its own."""

import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" not in os.environ:
    # Of all processes of the session, which inherit the name; removed when this one ends.
    _cache = tempfile.TemporaryDirectory(prefix="jaxgen-tests-")
    os.environ["XDG_CACHE_HOME"] = _cache.name
# Before the first use of a device.
jax.config.update("jax_num_cpu_devices", 4)
# A key that is used twice, and a broadcast that adds axes, are errors.
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


COMPILED_QUICKLY = {
    "test_contract", "test_precision", "test_autoregressive", "test_codec", "test_wavenet",
    "test_sound", "test_pixelcnnpp", "test_pixelsnail", "test_streams",
    "test_nade", "test_made", "test_readme", "test_one_file_one_line", "test_conditions",
    "test_narrow",
}  # fmt: skip
"""Modules of tests on small networks, where compiling takes most of the time."""


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(request):
    """With fewer optimizations, in those modules."""
    if request.module.__name__ not in COMPILED_QUICKLY:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def random_state():
    """(model, seed) -> a state whose every number is random, biases and averages included."""

    def make(model, seed=0):
        rng = np.random.default_rng(seed)

        def fill(leaf):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return jnp.zeros(leaf.shape, leaf.dtype)
            fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 9.0
            # Positive where a variance must be: a BatchNorm's arrays are all vectors.
            values = rng.normal(size=leaf.shape) * (1.5 / fan_in**0.5)
            return jnp.asarray(values if len(leaf.shape) > 1 else np.abs(values), leaf.dtype)

        shapes = jax.eval_shape(model.init, jax.random.key(0), model.spec.example(1))
        return jax.tree.map(fill, shapes)

    return make
