"""The arrays of a game, and what the updates of one of its steps share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
from jaxtyping import Array, Float, Int, Key

from jaxgen.optim.net import Net, Variables


@flax.struct.dataclass
class GameState:
    """The two players, and the generator's average, which is used."""

    g: Net
    d: Net
    ema: Variables
    """Moving average of every collection of the generator."""


class Turn(NamedTuple):
    """What the updates of one train step share."""

    step: int | Int[Array, ""]
    key_real: Key[Array, ""]
    key_fake: Key[Array, ""]
    noise: float | Float[Array, ""] | None
    """Standard deviation of the instance noise, if there is any."""
    axis_name: str | None


Apply = Callable[..., tuple[Any, Variables]]
"""A player with its arrays: (inputs) -> (outputs, the collections that the pass changed)."""
