"""What a datum is: the one description that data sets, models, media and reports share."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxgen.errors import UserError


def bits_per_dim(nats: Float[Array, "*b"] | float, dims: int) -> Float[Array, "*b"] | float:
    """Nats per image as bits per sub-pixel: nats / (dims ln 2)."""
    return nats / (dims * 0.6931471805599453)


@dataclass(frozen=True)
class ImageSpec:
    """What an image of the data set is; the model's input and output follow from it."""

    height: int
    width: int
    channels: int = 1
    levels: int = 256
    """Images are integers 0..levels-1, stored as uint8."""
    num_classes: int = 0
    """Number of labels that a conditional model is told; 0 = unconditional."""
    rate: int = 0
    """Samples a second, where an image is a sound: its height is 1 and its width is the time,
    it has one channel, and levels are mu-law's (see `jaxgen.sound`). 0 = a picture."""

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise UserError(f"--levels must lie in 2..256 (images are uint8); got {self.levels}")
        if self.rate < 0 or (self.rate and (self.height, self.channels) != (1, 1)):
            raise UserError(
                f"a sound has a height of 1, one channel and a positive rate; got {self.height}, "
                f"{self.channels} and {self.rate}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def dims(self) -> int:
        """Number of sub-pixels, the D of bits per dimension."""
        return self.height * self.width * self.channels

    def to_float(self, image: Array) -> Float[Array, "*b h w c"]:
        """Levels 0..levels-1 as floats in [-1, 1]; floats pass through as they are."""
        if jnp.issubdtype(image.dtype, jnp.floating):
            return image
        return image.astype(jnp.float32) * (2.0 / (self.levels - 1)) - 1.0

    def to_levels(self, x: Float[Array, "*b h w c"]) -> UInt8[Array, "*b h w c"]:
        """The nearest level to floats in [-1, 1]; values outside are clipped."""
        levels = jnp.round((x + 1.0) * ((self.levels - 1) / 2.0))
        return jnp.clip(levels, 0, self.levels - 1).astype(jnp.uint8)
