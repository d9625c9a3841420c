"""Orders in which an autoregressive model takes the pixels: the image is turned, not the network.

A network takes every image row by row from its top left. An order is how the image is laid before
it; R goes before G before B in every order.
"""

from typing import Literal

import numpy as np
from jaxtyping import Array, Int, Shaped

Order = Literal["raster", "columns", "reversed"]
"""raster: rows from the top, each from the left; columns: columns from the left, each from the top;
reversed: rows from the bottom, each from the right."""


def arrange(order: Order, image: Shaped[Array, "b h w *c"]) -> Shaped[Array, "b h2 w2 *c"]:
    """The image as the network takes it; each order undoes itself."""
    if order == "columns":
        return image.swapaxes(1, 2)
    return image[:, ::-1, ::-1] if order == "reversed" else image


def permutation(size: int, *seed: int) -> np.ndarray:
    """A random order of 0..size-1, int32, always the same for the same seed."""
    # The one generator of NumPy whose stream is frozen for good (NEP 19).
    return np.random.RandomState(seed).permutation(size).astype(np.int32)


def permute(
    image: Shaped[Array, "b h w *c"], order: Int[Array, "h*w"]
) -> Shaped[Array, "b h w *c"]:
    """The image with pixel order[i] at the place i, both counted row by row."""
    flat = image.reshape(image.shape[0], -1, *image.shape[3:])
    return flat[:, order].reshape(image.shape)
