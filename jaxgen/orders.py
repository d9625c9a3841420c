"""Orders in which an autoregressive model takes the pixels: the image is turned, not the network.

A network takes every image row by row from its top left. An order is how the image is laid before
it; R goes before G before B in every order.
"""

from typing import Literal

from jaxtyping import Array, Shaped

Order = Literal["raster", "columns", "reversed"]
"""raster: rows from the top, each from the left; columns: columns from the left, each from the top;
reversed: rows from the bottom, each from the right."""


def arrange(order: Order, image: Shaped[Array, "b h w *c"]) -> Shaped[Array, "b h2 w2 *c"]:
    """The image as the network takes it; each order undoes itself."""
    if order == "columns":
        return image.swapaxes(1, 2)
    return image[:, ::-1, ::-1] if order == "reversed" else image
