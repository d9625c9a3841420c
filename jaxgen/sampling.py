"""Exact samplers of autoregressive image models, each one compiled program.

Both draw sub-pixel d of every image with `draw(params, d)`, so that the same key gives the same
images. `naive` runs the whole network for every sub-pixel and is the reference. `cached` does the
work of one forward pass: what finished rows give to the next row is computed for the whole row
at once, and only the row's own left context goes from pixel to pixel.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, UInt8

from jaxgen.model import ImageSpec

Draw = Callable[[Array, Array], Array]
"""(params [b p], sub-pixel number) -> levels [b]."""


def sample_pixels_naive(
    network: Any,
    spec: ImageSpec,
    draw: Draw,
    image: UInt8[Array, "b h w c"],
    known: Bool[Array, "b h w c"],
    label: Int[Array, " b"] | None = None,
) -> UInt8[Array, "b h w c"]:
    """Fills in the unknown sub-pixels by h*w*c passes of the bound network."""

    def step(position: Array, image: Array) -> Array:
        row, column, channel = jnp.unravel_index(position, spec.shape)
        params = network(spec.to_float(image), label)
        level = draw(params[:, row, column, channel], position).astype(jnp.uint8)
        kept = known[:, row, column, channel]
        level = jnp.where(kept, image[:, row, column, channel], level)
        return image.at[:, row, column, channel].set(level)

    # Unknown sub-pixels start at level 0, whatever the caller left there.
    return lax.fori_loop(0, spec.dims, step, jnp.where(known, image, 0).astype(jnp.uint8))


def sample_pixels_cached(
    network: Any,
    spec: ImageSpec,
    draw: Draw,
    image: UInt8[Array, "b h w c"],
    known: Bool[Array, "b h w c"],
    label: Int[Array, " b"] | None = None,
) -> UInt8[Array, "b h w c"]:
    """Fills in the unknown sub-pixels at the cost of one pass of the bound network.

    The network offers `empty_rows`, `above` and `pixel` (see `PixelCNNNet`). A scan over rows
    carries each layer's last input rows; a scan over columns its last input pixels.
    """
    batch, height, width, channels = image.shape
    rows = network.empty_rows(batch, width)

    def pixel_step(left: Any, column: Any) -> tuple[Any, Any]:
        above, given, keep, position = column
        x = spec.to_float(jnp.where(keep, given, 0).astype(jnp.uint8))
        levels = given
        inputs: tuple[Array, ...] = ()
        for channel in range(channels):
            params, inputs = network.pixel(x, left, above, label)
            level = draw(params[:, channel], position + channel).astype(jnp.uint8)
            level = jnp.where(keep[:, channel], given[:, channel], level)
            levels = levels.at[:, channel].set(level)
            x = spec.to_float(levels)
        # No feature of a pixel depends on its last channel; only the image row does.
        inputs = (x, *inputs[1:])
        left = tuple(
            jnp.concatenate([w[:, 1:], i[:, None]], axis=1)
            for w, i in zip(left, inputs, strict=True)
        )
        return left, (levels, inputs)

    def row_step(rows: Any, row: Any) -> tuple[Any, Array]:
        given, keep, positions = row
        above = tuple(a.swapaxes(0, 1) for a in network.above(rows))
        left = tuple(jnp.zeros((batch, r.shape[1], r.shape[3])) for r in rows)
        columns = (above, given.swapaxes(0, 1), keep.swapaxes(0, 1), positions)
        _, (levels, inputs) = lax.scan(pixel_step, left, columns)
        rows = tuple(
            jnp.concatenate([r[:, 1:], i.swapaxes(0, 1)[:, None]], axis=1)
            for r, i in zip(rows, inputs, strict=True)
        )
        return rows, levels.swapaxes(0, 1)

    positions = jnp.arange(height * width).reshape(height, width) * channels
    by_row = (image.swapaxes(0, 1), known.swapaxes(0, 1), positions)
    _, levels = lax.scan(row_step, rows, by_row)
    return levels.swapaxes(0, 1)
