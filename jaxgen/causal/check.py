"""Does a network's output see only what stands before it? For any function from images to images.

Order is that of the sub-pixels: rows from the top, columns from the left, R before G before B.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxgen.errors import UserError

CHUNK = 64
"""Images in one call of the function."""

MAP_SIDE = 16
"""The largest image, in pixels a side, that a report draws."""

Place = tuple[int, int, int]
"""(row, column, channel) of a sub-pixel."""

LEGEND = "# seen  . before it, not seen  o itself  - after it, not seen  ! seen, and must not be"


@dataclass(frozen=True, eq=False)
class CausalityReport:
    """Which inputs each output was seen to depend on."""

    shape: tuple[int, int, int]
    sees: np.ndarray
    """bool [output input], both in raster order of sub-pixels."""
    nan_outputs: int = 0
    """Sub-pixels with a NaN in the output for an unchanged image: there, nothing can be seen."""

    @property
    def leaks(self) -> list[tuple[Place, Place]]:
        """(output, input) pairs where the output sees itself or a later sub-pixel."""
        return self._places(self._leaks())

    @property
    def blind(self) -> list[tuple[Place, Place]]:
        """(output, input) pairs where an earlier sub-pixel is not seen: the blind spot."""
        return self._places(np.argwhere(np.tril(~self.sees, -1)))

    @property
    def is_autoregressive(self) -> bool:
        """Whether there is no leak."""
        return len(self._leaks()) == 0

    def __str__(self) -> str:
        leaks, outputs = self._leaks(), len(self.sees)
        past, seen = outputs * (outputs - 1) // 2, int(np.tril(self.sees, -1).sum())
        lines = ["autoregressive: no output sees its own sub-pixel or a later one"]
        if len(leaks):
            guilty = len(np.unique(leaks[:, 0]))
            lines = [
                f"NOT autoregressive: {guilty} of {outputs} outputs see their own sub-pixel "
                f"or a later one ({len(leaks)} leaks); (row, column, channel):"
            ]
            lines += [
                f"  output {out} sees {into}{', itself' if out == into else ''}"
                for out, into in self._places(leaks[:5])
            ]
            lines += [f"  and {len(leaks) - 5} more"] * (len(leaks) > 5)
        lines.append(f"of {past} earlier sub-pixels, over all outputs, {past - seen} are not seen")
        if self.nan_outputs:
            lines.append(f"{self.nan_outputs} of {outputs} outputs are NaN, and could hide leaks")
        if max(self.shape[:2]) <= MAP_SIDE:
            lines += self._map()
        return "\n".join(lines)

    def _leaks(self) -> np.ndarray:
        return np.argwhere(np.triu(self.sees))

    def _places(self, pairs: np.ndarray) -> list[tuple[Place, Place]]:
        places = np.stack(np.unravel_index(pairs, self.shape), -1).tolist()
        return [(tuple(out), tuple(into)) for out, into in places]

    def _map(self) -> list[str]:
        height, width, channels = self.shape
        place = (height // 2, width // 2, channels // 2)
        at = int(np.ravel_multi_index(place, self.shape))
        order = np.arange(len(self.sees))
        marks = np.where(self.sees[at], "#", ".")
        marks = np.where(order >= at, np.where(self.sees[at], "!", "-"), marks)
        if not self.sees[at, at]:
            marks[at] = "o"
        rows = marks.reshape(height, width, channels)
        drawn = ["  " + " ".join("".join(pixel) for pixel in row) for row in rows]
        return [f"what output {place} sees ({LEGEND}):", *drawn]


def check_autoregressive(
    fn: Callable[[Array], Any],
    shape: tuple[int, int, int],
    *,
    levels: int | None = None,
    trials: int = 2,
    key: Key[Array, ""] | None = None,
    atol: float = 0.0,
) -> CausalityReport:
    """Reports which sub-pixels each output of `fn`: [b h w c] -> [b h w c ...] depends on.

    `fn` need not be differentiable: it is run on random images of `shape` = (h, w, c), floats in
    [-1, 1], or int32 0..levels-1 if `levels` is given, in which one sub-pixel at a time is
    changed; an output that moves by more than `atol` in any trial has seen it. A dependence that
    happens not to move the output in any trial (a dead unit, rounding) is not found: more
    trials find more. A trial costs about h*w*c + 1 passes of one image.

    Raises UserError if the output's shape does not begin with the input's.
    """
    shape = tuple(int(n) for n in shape)  # type: ignore[assignment]
    if len(shape) != 3 or min(shape) < 1 or trials < 1 or (levels is not None and levels < 2):
        raise UserError(
            f"check_autoregressive needs shape=(height, width, channels), trials >= 1 and "
            f"levels >= 2 or None; got {shape}, {trials}, {levels}"
        )
    seed = jax.random.bits(jax.random.key(0) if key is None else key, (4,))
    rng = np.random.default_rng(np.asarray(seed))
    dims = int(np.prod(shape))
    sees, nan = np.zeros((dims, dims), bool), np.ones(dims, bool)
    for _ in range(trials):
        moved, unknown = _trial(fn, shape, levels, rng, atol)
        sees, nan = sees | moved, nan & unknown
    return CausalityReport(shape, sees, int(nan.sum()))


def _trial(
    fn: Callable[[Array], Any],
    shape: tuple[int, int, int],
    levels: int | None,
    rng: np.random.Generator,
    atol: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What moved [output input], and which outputs [output] are NaN, for one random image."""
    dims = int(np.prod(shape))
    base: np.ndarray
    if levels is None:
        base = rng.uniform(-1, 1, dims).astype(np.float32)
        changed = ((base + 1 + rng.uniform(0.5, 1.5, dims)) % 2 - 1).astype(np.float32)
    else:
        base = rng.integers(levels, size=dims, dtype=np.int32)
        changed = ((base + rng.integers(1, levels, size=dims)) % levels).astype(np.int32)
    size = min(CHUNK, dims)
    same = np.tile(base, (size, 1))
    # The same place in the same batch: what is the same is the same to the last bit.
    reference = _outputs(fn, same, shape)
    sees = np.zeros((dims, dims), bool)
    for first in range(0, dims, size):
        which = np.arange(first, min(first + size, dims))
        images = same.copy()
        images[np.arange(len(which)), which] = changed[which]
        moved = _moved(_outputs(fn, images, shape), reference, atol)
        sees[:, which] = moved[: len(which)].any(-1).T
    return sees, np.isnan(reference[0]).any(-1)


def _outputs(fn: Callable[[Array], Any], images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """fn's outputs, float64 [b output p]."""
    expected = (len(images), *shape)
    out = np.asarray(fn(jnp.asarray(images.reshape(expected))))
    if out.shape[:4] != expected:
        raise UserError(
            f"check_autoregressive: for images {expected} the function must return an array "
            f"whose shape begins with the same four numbers; it returned {out.shape}"
        )
    return out.astype(np.float64).reshape(len(images), len(images[0]), -1)


def _moved(a: np.ndarray, b: np.ndarray, atol: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= atol
    return ~(near | (a == b) | (np.isnan(a) & np.isnan(b)))
