"""Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.condition import NOTHING, Condition, Shift
from jaxgen.causal.streamed import StreamedNet, at_column, remember
from jaxgen.causal.streamed_layers import (
    DownConv,
    Head,
    Parametrized,
    RightConv,
    shift_down,
    shift_right,
)
from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.nn.layers import dropout, fold_keys, gate


class GatedBlock(nn.Module):
    """One layer of both stacks (the paper's figure 2), the condition in each gate (equation 4)."""

    features: int
    kernel: int
    dropout: float
    residual: bool

    def setup(self) -> None:
        reach, double = self.kernel // 2, 2 * self.features
        self.down = DownConv(double, reach + 1, self.kernel)
        self.link = nn.Dense(double)
        self.right = RightConv(double, reach + 1)
        self.out = nn.Dense(self.features)
        self.down_shift, self.right_shift = Shift(), Shift()

    def vertical(self, v: Array, condition: Condition, by_row: bool) -> tuple[Array, Array]:
        """The vertical stack after this layer, and what it gives to the horizontal one."""
        v = self.down_shift(self.down(v, by_row), condition)
        return gate(v), self.link(v)

    def horizontal(
        self, h: Array, link: Array, condition: Condition, keys: Any, column: Any
    ) -> Array:
        """The horizontal stack after this layer: of images, or of the pixel in that column."""
        new = self.right_shift(self.right(h, column) + link, condition)
        new = self.out(dropout(keys, gate(new), self.dropout))
        return h + new if self.residual else new


class GatedPixelCNNNet(StreamedNet):
    """A vertical stack, which sees all rows above, and a horizontal one, which sees the row."""

    width: int
    blocks: int
    first_kernel: int
    kernel: int
    dropout: float
    hidden: int
    channels: int
    likelihood: Parametrized
    names: int = 0
    """How many levels there are, where their order means nothing: each enters as a vector of its
    own. 0: the order does mean something, and a level enters as a number."""

    def setup(self) -> None:
        sides = [self.first_kernel] + [self.kernel] * self.blocks
        self.stack = [
            GatedBlock(self.width, side, self.dropout, residual=i > 0)
            for i, side in enumerate(sides)
        ]
        self.head = Head(self.hidden, self.channels, self.likelihood)

    def _entered(self, x: Float[Array, "b *hw c"]) -> Float[Array, "b *hw k"]:
        """x as the layers take it; places outside are zeros."""
        if not self.names:
            return x
        place = (x + 1.0) * ((self.names - 1) / 2.0)
        # What lies outside is 0, and so is between the two middle levels, where they are even.
        names = jnp.arange(self.names, dtype=x.dtype).reshape(*(1,) * (x.ndim - 1), -1)
        return (jnp.abs(place - names) < 0.5).astype(x.dtype)

    def _vertical(self, v: Array, condition: Condition, by_row: bool) -> list[Array]:
        links: list[Array] = []
        for block in self.stack:
            v, link = block.vertical(v, condition, by_row)
            links.append(link)
        return links

    def _horizontal(
        self, h: Array, links: list[Array], condition: Condition, keys: Any, column: Any
    ) -> Array:
        for i, (block, link) in enumerate(zip(self.stack, links, strict=True)):
            h = block.horizontal(h, link, condition, fold_keys(keys, i), column)
        return h

    def features(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w f"]:
        links = self._vertical(self._entered(shift_down(x)), condition, by_row=False)
        return self._horizontal(self._entered(shift_right(x)), links, condition, keys, None)

    def begin_row(self, above: Float[Array, "b w c"], condition: Condition) -> None:
        links = self._vertical(self._entered(above[:, None]), condition, by_row=True)
        remember(self, "links", tuple(link[:, 0] for link in links))

    def pixel(
        self, left: Float[Array, "b c"], column: Int[Array, ""], condition: Condition
    ) -> Float[Array, "b f"]:
        links: tuple[Array, ...] = self.get_variable("cache", "links")
        at = [at_column(link, column) for link in links]
        return self._horizontal(self._entered(left), at, condition, None, column)


@dataclass(frozen=True)
class GatedPixelCNN(Autoregressive):
    """Two stacks of gated convolutions, which together see every earlier pixel in reach."""

    features: int = 32
    """f: features of each stack."""
    blocks: Repeats = 6
    """Layers after the first."""
    first_kernel: int = 7
    """Side of the first kernel; odd."""
    kernel: int = 3
    """Side of the other kernels; odd."""
    head: int = 64
    """Features of the hidden layer before the output."""

    only: ClassVar = {"kernel": Only("without `blocks`", lambda model: model.blocks > 0)}

    def checks(self) -> None:
        for name in ("first_kernel", "kernel"):
            if getattr(self, name) % 2 == 0 or getattr(self, name) < 3:
                raise UserError(f"`{name}` must be odd and at least 3")
        if min(self.features, self.head) < 1 or self.blocks < 0:
            raise UserError("`features` and `head` must be positive, `blocks` not negative")

    @property
    def network(self) -> GatedPixelCNNNet:
        return GatedPixelCNNNet(
            width=self.features,
            blocks=self.blocks,
            first_kernel=self.first_kernel,
            kernel=self.kernel,
            dropout=self.dropout,
            hidden=self.head,
            channels=self.spec.channels,
            likelihood=self.likelihood,
        )

    def network_facts(self) -> dict[str, str]:
        side = self.first_kernel // 2 + self.blocks * (self.kernel // 2)
        rows = side + 1
        return {
            "sees": f"{rows} rows above, {side} columns to each side, {side + 1} to the left in "
            "the pixel's own row: no blind spot"
        }
