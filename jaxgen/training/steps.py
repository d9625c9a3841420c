"""Many train steps, of one seed or several, in one compiled program; and the guard against
steps that are not finite."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Key, PyTree

from jaxgen.model import Model
from jaxgen.parallel.compiling import compiler_options
from jaxgen.parallel.mesh import AXIS, WHOLE, data_parallel, on_every_device
from jaxgen.runs.state import Progress
from jaxgen.training.feed import Feed


def stack(mesh: Mesh, seeds: list[Progress]) -> Progress:
    """The progress of several seeds as one, with a leading axis for them; of one, as it is."""
    return on_every_device(mesh, _stack, seeds) if len(seeds) > 1 else seeds[0]


def of_seed(mesh: Mesh, progress: Progress, i: int) -> Progress:
    """The progress of seed i of several that `stack` joined."""
    return (
        on_every_device(mesh, _of_seed, progress, np.int32(i)) if progress.step.ndim else progress
    )


def with_seed(mesh: Mesh, progress: Progress, i: int, other: Progress) -> Progress:
    """The progress of several seeds with that of seed i replaced; of one seed, the other."""
    if not progress.step.ndim:
        return other
    return on_every_device(mesh, _with_seed, progress, np.int32(i), other)


def _stack(seeds: list[Progress]) -> Progress:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)


def _of_seed(progress: Progress, i: Array) -> Progress:
    return jax.tree.map(lambda leaf: leaf[i], progress)


def _with_seed(progress: Progress, i: Array, other: Progress) -> Progress:
    return jax.tree.map(lambda leaf, new: leaf.at[i].set(new), progress, other)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every float in the tree is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def compile_steps(model: Model, feed: Feed, mesh: Mesh) -> Callable[..., tuple[Progress, Any]]:
    """The function (progress, key, chunk, count) -> (progress, metrics).

    It takes `count` <= feed.capacity steps in one program; metrics come back stacked, [capacity],
    with `applied`, and with `sound`, whether the last state is finite. Step t's key is
    fold_in(key, t). A step whose metrics, among them the norms of its gradients, are not finite
    leaves parameters, optimizer and statistics as they were. Donates `progress`.

    With several seeds in the feed, progress and key have a leading axis for them, and metrics
    are [capacity, seeds]: each seed has its own step, and its own guard.
    """
    # XLA keeps an average over one device, as a copy that nothing is fused across.
    axis = AXIS if mesh.size > 1 else None

    def one(progress: Progress, key: Key[Array, ""], chunk: Any, i: Array, clock: Array) -> Any:
        batch = feed.batch(chunk, i)
        step_key = jax.random.fold_in(key, clock)
        new, metrics = model.train_step(step_key, progress.state, batch, clock, axis)
        # By its metrics alone: the choice is then made inside the update, at no cost. Reading
        # the whole new state first made the step of an MLP a fifth slower.
        ok = all_finite(metrics)
        state = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, progress.state)
        bad = 1 - ok.astype(jnp.int32)
        in_a_row = (progress.in_a_row + 1) * bad
        progress = Progress(state, progress.step + 1, progress.skipped + bad, in_a_row)
        return progress, {**metrics, "applied": ok}

    each, sound = one, all_finite
    if feed.seeds > 1:
        each, sound = jax.vmap(one, in_axes=(0, 0, feed.axes, None, None)), jax.vmap(all_finite)

    def steps(progress: Progress, key: Key[Array, ""], chunk: Any, count: Array) -> Any:
        # All seeds are at the same step. Their clock is one number, not one for each: what a model
        # decides by it stays a branch, where under vmap both sides would be computed.
        start = progress.step.reshape(-1)[0]
        shapes = jax.eval_shape(each, progress, key, chunk, count, start)[1]
        buffers = jax.tree.map(lambda s: jnp.zeros((feed.capacity, *s.shape), s.dtype), shapes)

        def body(i: Array, carry: Any) -> Any:
            progress, buffers = carry
            progress, metrics = each(progress, key, chunk, i, start + i)
            return progress, jax.tree.map(lambda b, m: b.at[i].set(m), buffers, metrics)

        # A bound that is not static: a shorter last chunk runs the same program.
        progress, buffers = jax.lax.fori_loop(0, count, body, (progress, buffers))
        return progress, {**buffers, "sound": sound(progress.state)}

    specs = (WHOLE, WHOLE, feed.specs, WHOLE)
    options = compiler_options(model.convolutional)
    return data_parallel(steps, mesh, specs, (WHOLE, WHOLE), donate=(0,), options=options)
