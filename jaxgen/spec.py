"""What a datum is: the one description that data sets, models, media and reports share."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxgen.errors import UserError

Kind = Literal["image", "sound", "points"]
"""What a datum looks like to people."""


@dataclass(frozen=True)
class DataSpec:
    """What a datum is; a model's input and output follow from it."""

    height: int
    width: int
    channels: int = 1
    levels: int = 256
    """x is integers 0..levels-1, stored as uint8; 0 = real numbers, float32, in about [-1, 1]."""
    num_classes: int = 0
    """Number of labels that a conditional model is told; 0 = unconditional."""
    rate: int = 0
    """Samples a second, where x is a sound: its height is 1 and its width is the time,
    it has one channel, and levels are mu-law's (see `jaxgen.media.sound`). 0 = no sound."""
    ranges: tuple[tuple[float, float], ...] = ()
    """Where x is a point [1 1 d]: what -1 and 1 stand for in each coordinate; a plot's window."""
    source: "DataSpec | None" = None
    """What x is made from: the other half of a pair, or the other domain. None = nothing."""

    def __post_init__(self) -> None:
        if self.levels != 0 and not 2 <= self.levels <= 256:
            raise UserError(
                f"--levels must lie in 2..256 (x is uint8), or be 0 for real numbers; got "
                f"{self.levels}"
            )
        if self.rate < 0 or (self.rate and (self.height, self.channels) != (1, 1)):
            raise UserError(
                f"a sound has a height of 1, one channel and a positive rate; got {self.height}, "
                f"{self.channels} and {self.rate}"
            )
        if self.ranges and (self.height, self.width, self.channels) != (1, 1, len(self.ranges)):
            raise UserError(
                f"points of {len(self.ranges)} ranges have the shape (1, 1, {len(self.ranges)}); "
                f"got {self.shape}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def dims(self) -> int:
        """Number of sub-pixels, the D of bits per dimension."""
        return self.height * self.width * self.channels

    @property
    def dtype(self) -> Any:
        """The type of x: uint8 levels, or float32."""
        return jnp.uint8 if self.levels else jnp.float32

    @property
    def kind(self) -> Kind:
        return "points" if self.ranges else "sound" if self.rate else "image"

    @property
    def log_volume(self) -> float:
        """What is added to an NLL of x in nats so that it is in the data's own units.

        Of points: real x are the data in [-1, 1], scaled by half of each range; levels are bins,
        whose mass over their width is a density. 0 for images and sounds.
        """
        if not self.ranges:
            return 0.0
        width = 2.0 if not self.levels else float(self.levels)
        return sum(math.log((high - low) / width) for low, high in self.ranges)

    def to_float(self, x: Shaped[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Levels 0..levels-1 as floats in [-1, 1]; floats pass through as they are."""
        if jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x.astype(jnp.float32) * (2.0 / (self.levels - 1)) - 1.0

    def from_float(self, x: Float[Array, "*b h w c"]) -> Shaped[Array, "*b h w c"]:
        """The level nearest to floats in [-1, 1], values outside clipped; real numbers as they
        are."""
        if not self.levels:
            return x
        levels = jnp.round((x + 1.0) * ((self.levels - 1) / 2.0))
        return jnp.clip(levels, 0, self.levels - 1).astype(jnp.uint8)

    def example(self, num: int) -> dict[str, Array]:
        """A batch of zeros of that size, for shapes."""
        batch = {"x": jnp.zeros((num, *self.shape), self.dtype), "index": jnp.arange(num)}
        if self.num_classes:
            batch["label"] = jnp.zeros((num,), jnp.int32)
        if self.source is not None:
            batch["source"] = jnp.zeros((num, *self.source.shape), self.source.dtype)
        return batch

    def shapes(self, num: int) -> Any:
        """The shapes and types of `example(num)`, without its arrays."""
        return jax.eval_shape(lambda: self.example(num))


def bits_per_dim(nats: Float[Array, "*b"] | float, dims: int) -> Float[Array, "*b"] | float:
    """Nats per image as bits per sub-pixel: nats / (dims ln 2)."""
    return nats / (dims * 0.6931471805599453)
