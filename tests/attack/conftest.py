"""What attacks share: commands in this process, which compile the same programs once."""

import jax
import pytest
from compiled import shared_by_commands


@pytest.fixture(scope="module", autouse=True)
def options():
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    with shared_by_commands():
        yield
