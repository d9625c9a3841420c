"""Pairings: what x is to be made from, made from x.

A pairing turns x into its source exactly, in integers, so that the train step can do it: data are
stored once, and where one x alone can have given a source, a translation has a right answer.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from jaxgen.data.chunks import by_chunks
from jaxgen.errors import UserError
from jaxgen.spec import DataSpec

Levels = UInt8[Array, "b h w c"]


class Recipe(NamedTuple):
    """How a source is made, of images of any number of levels."""

    says: str
    """From what to what."""
    make: Callable[[Array, int], Array]
    """(x, its number of levels) to the source, of as many levels."""
    answer: Callable[[Array, int], Array] | None = None
    """The way back, where there is one."""
    channels: int = 0
    """What x must have; 0 = any number."""
    multiple: int = 1
    """What the height and the width of x must be multiples of."""
    least: int = 1
    """What they must be at least."""


def _grey(x: Array, levels: int) -> Array:
    """Luma of ITU-R 601 as Pillow rounds it, in 16-bit fixed point."""
    weighed = x.astype(jnp.int32) * jnp.array([19595, 38470, 7471]).reshape(1, 1, 1, 3)
    return ((weighed.sum(-1, keepdims=True) + 2**15) >> 16).astype(jnp.uint8)


def _shrink(x: Array, levels: int, factor: int) -> Array:
    """Means of blocks, rounded to the nearest level; halves up."""
    b, h, w, c = x.shape
    blocks = x.astype(jnp.int32).reshape(b, h // factor, factor, w // factor, factor, c)
    return ((blocks.sum((2, 4)) + factor**2 // 2) // factor**2).astype(jnp.uint8)


def _hole(x: Array, levels: int) -> Array:
    """Level 0 in the middle half of the rows and columns."""
    _, h, w, _ = x.shape
    return x.at[:, h // 4 : h - h // 4, w // 4 : w - w // 4].set(0)


def _invert(x: Array, levels: int) -> Array:
    return jnp.uint8(levels - 1) - x


def _edges(x: Array, levels: int) -> Array:
    """The largest step to the pixel below or to the right, over all channels; one channel."""
    x = x.astype(jnp.int32)
    below = jnp.abs(jnp.diff(x, axis=1, append=x[:, -1:]))
    right = jnp.abs(jnp.diff(x, axis=2, append=x[:, :, -1:]))
    return jnp.maximum(below, right).max(-1, keepdims=True).astype(jnp.uint8)


def _rotate(x: Array, levels: int, turns: int) -> Array:
    return jnp.rot90(x, turns, (1, 2))


def _tint(x: Array, levels: int) -> Array:
    """The colour (v, v/2, K-1-v) of grey v: blue where it was black, orange where white."""
    return jnp.concatenate([x, x // jnp.uint8(2), _invert(x, levels)], -1)


def _untint(source: Array, levels: int) -> Array:
    return source[..., :1]


PAIRINGS: Mapping[str, Recipe] = {
    "colorize": Recipe("grey to colour", _grey, channels=3),
    "super2": Recipe("small to large", functools.partial(_shrink, factor=2), multiple=2),
    "super4": Recipe("small to large", functools.partial(_shrink, factor=4), multiple=4),
    "inpaint": Recipe("with a hole to whole", _hole, least=4),
    "invert": Recipe("negative to positive", _invert, _invert),
    "edges": Recipe("edges to image", _edges, least=2),
    "rotate": Recipe(
        "turned by 90° to upright",
        functools.partial(_rotate, turns=1),
        functools.partial(_rotate, turns=-1),
    ),
    "tint": Recipe("tinted to grey", _tint, _untint, channels=1),
}
"""What `--pairing` names."""


@dataclass(frozen=True)
class Pairing:
    """The pairing of that name, for images of one spec."""

    name: str
    spec: DataSpec
    """What x is."""

    def __post_init__(self) -> None:
        spec, recipe, flag = self.spec, PAIRINGS[self.name], f"--pairing={self.name}"
        size = f"{spec.height}x{spec.width}"
        if spec.kind != "image" or not spec.levels:
            what = {"image": "real numbers", "sound": "sounds", "points": "points"}[spec.kind]
            raise UserError(f"{flag} is of images of levels, and these are {what}; leave it out")
        if recipe.channels and spec.channels != recipe.channels:
            mend = "take a --dataset of colour images, without --grey"
            if recipe.channels == 1:
                mend = "give --grey"
            raise UserError(
                f"{flag} needs images of {recipe.channels} channel"
                f"{'s' * (recipe.channels > 1)}, and these have {spec.channels}: {mend}"
            )
        if spec.height % recipe.multiple or spec.width % recipe.multiple:
            raise UserError(
                f"{flag} needs sizes that {recipe.multiple} divides, and these images are {size}: "
                f"give --size=N, N a multiple of {recipe.multiple}"
            )
        if min(spec.height, spec.width) < recipe.least:
            raise UserError(
                f"{flag} needs images of {recipe.least} x {recipe.least} pixels at least, and "
                f"these are {size}: give a larger --size"
            )

    @property
    def source(self) -> DataSpec:
        """What the source is."""
        x = jax.ShapeDtypeStruct((1, *self.spec.shape), jnp.uint8)
        _, height, width, channels = jax.eval_shape(self.make, x).shape
        return DataSpec(height, width, channels, self.spec.levels)

    @property
    def says(self) -> str:
        """From what to what, for people."""
        return PAIRINGS[self.name].says

    def make(self, x: Levels) -> Levels:
        """Returns the source of each x; pure, may be compiled, and exact."""
        return PAIRINGS[self.name].make(x, self.spec.levels)

    @property
    def exact(self) -> bool:
        """Whether a source comes from one x alone, which `answer` gives."""
        return PAIRINGS[self.name].answer is not None

    def answer(self, source: Levels) -> Levels:
        """Returns the one x that gives each source: the inverse of `make`. Only where `exact`."""
        answer = PAIRINGS[self.name].answer
        assert answer is not None, f"{self.name} has no inverse"
        return answer(source, self.spec.levels)

    def made(self, x: np.ndarray) -> np.ndarray:
        """`make` of a whole split [n h w c], in memory."""
        return by_chunks(lambda x, ids: _make(self, x), x)


@functools.partial(jax.jit, static_argnums=0)
def _make(pairing: Pairing, x: Array) -> Array:
    return pairing.make(x)
