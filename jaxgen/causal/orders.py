"""Orders in which an autoregressive model takes the pixels: the image is turned, not the network.

A network takes every image row by row from its top left. An order is how the image is laid before
it; R goes before G before B in every order.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Array, Int, Shaped

from jaxgen.causal.condition import Condition
from jaxgen.spec import DataSpec

Order = Literal["raster", "columns", "reversed"]
"""raster: rows from the top, each from the left; columns: columns from the left, each from the top;
reversed: rows from the bottom, each from the right."""


def arrange(order: Order, image: Shaped[Array, "b h w *c"]) -> Shaped[Array, "b h2 w2 *c"]:
    """The image as the network takes it; each order undoes itself."""
    if order == "columns":
        return image.swapaxes(1, 2)
    return image[:, ::-1, ::-1] if order == "reversed" else image


def arrange_condition(order: Order, condition: Condition) -> Condition:
    """The condition with maps as the network takes them."""
    if condition.maps is None:
        return condition
    return condition.having(arrange(order, condition.maps))


def arranged(order: Order, spec: DataSpec) -> DataSpec:
    """What a datum is after `arrange`."""
    if order != "columns":
        return spec
    return dataclasses.replace(spec, height=spec.width, width=spec.height)


def permutation(size: int, *seed: int) -> np.ndarray:
    """A random order of 0..size-1, int32, always the same for the same seed."""
    # The one generator of NumPy whose stream is frozen for good (NEP 19).
    return np.random.RandomState(seed).permutation(size).astype(np.int32)


def permute(
    image: Shaped[Array, "b h w *c"], order: Int[Array, " h*w"]
) -> Shaped[Array, "b h w *c"]:
    """The image with pixel order[i] at the place i, both counted row by row."""
    flat = image.reshape(image.shape[0], -1, *image.shape[3:])
    return flat[:, order].reshape(image.shape)
