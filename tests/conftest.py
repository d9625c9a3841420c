"""Every test runs with four CPU devices, and with JAX's own checks on."""

import jax
import pytest

# Before the first use of a device.
jax.config.update("jax_num_cpu_devices", 4)
# A key that is used twice, and a broadcast that adds axes, are errors.
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)
