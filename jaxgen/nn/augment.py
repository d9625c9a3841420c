"""Random changes of images that gradients pass through (Zhao et al. 2020, arXiv:2006.10738): what a
discriminator of few data is shown, real and generated, so that it cannot learn them by heart.

Images are [h w c], floats in about [-1, 1]; each has its own key. What has no image, beyond an edge
or in a hole, is 0.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Image = Float[Array, "h w c"]

REACH = 1 / 8
"""How far an image is moved at most, of its side."""
HOLE = 1 / 2
"""The side of what is cut out, of the image's."""


def translation(key: Key[Array, ""], x: Image) -> Image:
    """The image moved by up to an eighth of its sides, rounded, in each direction."""
    height, width, _ = x.shape
    most = [int(side * REACH + 0.5) for side in (height, width)]
    keys = jax.random.split(key)
    by = [jax.random.randint(k, (), -m, m + 1) for k, m in zip(keys, most, strict=True)]
    wide = jnp.pad(x, [(most[0], most[0]), (most[1], most[1]), (0, 0)])
    return jax.lax.dynamic_slice(wide, (most[0] - by[0], most[1] - by[1], 0), x.shape)


def cutout(key: Key[Array, ""], x: Image) -> Image:
    """The image with a hole of half its sides, rounded, anywhere: a part may lie outside."""
    inside = jnp.ones((), bool)
    for axis, k in enumerate(jax.random.split(key)):
        side = x.shape[axis]
        hole = int(side * HOLE + 0.5)
        middle = jax.random.randint(k, (), 0, side + 1 - hole % 2)
        away = jnp.arange(side) - (middle - hole // 2)
        shape = (-1, 1) if axis == 0 else (1, -1)
        inside = inside & ((away >= 0) & (away < hole)).reshape(shape)
    return jnp.where(inside[..., None], 0.0, x)


def color(key: Key[Array, ""], x: Image) -> Image:
    """The image with another brightness (-1/2 to 1/2 added), saturation where it has three channels
    (0 to 2 times), and contrast (1/2 to 3/2 times)."""
    bright, saturated, contrast = (jax.random.uniform(k) for k in jax.random.split(key, 3))
    x = x + (bright - 0.5)
    if x.shape[-1] == 3:
        grey = x.mean(-1, keepdims=True)
        x = (x - grey) * (2.0 * saturated) + grey
    mean = x.mean()
    return (x - mean) * (contrast + 0.5) + mean


AUGMENTATIONS: dict[str, Callable[[Key[Array, ""], Image], Image]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def augmented(
    keys: Key[Array, " b"],
    x: Float[Array, "b h w c"],
    names: Sequence[str],
    strength: float | Float[Array, ""] = 1.0,
) -> Float[Array, "b h w c"]:
    """The images after the changes named, one after another, each of which an image undergoes with
    the probability `strength` (Karras et al. 2020, arXiv:2006.06676, section 2.2); at 0 they are as
    they were, to the last bit."""

    def one(key: Key[Array, ""], x: Image) -> Image:
        for name, part in zip(names, jax.random.split(key, len(names)), strict=True):
            key_does, key_how = jax.random.split(part)
            does = jax.random.uniform(key_does) < strength
            x = jnp.where(does, AUGMENTATIONS[name](key_how, x), x)
        return x

    return jax.vmap(one)(keys, x)
