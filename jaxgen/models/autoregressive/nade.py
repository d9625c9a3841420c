"""NADE (Larochelle & Murray 2011), for any number of levels, and over orders (Uria et al. 2016,
arXiv:1605.02226)."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from jaxgen.causal.condition import NOTHING, Condition, Shift
from jaxgen.causal.subpixel import SubpixelNet
from jaxgen.errors import UserError
from jaxgen.models.autoregressive.any_order import AnyOrder
from jaxgen.nn.layers import dropout


class NADENet(SubpixelNet):
    """h_d = sigmoid(c + the sum of W_k v_k over k < d); parameters of sub-pixel d: V_d h_d + b_d.

    To train, rows of the image are independent given the sums before each of them, and within a
    row the inputs of each sub-pixel are those of the row with the later ones zero. Inputs v are
    levels in [-1, 1], of any number; the papers' binary ones are 0 and 1.
    """

    units: int
    remat: bool

    def setup(self) -> None:
        self.inputs, self.outputs, self.biases = self.pixelwise(self.units, self.units)
        self.hidden_bias = self.param("hidden_bias", nn.initializers.zeros, (self.units,))
        self.shift = Shift()

    def begin(self, batch: int, condition: Condition) -> Float[Array, "b f"]:
        """c, and what the condition adds to it."""
        bias = jnp.broadcast_to(self.hidden_bias, (batch, self.units))
        return self.shift(bias, condition.flat())

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c p"]:
        """The parameters of every sub-pixel given those before it.

        Dropout takes a unit of an example away for all sub-pixels: `keys` draw one mask each.
        """
        batch, height, width, channels = x.shape
        rows = lambda w: w.reshape(height, width * channels, *w.shape[2:])  # noqa: E731
        inputs, outputs, biases = map(rows, (self.inputs, self.outputs, self.biases))
        x = x.reshape(batch, height, width * channels).swapaxes(0, 1)
        keep = dropout(keys, jnp.ones((batch, self.units), x.dtype), self.dropout)
        before = jnp.tril(jnp.ones((width * channels,) * 2, x.dtype), -1)

        def total(row: Any) -> Float[Array, "b f"]:
            return row[0] @ row[1]

        def params(row: Any) -> Float[Array, "b d p"]:
            start, x, inputs, outputs, biases = row
            sums = start[:, None] + (x[:, None] * before[None]) @ inputs
            h = jax.nn.sigmoid(sums) * keep[:, None]
            return jnp.einsum("bdf,dfp->bdp", h, outputs) + biases[None]

        # The row's own total must not enter and be taken away: rounding would let it be seen.
        above = jnp.pad(self._each(total, (x, inputs))[:-1], ((1, 0), (0, 0), (0, 0)))
        starts = self.begin(batch, condition)[None] + jnp.cumsum(above, 0)
        out = self._each(params, (starts, x, inputs, outputs, biases))
        return out.swapaxes(0, 1).reshape(batch, height, width, channels, -1)

    def features(
        self, x: Float[Array, "b h w c"], condition: Condition = NOTHING
    ) -> Float[Array, "b f"]:
        """The hidden units after the last sub-pixel."""
        sums = x.reshape(x.shape[0], -1) @ self.inputs.reshape(self.dims, -1)
        return jax.nn.sigmoid(self.begin(x.shape[0], condition) + sums)

    def _each(self, function: Any, rows: Any) -> Any:
        """The function of every row of the image: all at once, or in turn and again in the
        backward pass."""
        return lax.map(jax.checkpoint(function), rows) if self.remat else jax.vmap(function)(rows)

    def weights(self) -> Any:
        """See `SubpixelNet`."""
        return self.inputs, self.outputs, self.biases

    def emit(self, carry: Any, weights: Any) -> tuple[Any, Float[Array, "b p"]]:
        """See `SubpixelNet`; the carry is the units' sums so far."""
        _, outputs, bias = weights
        return carry, jax.nn.sigmoid(carry) @ outputs + bias[None]

    def absorb(self, carry: Any, weights: Any, v: Float[Array, " b"]) -> Any:
        """See `SubpixelNet`."""
        return carry + v[:, None] * weights[0][None]


@dataclass(frozen=True)
class NADE(AnyOrder):
    """A hidden layer for each sub-pixel, all with the same weights: one is the next but for a term.

    With several random orders it is EoNADE's ensemble over a fixed set of orders, trained by the
    exact likelihood of one of them at a time. Deep NADE's estimate, which predicts all the
    pixels after a random place, would train all orders that there are, at another loss.
    """

    features: int = 500
    """f: hidden units."""
    remat: bool = True
    """Rows of the image in turn in training, and again in the backward pass, for memory."""
    dropout: float = 0.5
    """Dropout rate of the hidden units, in training."""

    def checks(self) -> None:
        self.check_orders()
        if self.features < 1:
            raise UserError(f"`features` must be positive; got {self.features}")

    @property
    def network(self) -> NADENet:
        return NADENet(
            shape=self.arranged.shape,
            dropout=self.dropout,
            likelihood=self.likelihood,
            units=self.features,
            remat=self.remat,
        )
