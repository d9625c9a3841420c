"""PixelRNN: Row LSTM and Diagonal BiLSTM (van den Oord et al. 2016, arXiv:1601.06759).

The rows of an image, or its diagonals, are the steps of one scan. A step is one product for all
the places of the row, or of the diagonal, of all images; all that no earlier place contributes to
is computed before, for the whole image at once.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.condition import NOTHING, Condition, Shift
from jaxgen.causal.lstm import DiagonalLayer, RowLayer
from jaxgen.causal.streamed import StreamedNet, at_column, recall, remember
from jaxgen.causal.streamed_layers import DownConv, Head, RightConv, shift_down, shift_right
from jaxgen.distributions.likelihoods import Likelihood
from jaxgen.errors import UserError
from jaxgen.fields import Repeats
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.nn.layers import dropout, fold_keys


class Block(nn.Module):
    """An LSTM layer, widened from f to 2f by a 1 x 1 convolution, plus its input (figure 5)."""

    features: int
    layer: type[RowLayer] | type[DiagonalLayer]
    dropout: float

    def setup(self) -> None:
        self.shift = Shift()
        self.lstm = self.layer(self.features)
        self.up = nn.Dense(2 * self.features)

    def __call__(self, x: Array, condition: Condition, keys: Any, *column: Array) -> Array:
        """The block on images [b h w 2f]; or on one pixel [b 2f], in that column."""
        given = self.shift(x, condition)
        h = self.lstm.pixel(given, *column) if column else self.lstm(given)
        return x + self.up(dropout(keys, h, self.dropout))


class PixelRNNNet(StreamedNet):
    """A convolution that sees the image up to the pixel, and LSTM layers."""

    layer: type[RowLayer] | type[DiagonalLayer]
    width: int
    blocks: int
    first_kernel: int
    dropout: float
    hidden: int
    channels: int
    likelihood: Likelihood

    def setup(self) -> None:
        double, reach = 2 * self.width, self.first_kernel // 2
        self.first_above = DownConv(double, reach, self.first_kernel)
        self.first_left = RightConv(double, reach)
        self.stack = [Block(self.width, self.layer, self.dropout) for _ in range(self.blocks)]
        self.head = Head(self.hidden, self.channels, self.likelihood)

    def features(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w f"]:
        left = shift_right(x)
        if self.layer is DiagonalLayer:
            # See `DiagonalBiLSTM`: the last pixel of a row is to the left of none.
            left = left.at[:, 1:, 0].set(x[:, :-1, -1])
        h = self.first_above(shift_down(x)) + self.first_left(left)
        for i, block in enumerate(self.stack):
            h = block(h, condition, fold_keys(keys, i))
        return h

    def begin_row(self, above: Float[Array, "b w c"], condition: Condition) -> None:
        started = recall(self, "started", (), bool)
        remember(self, "started", jnp.ones((), bool))
        remember(self, "first", self.first_above(above[:, None], by_row=True)[:, 0])
        if self.layer is DiagonalLayer:
            remember(self, "before", above[:, -1])
        batch, width, _ = above.shape
        layers: list[Any] = [block.lstm for block in self.stack]
        self.layer.begin_row(layers, started, width, batch)

    def pixel(
        self, left: Float[Array, "b c"], column: Int[Array, ""], condition: Condition
    ) -> Float[Array, "b f"]:
        if self.layer is DiagonalLayer:
            before: Any = self.get_variable("cache", "before")
            left = jnp.where(column == 0, before, left)
        first: Any = self.get_variable("cache", "first")
        h = at_column(first, column) + self.first_left(left, column)
        for block in self.stack:
            h = block(h, condition, None, column)
        return h


@dataclass(frozen=True)
class PixelRNN(Autoregressive):
    """LSTM layers over the image; `RowLSTM` and `DiagonalBiLSTM` have them."""

    features: int = 32
    """h: features of an LSTM; 2h between the layers."""
    blocks: Repeats = 2
    """How many LSTM layers stand one on another."""
    first_kernel: int = 7
    """Side of the first layer's causal convolution; odd."""
    head: int = 64
    """Features of the hidden layer before the output."""

    def checks(self) -> None:
        if self.first_kernel % 2 == 0 or self.first_kernel < 3:
            raise UserError(f"`first_kernel` must be odd and at least 3; got {self.first_kernel}")
        for name in ("features", "blocks", "head"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1; got {getattr(self, name)}")

    @property
    @abstractmethod
    def layer(self) -> type[RowLayer] | type[DiagonalLayer]:
        """The LSTM layers' class."""

    @property
    def network(self) -> PixelRNNNet:
        return PixelRNNNet(
            layer=self.layer,
            width=self.features,
            blocks=self.blocks,
            first_kernel=self.first_kernel,
            dropout=self.dropout,
            hidden=self.head,
            channels=self.spec.channels,
            likelihood=self.likelihood,
        )


@dataclass(frozen=True)
class RowLSTM(PixelRNN):
    """Rows in turn, each from the one above it; it sees a triangle that opens upwards."""

    @property
    def layer(self) -> type[RowLayer]:
        return RowLayer

    def network_facts(self) -> dict[str, str]:
        """How far the prediction of a pixel reaches; see the class for what it misses."""
        side = self.first_kernel // 2
        return {
            "sees": f"d rows above: {side + self.blocks} + d columns to the left and {side - 1} + "
            "d to the right (the triangle)"
        }


@dataclass(frozen=True)
class DiagonalBiLSTM(PixelRNN):
    """Diagonals in turn, from the left and from the right; it sees every earlier pixel.

    A causal first layer and a map from the right that is moved down, as in the paper, would leave
    the last pixel of a row unseen at the start of the next one, at any depth. Here the first layer
    also takes that pixel for the left neighbour of the next row's first.
    """

    @property
    def convolutional(self) -> bool:
        return False

    @property
    def layer(self) -> type[DiagonalLayer]:
        return DiagonalLayer

    def network_facts(self) -> dict[str, str]:
        return {"sees": "every earlier pixel"}
