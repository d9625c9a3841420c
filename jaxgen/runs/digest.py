"""Names for what a state holds: the digest of its bytes, and the table of its leaves."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def digest(tree: Any) -> str:
    """The sha256 of a pytree of arrays: every leaf's path, dtype, shape and bytes."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n"
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def leaf_table(tree: Any) -> dict[str, list]:
    """`{path: [shape, dtype]}` of every leaf: what a checkpoint must match to be restored."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p): [list(x.shape), str(x.dtype)] for p, x in leaves}


def check(meta: dict) -> str:
    """The checksum of a record: without it, damage here would look like another configuration."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def mismatch(path: Path, saved: dict[str, list], wanted: dict[str, list], show: int = 4) -> str:
    """Says which leaves of a checkpoint differ from those of the model."""

    def form(leaf: list | None) -> str:
        return f"{leaf[1]}{leaf[0]}" if leaf else "absent"

    names = [n for n in {**saved, **wanted} if saved.get(n) != wanted.get(n)]
    lines = [f"  {n}: {form(saved.get(n))} -> {form(wanted.get(n))}\n" for n in names[:show]]
    more = f"  and {len(names) - show} more\n" if len(names) > show else ""
    return (
        f"--run: the checkpoint {path} belongs to another configuration (saved -> asked for):\n"
        f"{''.join(lines)}{more}choose another --run, or the configuration in its run.json"
    )
