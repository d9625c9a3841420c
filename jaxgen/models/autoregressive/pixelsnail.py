"""PixelSNAIL: causal convolutions and causal self-attention (Chen et al. 2018, arXiv:1712.09763).

Unlike the paper's, attention may have several heads; queries, keys and values are one product
each; and weights are not normalized. A place's key and value know the pixel before it, in raster
order, and not its own: so a place attends to itself too, and the first one has that to attend to.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.attention import At, Attention
from jaxgen.causal.condition import NOTHING, Condition, Shift
from jaxgen.causal.streamed import StreamedNet, at_column, recall, remember
from jaxgen.causal.streamed_layers import (
    DownConv,
    DownRightConv,
    Head,
    RightConv,
    shift_down,
    shift_right,
)
from jaxgen.distributions.likelihoods import Likelihood
from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.nn.layers import concat_elu, dropout, fold_keys


class GatedResidual(nn.Module):
    """concat-ELU and a convolution, twice; half of the result gates the other half; plus the
    input: PixelCNN++'s layer (Salimans et al. 2017, arXiv:1701.05517)."""

    features: int
    kernel: int
    """Rows and columns that each convolution sees."""
    dropout: float

    def setup(self) -> None:
        self.first = DownRightConv(self.features, self.kernel, self.kernel)
        self.link = nn.Dense(self.features, use_bias=False)
        self.second = DownRightConv(2 * self.features, self.kernel, self.kernel)
        self.shift = Shift()

    def begin_row(self, batch: int, width: int) -> None:
        self.first.begin_row(batch, width)
        self.second.begin_row(batch, width)

    def __call__(
        self,
        x: Float[Array, "b *hw f"],
        condition: Condition,
        keys: Key[Array, " b"] | None,
        at: At | None,
        aside: Float[Array, "b *hw a"] | None = None,
    ) -> Float[Array, "b *hw f"]:
        """The layer on whole images, or on one pixel. aside: added between the two convolutions."""
        column = None if at is None else at.column
        h = self.first(concat_elu(x), column)
        if aside is not None:
            h = h + self.link(concat_elu(aside))
        h = self.second(dropout(keys, concat_elu(h), self.dropout), column)
        content, opening = jnp.split(self.shift(h, condition), 2, -1)
        return x + content * jax.nn.sigmoid(opening)


class Block(nn.Module):
    """Gated residual convolutions, then attention to all that they have seen."""

    features: int
    layers: int
    kernel: int
    attention: int
    heads: int
    places: int
    dropout: float

    def setup(self) -> None:
        self.convolutions = [
            GatedResidual(self.features, self.kernel, self.dropout) for _ in range(self.layers)
        ]
        self.queries = nn.Dense(self.attention)
        self.keys_values = nn.Dense(2 * self.attention)
        self.attend = Attention(self.heads, self.places)
        self.merge = GatedResidual(self.features, 1, self.dropout)

    def begin_row(self, batch: int, width: int) -> None:
        for layer in self.convolutions:
            layer.begin_row(batch, width)

    def __call__(
        self,
        h: Float[Array, "b *hw f"],
        before: Float[Array, "b *hw c"],
        where: Float[Array, "b *hw 2"],
        condition: Condition,
        keys: Key[Array, " b"] | None,
        at: At | None,
    ) -> Float[Array, "b *hw f"]:
        """The block on whole images, or on one pixel. before: the pixel before, in raster order;
        where: its row and column."""
        for i, layer in enumerate(self.convolutions):
            h = layer(h, condition, fold_keys(keys, i), at)
        seen = concat_elu(jnp.concatenate([h, where], -1))
        k, v = jnp.split(self.keys_values(jnp.concatenate([seen, before], -1)), 2, -1)
        attended = self.attend(self.queries(seen), k, v, at)
        return self.merge(h, condition, fold_keys(keys, self.layers), at, attended)


