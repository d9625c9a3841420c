"""How programs are compiled, and where they are kept."""

import contextlib
import functools
import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax

from jaxgen.errors import UserError
from jaxgen.files import cache_folder


def compiler_options(convolutional: bool) -> dict[str, str]:
    """What XLA is told about a train step, where backend and version know an option that helps.

    On a CPU, XLA copies much of the state in every step unless it analyses where values are live:
    without the copies, a network of matrix products alone is 1.2 times as fast (but one of
    convolutions up to a fifth slower). XLA of JAX 0.10 runs convolutions on one CPU thread;
    YNNPACK's run on all and are 1.5 times as fast on two.
    $JAXGEN_COMPILER_OPTIONS, as NAME=VALUE,NAME=VALUE, replaces all of it; empty = none. Raises
    UserError if it is malformed.
    """
    given = os.environ.get("JAXGEN_COMPILER_OPTIONS")
    if given is not None:
        pairs = [pair.split("=", 1) for pair in given.split(",") if pair]
        if any(len(pair) != 2 for pair in pairs):
            raise UserError(f"JAXGEN_COMPILER_OPTIONS={given}: write NAME=VALUE,NAME=VALUE")
        options = dict(pairs)
        try:
            jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
        except Exception as error:  # the kind depends on the version
            raise UserError(f"JAXGEN_COMPILER_OPTIONS={given}: XLA refuses it: {error}") from None
        return options
    if jax.default_backend() != "cpu" or not jax.__version__.startswith(("0.10.", "0.12.")):
        return {}
    if not convolutional:
        return {"xla_cpu_copy_insertion_use_region_analysis": "True"}
    if jax.__version__.startswith("0.10."):
        return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
    return {}


@functools.cache
def check_flags(flags: str) -> None:
    """Raises UserError for a $XLA_FLAGS over which XLA would end the process: another process, of
    half a second, is asked first."""
    command = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.CompileOptions()"]
    environment = {**os.environ, "XLA_FLAGS": flags}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
        lines = done.stderr.decode(errors="replace").splitlines()
        told = [line.split("] ", 1)[1] for line in lines if line[:1] in "EF" and "] " in line]
        if done.returncode and told:
            raise UserError(f"XLA_FLAGS={flags}: {told[0]}; mend or unset it")


def keep_compiled() -> None:
    """Keeps compiled programs in the user's cache folder (~/.cache/jaxgen on Linux), up to a
    gigabyte, for later processes to load. Does nothing where JAX was told of a folder already, or
    where this one cannot be made."""
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    folder = cache_folder() / f"compiled-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", 2**30)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _processor() -> str:
    """Names the instructions that this machine's processor has: a home folder may be shared with
    other machines, which could not run what was compiled for this one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        shown = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    except OSError:
        shown = []
    text = "".join([platform.machine(), platform.processor(), *shown])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
