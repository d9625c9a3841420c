"""How programs are compiled and kept."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from tiny import some

from jaxgen.cli import main
from jaxgen.errors import UserError
from jaxgen.parallel.compiling import compiler_options, keep_compiled
from jaxgen.parallel.mesh import all_devices


@pytest.mark.parametrize("asked", some(["tpu", "abacus"], ["tpu"]))
def test_a_platform_that_is_not_there_is_told_with_its_variable(asked, tmp_path):
    code = "from jaxgen.cli import main; main.main(['sample', '--run=nowhere'])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": asked, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert run.stderr.startswith(f"error: JAX_PLATFORMS={asked}: ")
    assert run.stderr.endswith("; there is cpu: name one of these, or unset it\n")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The per-user folder is an empty one; JAX's settings are put back."""
    names = [
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    ]
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()


def test_compiled_programs_are_kept_and_read_again(cache):
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
    keep_compiled()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    (folder,) = (cache / "jaxgen").glob("compiled-*")

    def run(x):
        return float(jax.jit(lambda x: jnp.sin(x) * 17.25)(x))

    first = run(1.0)
    kept = {p.name for p in folder.iterdir() if p.name.endswith("-cache")}
    assert kept
    assert run(1.0) == first  # another function: this process has not compiled it
    assert kept == {p.name for p in folder.iterdir() if p.name.endswith("-cache")}


def test_the_flag_leaves_programs_out_of_the_folder(cache, capsys):
    main.main(["list", "--no_compilation_cache"])
    assert not list(cache.iterdir())
    main.main(["list"])
    assert list((cache / "jaxgen").glob("compiled-*"))


def test_a_folder_that_the_user_named_stays(cache):
    jax.config.update("jax_compilation_cache_dir", str(cache / "mine"))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(cache / "mine")
    assert not list(cache.iterdir())


def test_compiler_options(monkeypatch):
    monkeypatch.delenv("JAXGEN_COMPILER_OPTIONS", raising=False)
    if jax.default_backend() == "cpu":
        assert bool(compiler_options(True)) == jax.__version__.startswith("0.10.")
        assert bool(compiler_options(False)) == jax.__version__.startswith(("0.10.", "0.12."))
    # What is chosen compiles here.
    for convolutional in (True, False):
        options = compiler_options(convolutional)
        jax.jit(lambda x: x + 1, compiler_options=options or None)(1.0)
    monkeypatch.setenv("JAXGEN_COMPILER_OPTIONS", "")
    assert compiler_options(True) == {}
    monkeypatch.setenv("JAXGEN_COMPILER_OPTIONS", "xla_cpu_enable_fast_math=True")
    assert compiler_options(False) == {"xla_cpu_enable_fast_math": "True"}
    for bad, told in (("fast", "NAME=VALUE"), ("no_such_option=1", "XLA refuses it")):
        monkeypatch.setenv("JAXGEN_COMPILER_OPTIONS", bad)
        with pytest.raises(UserError, match=told):
            compiler_options(True)


@pytest.mark.parametrize(("flags", "told"), [
    ("--xla_no_such=1", "Unknown flag in XLA_FLAGS: --xla_no_such=1; mend or unset it"),
    ("--xla_force_host_platform_device_count=x", "interpret value x for flag xla_force_host"),
])  # fmt: skip
def test_flags_that_xla_does_not_know_are_told(flags, told, monkeypatch):
    """XLA would end the process."""
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(UserError, match=f"XLA_FLAGS={flags}: .*{told}"):
        all_devices()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    assert len(all_devices()) == 4