class PixelSNAILNet(StreamedNet):
    """A first layer, which sees the row above and the pixels to the left, and the blocks.

    It must know the size of its images, for which its sampler keeps keys and values.
    """

    image: tuple[int, int]
    """Height and width."""
    width: int
    blocks: int
    layers: int
    first_kernel: int
    kernel: int
    attention: int
    heads: int
    dropout: float
    hidden: int
    channels: int
    likelihood: Likelihood

    def setup(self) -> None:
        reach, places = self.first_kernel // 2, self.image[0] * self.image[1]
        self.above = DownConv(self.width, reach, self.first_kernel)
        self.left = RightConv(self.width, reach)
        self.stack = [
            Block(
                self.width, self.layers, self.kernel, self.attention, self.heads, places,
                self.dropout,
            )
            for _ in range(self.blocks)
        ]  # fmt: skip
        self.head = Head(self.hidden, self.channels, self.likelihood)

    def _blocks(
        self, h: Array, before: Array, where: Array, condition: Condition, keys: Any, at: At | None
    ) -> Array:
        for i, block in enumerate(self.stack):
            h = block(h, before, where, condition, fold_keys(keys, i), at)
        return h

    def features(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w f"]:
        h = self.above(shift_down(x)) + self.left(shift_right(x))
        batch, channels = x.shape[0], x.shape[-1]
        before = jnp.pad(x.reshape(batch, -1, channels)[:, :-1], ((0, 0), (1, 0), (0, 0)))
        where = jnp.broadcast_to(self._where(x.dtype)[None], (batch, *self.image, 2))
        return self._blocks(h, before.reshape(x.shape), where, condition, keys, None)

    def begin_row(self, above: Float[Array, "b w c"], condition: Condition) -> None:
        remember(self, "begun", recall(self, "begun", (), jnp.int32) + 1)
        remember(self, "last", above[:, -1])
        remember(self, "above", self.above(above[:, None], by_row=True)[:, 0])
        for block in self.stack:
            block.begin_row(above.shape[0], above.shape[1])

    def pixel(
        self, left: Float[Array, "b c"], column: Int[Array, ""], condition: Condition
    ) -> Float[Array, "b f"]:
        h = at_column(self.get_variable("cache", "above"), column) + self.left(left, column)
        row = self.get_variable("cache", "begun") - 1
        before = jnp.where(column == 0, self.get_variable("cache", "last"), left)
        where = jnp.broadcast_to(self._where(left.dtype)[row, column][None], (len(left), 2))
        at = At(column, row * self.image[1] + column)
        return self._blocks(h, before, where, condition, None, at)

    def _where(self, dtype: Any) -> Float[Array, "h w 2"]:
        """Row and column of every place, from -1/2 to 1/2."""
        middles = [(np.arange(n) + 0.5) / n - 0.5 for n in self.image]
        return jnp.asarray(np.stack(np.meshgrid(*middles, indexing="ij"), -1), dtype)


@dataclass(frozen=True)
class PixelSNAIL(Autoregressive):
    """Causal convolutions, and attention over every earlier pixel."""

    features: int = 40
    """f: features between the layers."""
    blocks: Repeats = 3
    """Blocks of convolutions, each with its layer of attention."""
    layers: Repeats = 1
    """Gated residual layers, of two convolutions each, in a block."""
    first_kernel: int = 3
    """Side of the first kernel; odd."""
    kernel: int = 2
    """Rows and columns that the other convolutions see: the pixel's own, and those before."""
    attention: int = 16
    """Features of the queries, of the keys and of the values, all heads together."""
    heads: int = 2
    """Heads of attention, which share those features; must divide them."""
    head: int = 64
    """Features of the hidden layer before the output."""

    only: ClassVar = {"kernel": Only("without `layers`", lambda model: model.layers > 0)}

    def checks(self) -> None:
        if self.first_kernel % 2 == 0 or self.first_kernel < 3:
            raise UserError("`first_kernel` must be odd and at least 3")
        for name in ("features", "blocks", "kernel", "attention", "heads", "head"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1")
        if self.layers < 0:
            raise UserError("`layers` must not be negative")
        if self.attention % self.heads:
            raise UserError(
                f"`heads`={self.heads} must divide `attention`={self.attention}: each head has an "
                "equal share of it"
            )

    @property
    def network(self) -> PixelSNAILNet:
        image = self.arranged
        return PixelSNAILNet(
            image=(image.height, image.width),
            width=self.features,
            blocks=self.blocks,
            layers=self.layers,
            first_kernel=self.first_kernel,
            kernel=self.kernel,
            attention=self.attention,
            heads=self.heads,
            dropout=self.dropout,
            hidden=self.head,
            channels=self.spec.channels,
            likelihood=self.likelihood,
        )

    def network_facts(self) -> dict[str, str]:
        places = self.spec.height * self.spec.width
        numbers = 2 * self.blocks * self.attention * places
        return {
            "sees": "every earlier pixel, by attention: no blind spot",
            "sampling memory": f"keys and values of the whole image: {numbers:,} numbers an image",
        }
