"""Exact samplers of autoregressive image models, each one compiled program.

What is drawn are levels, or real numbers where the spec has none. All draw sub-pixel d of image i
from the same noise, so that the same key gives the same images. `naive` runs the whole network for
every sub-pixel and is the reference. `cached` does the work of one forward pass: what finished rows
give to the next row is computed for the whole row at once, and only the row's own left context goes
from pixel to pixel. `wavefront`, for single stacks of masked convolutions (`wavefront.py`), does
the same work along diagonals, in fewer and wider steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Key, Shaped

from jaxgen.causal.condition import NOTHING, Condition
from jaxgen.distributions.likelihoods import Likelihood
from jaxgen.spec import DataSpec

LONG = 512
"""Sub-pixels of a row; in a longer one (a sound) noise is made pixel by pixel, for memory."""


class Draw(NamedTuple):
    """How a sub-pixel is drawn."""

    noise: Callable[[Array], Array]
    """Numbers of sub-pixels [n] -> their noise [n b …]."""
    pick: Callable[[Any, Array, Array], tuple[Any, Array, Any]]
    """(state, noise [b …], params [b p]) -> state, levels [b], record."""
    state: Any = ()
    """What goes from each sub-pixel to the next, in order; only `cached` carries it."""


def draw_from(
    likelihood: Likelihood, keys: Key[Array, " b"], temperature: float | Array = 1.0
) -> Draw:
    """Draws of a likelihood: sub-pixel d of example i from (key i, d) alone."""

    def noise(positions: Array) -> Array:
        at = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))(keys, positions)
        return jax.vmap(jax.vmap(likelihood.noise))(at)

    def pick(state: Any, noise: Array, params: Array) -> tuple[Any, Array, Any]:
        return state, likelihood.pick(noise, params, temperature), ()

    return Draw(noise, pick)


class Pixels(NamedTuple):
    """One pixel of each of n images, or of n places."""

    given: Shaped[Array, "n c"]
    keep: Bool[Array, "n c"]
    """Which of them are known."""
    noise: Array
    """[c n …]"""


class Stepper(Protocol):
    """A bound network with its condition, cut so that `cached` can run it row by row and pixel by
    pixel."""

    def start(self, batch: int) -> Any:
        """What finished rows leave, before there is one."""

    def begin(self, rows: Any, row: Int[Array, ""]) -> tuple[Any, Any]:
        """What the first pixel of that row finds to its left, and what every column gets from the
        rows above and from the condition (a pytree whose leading axis is that of columns)."""

    def pixel(
        self, left: Any, above: Any, pixels: Pixels, state: Any
    ) -> tuple[Any, Any, Shaped[Array, "b c"], Any, Any]:
        """Draws a pixel, channel after channel: what the next pixel finds, what the row keeps,
        the levels, the state of the draws, and their records."""

    def end(self, rows: Any, left: Any, memos: Any) -> Any:
        """What finished rows leave, with this one; `left` from its last pixel, and `memos` of all
        its pixels, leading axis = column."""


def sample_pixels_naive(
    network: Any,
    spec: DataSpec,
    draw: Draw,
    image: Shaped[Array, "b h w c"],
    known: Bool[Array, "b h w c"],
    condition: Condition = NOTHING,
) -> Shaped[Array, "b h w c"]:
    """Fills in the unknown sub-pixels by h*w*c passes of the bound network."""

    dtype = dtype_of(network)
    condition = condition.astype(dtype)

    def step(position: Array, image: Array) -> Array:
        row, column, channel = jnp.unravel_index(position, spec.shape)
        params = network(spec.to_float(image).astype(dtype), condition)
        noise = draw.noise(position[None])[0]
        _, level, _ = draw.pick(draw.state, noise, params[:, row, column, channel])
        given = known[:, row, column, channel]
        level = jnp.where(given, image[:, row, column, channel], level.astype(image.dtype))
        return image.at[:, row, column, channel].set(level)

    # Unknown sub-pixels start at level 0, whatever the caller left there.
    return lax.fori_loop(0, spec.dims, step, jnp.where(known, image, 0).astype(image.dtype))


def sample_pixels_cached(
    network: Any,
    spec: DataSpec,
    draw: Draw,
    image: Shaped[Array, "b h w c"],
    known: Bool[Array, "b h w c"],
    condition: Condition = NOTHING,
) -> Shaped[Array, "b h w c"]:
    """Fills in the unknown sub-pixels at the cost of one pass of the bound network."""
    return run_cached(network, spec, draw, image, known, condition)[0]


def run_cached(
    network: Any,
    spec: DataSpec,
    draw: Draw,
    image: Shaped[Array, "b h w c"],
    known: Bool[Array, "b h w c"],
    condition: Condition = NOTHING,
) -> tuple[Shaped[Array, "b h w c"], Any, Any]:
    """`sample_pixels_cached`, with the last state of the draws and their records, leading axes
    [h w c]. Columns lead in memory, and the batch follows."""
    batch, height, width, channels = image.shape
    stepper: Stepper = network.stepper(spec, draw, condition.astype(dtype_of(network)))
    long = width * channels > LONG

    def pixel_step(carry: Any, column: Any) -> tuple[Any, Any]:
        left, state = carry
        above, pixels = column
        if long:
            pixels = pixels._replace(noise=draw.noise(pixels.noise))
        left, memo, levels, state, records = stepper.pixel(left, above, pixels, state)
        return (left, state), (memo, levels, records)

    def row_step(carry: Any, row: Any) -> tuple[Any, Any]:
        rows, state = carry
        given, keep, positions, number = row
        noise = positions if long else draw.noise(positions)
        noise = noise.reshape(width, channels, *noise.shape[1:])
        left, above = stepper.begin(rows, number)
        columns = above, Pixels(given, keep, noise)
        (left, state), (memos, *drawn) = lax.scan(pixel_step, (left, state), columns)
        return (stepper.end(rows, left, memos), state), drawn

    positions = jnp.arange(spec.dims).reshape(height, width * channels)
    by_row = (
        image.transpose(1, 2, 0, 3),
        known.transpose(1, 2, 0, 3),
        positions,
        jnp.arange(height),
    )
    start = stepper.start(batch), draw.state
    (_, state), (levels, records) = lax.scan(row_step, start, by_row)
    return levels.transpose(2, 0, 1, 3), state, records


def dtype_of(network: Any) -> jnp.dtype:
    """The type of a bound network's parameters, in which it computes."""
    return jnp.result_type(*jax.tree.leaves(network.variables["params"]))


def keep_known(levels: Array, level: Array, pixels: Pixels, channel: int) -> Array:
    """The pixels' levels with that channel drawn, or as it is known."""
    level = jnp.where(pixels.keep[:, channel], pixels.given[:, channel], level.astype(levels.dtype))
    return levels.at[:, channel].set(level)


def stacked(records: list[Any]) -> Any:
    """The channels' records as one, [c …]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *records)
