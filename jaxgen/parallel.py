"""Devices: the mesh, what lies where on it, and the one wrapper that runs a step on all of it."""

import functools
import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxgen.errors import UserError

AXIS = "data"
"""The mesh axis that a batch is split over."""

WHOLE, SPLIT = PartitionSpec(), PartitionSpec(AXIS)
"""The same on every device; or split along the leading axis."""


def make_mesh(devices: int = 0, batch_size: int = 0) -> Mesh:
    """A one-dimensional mesh of the first `devices` devices; 0 = all, or, given a batch size, as
    many as divide it."""
    available = jax.devices()
    if devices == 0 and batch_size > 0:
        devices = max(n for n in range(1, len(available) + 1) if batch_size % n == 0)
    if not 0 <= devices <= len(available):
        raise UserError(
            f"--devices={devices}: there are {len(available)} ({available[0].platform}); "
            "give a number up to that, or 0 for all"
        )
    chosen = available[: devices or len(available)]
    # Auto: with JAX's default, Explicit, the gradients of some gathers fail on JAX 0.11.
    return jax.make_mesh((len(chosen),), (AXIS,), (AxisType.Auto,), devices=chosen)


def check_batch_size(batch_size: int, mesh: Mesh, parts: int = 1) -> None:
    """Raises UserError unless every device gets the same number of examples in every part."""
    shares = mesh.size * parts
    if batch_size < 1 or batch_size % shares:
        near = max(shares, batch_size - batch_size % shares)
        in_parts = f" in {parts} parts each" if parts > 1 else ""
        fewer = "fewer --devices or a smaller --…accumulate" if parts > 1 else "fewer --devices"
        raise UserError(
            f"--batch_size {batch_size} cannot be divided over {mesh.size} devices{in_parts}; "
            f"use a multiple, such as {near}, or {fewer}"
        )


def data_parallel(
    step: Callable[..., Any],
    mesh: Mesh,
    in_specs: Any,
    out_specs: Any,
    donate: tuple[int, ...] = (),
    options: dict[str, str] | None = None,
) -> Callable[..., Any]:
    """`step` compiled to run on every device at once, its arguments split as `in_specs` say, with
    XLA told `options` (see `compiler_options`).

    With `check_vma=False`, as in `jax.pmap`, gradients are those of the device's own share, and
    the step itself averages them over `AXIS`. (With JAX's default they arrive already summed,
    so that an average afterwards is silently too large by the number of devices.)
    """
    mapped = jax.shard_map(step, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate, compiler_options=options or None)


def compiler_options(convolutional: bool) -> dict[str, str]:
    """What XLA is told about a train step, where backend and version know an option that helps.

    On a CPU, XLA copies much of the state in every step unless it analyses where values are live:
    without the copies, a network of matrix products alone is 1.2 times as fast (but one of
    convolutions up to a fifth slower). XLA of JAX 0.10 runs convolutions on one CPU thread;
    YNNPACK's run on all and are 1.5 times as fast on two.
    $JAXGEN_COMPILER_OPTIONS, as NAME=VALUE,NAME=VALUE, replaces all of it; empty = none. Raises
    UserError if it is malformed.
    """
    asked = os.environ.get("JAXGEN_COMPILER_OPTIONS")
    if asked is not None:
        pairs = [pair.split("=", 1) for pair in asked.split(",") if pair]
        if any(len(pair) != 2 for pair in pairs):
            raise UserError(f"JAXGEN_COMPILER_OPTIONS={asked}: write NAME=VALUE,NAME=VALUE")
        options = dict(pairs)
        try:
            jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
        except Exception as error:  # the kind depends on the version
            raise UserError(f"JAXGEN_COMPILER_OPTIONS={asked}: XLA refuses it: {error}") from None
        return options
    if jax.default_backend() != "cpu" or not jax.__version__.startswith(("0.10.", "0.12.")):
        return {}
    if not convolutional:
        return {"xla_cpu_copy_insertion_use_region_analysis": "True"}
    if jax.__version__.startswith("0.10."):
        return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
    return {}


def keep_compiled() -> None:
    """Keeps compiled programs in ~/.cache/jaxgen (or $XDG_CACHE_HOME/jaxgen), up to a gigabyte,
    for later processes to load. Does nothing where JAX was told of a folder already, or where
    this one cannot be made."""
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = base / "jaxgen" / f"compiled-{_processor()}"
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
        told = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    except OSError:
        told = []
    text = "".join([platform.machine(), platform.processor(), *told])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def on_every_device(mesh: Mesh, make: Callable[..., Any], *args: Any) -> Any:
    """make(*args), computed and kept on every device of the mesh."""
    return jax.jit(make, out_shardings=NamedSharding(mesh, WHOLE))(*args)


@functools.lru_cache(maxsize=64)
def sharding(mesh: Mesh, spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(mesh, spec)


def put(mesh: Mesh, spec: PartitionSpec, tree: Any) -> Any:
    """Host arrays onto the mesh; on several hosts each holds the whole array and gives its part."""
    target = sharding(mesh, spec)

    def place(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(x.shape, target, lambda index: x[index])

    if jax.process_count() == 1:
        return jax.device_put(tree, target)
    return jax.tree.map(place, tree)
