"""The linear map between two domains that is found without pairs: principal axes, and then nearest
neighbours (Hoshen & Wolf 2018, arXiv:1801.06126)."""

import itertools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError
from jaxgen.optim.net import Net

RANK = 128
"""The most axes of a map."""
STAGES = (8, 12, 16, 24, 32, 48, 64, 96, RANK)
"""How many axes are matched, in turn: coarse ones leave few ways to be wrong."""
FOLLOWED, CHOSEN_AT, TURNS = 16, 24, 15
"""How many beginnings are followed up to so many axes, and how often each stage matches."""
LEAST = 100
"""The fewest examples by which two domains are aligned."""


@flax.struct.dataclass
class Alignment:
    """The map x -> (x - mean) @ axes @ made_axes.T + made_mean, of flattened examples."""

    mean: Float[Array, " d"]
    axes: Float[Array, "d r"]
    made_mean: Float[Array, " e"]
    made_axes: Float[Array, "e r"]

    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b e"]:
        return (x - self.mean[None]) @ self.axes @ self.made_axes.T + self.made_mean[None]

    @property
    def inverse(self) -> "Alignment":
        """The map back, which undoes it within the span of the axes."""
        return Alignment(self.made_mean, self.made_axes, self.mean, self.axes)


def aligned(a: Float[Array, "n d"], b: Float[Array, "m e"]) -> Alignment:
    """The orthogonal map of principal axes that brings a to b, row by row to no row of its own.

    Both sets are turned to their principal axes, whose order matches them but for signs. Of all
    signs of the first eight, those that bring a nearest to b are followed: each row is matched with
    the nearest of the other set, both ways, and the map is the best rotation for these pairs
    (Procrustes); and so again, with more and more axes. What stays nearest is kept. It is found
    where the domains are turned, mirrored or permuted copies of each other, such as negatives or
    images by a quarter turn, whose distribution is not symmetric itself; a few hundred rows or more
    are needed. The rank is min(d, e, 128).
    """
    rank = min(a.shape[1], b.shape[1], RANK)
    (mean, axes, x), (made_mean, made_axes, y) = _axes(a, rank), _axes(b, rank)
    stages = sorted({min(stage, rank) for stage in STAGES})
    first = stages[0]
    signs = jnp.array(list(itertools.product((1.0, -1.0), repeat=first)))
    apart = jax.lax.map(lambda s: _matched(x[:, :first] * s[None], y[:, :first])[2], signs)
    turns = jax.vmap(jnp.diag)(signs[jnp.argsort(apart)[:FOLLOWED]])
    early = [stage for stage in stages if stage <= CHOSEN_AT]

    def follow(turn: Array) -> tuple[Array, Array]:
        for stage in early:
            turn = _turned(turn, x[:, :stage], y[:, :stage])
        return turn, _matched(x[:, : early[-1]] @ turn, y[:, : early[-1]])[2]

    turns, apart = jax.lax.map(follow, turns)
    turn = turns[jnp.argmin(apart)]
    for stage in stages[len(early) :]:
        turn = _turned(turn, x[:, :stage], y[:, :stage])
    return Alignment(mean, axes @ turn, made_mean, made_axes)


def _axes(x: Array, rank: int) -> tuple[Array, Array, Array]:
    """The mean, the first principal axes [d rank], and the rows along them [n rank]."""
    mean = x.mean(0)
    centred = x - mean[None]
    axes = jnp.linalg.svd(centred, full_matrices=False)[2][:rank].T
    axes = jnp.pad(axes, ((0, 0), (0, rank - axes.shape[1])))  # of fewer rows than axes
    return mean, axes, centred @ axes


def _matched(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """The nearest y of each x and the nearest x of each y, and how far these are on average."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2.0 * x @ y.T
    far = [jnp.sqrt(jnp.maximum(squares.min(axis), 0.0)).mean() for axis in (1, 0)]
    return squares.argmin(1), squares.argmin(0), (far[0] + far[1]) / 2.0


def _turned(turn: Array, x: Array, y: Array) -> Array:
    """The rotation of rows x into rows y that it settles at, begun with one of fewer axes."""

    def again(turn: Array, _: None) -> tuple[Array, None]:
        of_x, of_y, _far = _matched(x @ turn, y)
        left, _size, right = jnp.linalg.svd(x.T @ y[of_x] + x[of_y].T @ y)
        return left @ right, None

    more = x.shape[1] - len(turn)
    return jax.lax.scan(again, jnp.pad(turn, ((0, more), (0, more))), None, length=TURNS)[0]


class Aligned(nn.Module, kw_only=True):
    """A translation that begins as an `Alignment`, to which a network adds what it lacks."""

    shape: tuple[int, int, int]
    """Height, width and channels of what is returned."""
    rank: int
    net: nn.Module
    """From what the map returns to what is added: a `UNet` or `ResNet`."""

    @nn.compact
    def __call__(
        self,
        source: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h2 w2 c2"]:
        """The map is the collection "aligned"; it is not trained."""
        flat = source.reshape(len(source), -1)
        given, made = flat.shape[1], self.shape[0] * self.shape[1] * self.shape[2]

        def nothing() -> Alignment:
            zeros: Any = jnp.zeros
            return Alignment(
                zeros(given), zeros((given, self.rank)), zeros(made), zeros((made, self.rank))
            )

        x = self.variable("aligned", "map", nothing).value(flat)
        x = x.reshape(-1, *self.shape).astype(source.dtype)
        return x + self.net(x, label, keys)


def beginning(net: Net, found: Alignment) -> Net:
    """The Net of an `Aligned`, with that map."""
    return Net({**net.variables, "aligned": {"map": found}}, net.opt_state)


def check_aligned(num: int) -> None:
    """Raises UserError for so few examples that they have no neighbours."""
    if num < 0 or 0 < num < LEAST:
        raise UserError(f"`aligned` must be 0, or {LEAST} examples or more; got {num}")
