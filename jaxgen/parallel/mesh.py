"""Devices: the mesh, what lies where on it, and the one wrapper that runs a step on all of it."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxgen.errors import UserError
from jaxgen.parallel.compiling import check_flags

AXIS = "data"
"""The mesh axis that a batch is split over."""

WHOLE, SPLIT = PartitionSpec(), PartitionSpec(AXIS)
"""The same on every device; or split along the leading axis."""


def all_devices() -> list[jax.Device]:
    """The devices there are; raises UserError if JAX can use none, naming $JAX_PLATFORMS or
    $XLA_FLAGS if that is why."""
    if flags := os.environ.get("XLA_FLAGS"):
        check_flags(flags)
    try:
        return jax.devices()
    except RuntimeError as error:
        reason, asked = str(error).split(" (set ")[0], os.environ.get("JAX_PLATFORMS")
        if not asked:
            raise UserError(f"JAX cannot use this machine's devices: {reason}") from error
        jax.config.update("jax_platforms", None)
        there = sorted({"cpu", jax.default_backend()})
        raise UserError(
            f"JAX_PLATFORMS={asked}: {reason}; there is {' and '.join(there)}: name one of these, "
            "or unset it"
        ) from error


def make_mesh(devices: int = 0, batch_size: int = 0) -> Mesh:
    """A one-dimensional mesh of the first `devices` devices; 0 = all, or, given a batch size, as
    many as divide it."""
    available = all_devices()
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


def check_batch_size(batch_size: int, mesh: Mesh, multiple: int = 1) -> None:
    """Raises UserError unless every device gets the same number of examples, a multiple of
    `multiple`."""
    shares = mesh.size * multiple
    if batch_size < 1 or batch_size % shares:
        near = max(shares, batch_size - batch_size % shares)
        if mesh.size == 1 and multiple > 1:
            raise UserError(
                f"--batch_size {batch_size} is no multiple of {multiple}, which this model needs; "
                f"use one, such as {near}"
            )
        each = f", {multiple} or a multiple of it on each" if multiple > 1 else ""
        raise UserError(
            f"--batch_size {batch_size} cannot be divided over {mesh.size} devices{each}; "
            f"use a multiple of {shares}, such as {near}, or fewer --devices"
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
