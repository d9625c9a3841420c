"""Every test runs with four CPU devices, with JAX's own checks on, and with caches of its own."""

import contextlib
import functools
import gc
import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compiler
from jax._src.interpreters import mlir

from jaxgen.evaluation import fitted, labels, stacked
from jaxgen.runs.digest import digest

if "PYTEST_XDIST_WORKER" not in os.environ:
    # Of all processes of the session, which inherit the name; removed when this one ends.
    _cache = tempfile.TemporaryDirectory(prefix="jaxgen-tests-")
    os.environ["XDG_CACHE_HOME"] = _cache.name
    # Threads of one process would spin on the core that another one works on.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# What is imported stays, and what is traced is mostly kept: to look through all of it for garbage
# each time that 700 objects are made takes a twentieth of the session.
gc.freeze()
gc.set_threshold(20_000, 20, 100)
# Before the first use of a device.
jax.config.update("jax_num_cpu_devices", 4)
# A key that is used twice, and a broadcast that adds axes, are errors.
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


COMPILED_IN_FULL = {"test_memory", "test_ppca", "test_autoencoder"}
"""Modules whose programs are compiled as users have them: those of memory, and of long training. In
the others, of small networks, compiling would take most of the time."""


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(request):
    """With fewer optimizations, but for these modules."""
    if request.module.__name__ in COMPILED_IN_FULL:
        yield
        return
    with quickly():
        yield


@pytest.fixture(scope="session", autouse=True)
def fitted_once():
    """Runs on the same data share what is fitted to it, which is a function of the data alone."""

    def once(fit):
        kept = {}

        @functools.wraps(fit)
        def shared(*args, **kwargs):
            given = [digest(np.asarray(a)) if isinstance(a, np.ndarray) else a for a in args]
            name = repr((given, sorted(kwargs.items())))
            if name not in kept:
                kept[name] = fit(*args, **kwargs)
            return kept[name]

        return shared

    with pytest.MonkeyPatch.context() as patch:
        for module, fit in ((fitted, "fit_features"), (fitted, "fit_baselines"),
                            (labels, "fit_features"), (stacked, "fit_features")):  # fmt: skip
            patch.setattr(module, fit, once(getattr(module, fit)))
        yield


@pytest.fixture
def fusion_emitters(monkeypatch):
    """With them, for one test of another module, whose programs then round alike."""
    monkeypatch.setattr(compiler, "get_compile_options", PLAIN)


@pytest.fixture
def compiled_in_full(fusion_emitters):
    """As users have it, for one test of another module."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


PLAIN = compiler.get_compile_options


@contextlib.contextmanager
def quickly():
    """Compiles without most optimizations, and without XLA's fusion emitters where this version has
    them: they alone take three quarters of what is left."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        if without := _emitters_off():
            # No public setting is of every program.
            def options(*args, env_options_overrides=None, **kwargs):
                overrides = {**(env_options_overrides or {}), **without}
                return PLAIN(*args, env_options_overrides=overrides, **kwargs)

            patch.setattr(compiler, "get_compile_options", options)
        if hasattr(mlir, "make_ir_context"):
            # One for all programs: to load its dialects takes longer than most of them.
            patch.setattr(mlir, "make_ir_context", _context())
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def _context():
    return functools.cache(mlir.make_ir_context)


@functools.cache
def _emitters_off():
    """The options, those that this version of XLA knows."""

    def known(name, value):
        try:
            jax.jit(lambda x: x, compiler_options={name: value}).lower(0.0).compile()
        except jax.errors.JaxRuntimeError:
            return False
        return True

    options = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
    return {name: value for name, value in options.items() if known(name, value)}


@pytest.fixture
def quick_environment():
    """Environment variables with which another process compiles to the same bits as `quickly`."""
    flags = [f"--{name}={str(value).lower()}" for name, value in _emitters_off().items()]
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": " ".join(flags)}


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
                return jax.device_put(np.zeros(leaf.shape, leaf.dtype))
            fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 9.0
            # Positive where a variance must be: a BatchNorm's arrays are all vectors.
            values = rng.normal(size=leaf.shape) * (1.5 / fan_in**0.5)
            values = values if len(leaf.shape) > 1 else np.abs(values)
            # jnp.asarray would compile a program for every new shape.
            return jax.device_put(values.astype(leaf.dtype))

        return jax.tree.map(fill, shapes(model))

    @functools.cache
    def shapes(model):
        return jax.eval_shape(lambda: model.init(jax.random.key(0), model.spec.example(1)))

    return make
