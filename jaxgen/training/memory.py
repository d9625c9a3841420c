"""Whether what a run trains can be held in memory at all, asked before anything is compiled."""

import math
import os

import jax
from jax.sharding import Mesh

from jaxgen.errors import UserError
from jaxgen.fields import sizes
from jaxgen.runs.config import Run
from jaxgen.runs.state import shapes

LARGE, MANY = 1024, 100
"""A size of a network, and a number of seeds, from which on the state may be too large."""


def state_bytes(run: Run) -> int:
    """The size of the state of all seeds: parameters, their averages, the optimizers' moments."""
    leaves = jax.tree.leaves(shapes(run.model))
    return run.train.seeds * sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)


def memory(mesh: Mesh) -> int | None:
    """The bytes that one device of a mesh can hold; processors share the machine's. None = the
    system does not tell."""
    device = mesh.devices.flat[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // mesh.size
    except (AttributeError, OSError, ValueError):
        return None


def check_memory(run: Run, mesh: Mesh) -> None:
    """Raises UserError if the state alone is larger than the memory: it would end the process, or
    others. It is traced, which takes a moment, where some size is large."""
    if run.train.seeds < MANY and all(n < LARGE for ns in sizes(run.model).values() for n in ns):
        return
    needed, there = state_bytes(run), memory(mesh)
    if there is not None and needed > there:
        raise UserError(
            f"{run.name} of these sizes takes {needed / 2**30:.1f} GiB for its state alone, and "
            f"each device has {there / 2**30:.1f} GiB: make it smaller, or give fewer --seeds "
            "or --devices"
        )
