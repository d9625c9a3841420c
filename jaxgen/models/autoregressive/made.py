"""MADE: an autoencoder with masks (Germain et al. 2015, arXiv:1502.03509)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from jaxgen.causal import orders
from jaxgen.causal.condition import NOTHING, Condition, Shift
from jaxgen.causal.masked import degrees, layer_masks
from jaxgen.causal.subpixel import SubpixelNet
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.models.autoregressive.any_order import AnyOrder
from jaxgen.nn.layers import dropout, fold_keys
from jaxgen.optim.net import Params


class MADENet(SubpixelNet):
    """Fully connected layers, of whose weights those are zero that would see what comes later."""

    hidden: tuple[int, ...]

    def setup(self) -> None:
        hidden, zeros = self.hidden, nn.initializers.zeros
        self.inputs, self.outputs, self.biases = self.pixelwise(hidden[0], hidden[-1])
        # Half of the units of the layer before are seen, on average.
        self.kernels = [
            self.param(f"kernel_{i}", nn.initializers.normal((a / 2) ** -0.5), (a, b))
            for i, (a, b) in enumerate(zip(hidden, hidden[1:], strict=False), 1)
        ]
        self.hidden_biases = [self.param(f"bias_{i}", zeros, (n,)) for i, n in enumerate(hidden)]
        self.shifts = [Shift(name=f"shift_{i}") for i in range(len(hidden))]

    def begin(self, batch: int, condition: Condition) -> tuple[Array, ...]:
        """Every layer's biases [b f], and what the condition adds to them."""
        condition = condition.flat()
        return tuple(
            shift(jnp.broadcast_to(bias, (batch, bias.size)), condition)
            for bias, shift in zip(self.hidden_biases, self.shifts, strict=True)
        )

    def masked(self) -> list[Array]:
        """The weights of every layer, zero where its mask is; sub-pixels have their own axes."""
        first, *between, last = map(jnp.asarray, layer_masks(self.dims, self.hidden))
        pixels = self.inputs.shape[:2]
        return [
            self.inputs * first.reshape(*pixels, -1),
            *(kernel * mask for kernel, mask in zip(self.kernels, between, strict=True)),
            self.outputs * last.T.reshape(*pixels, -1, 1),
        ]

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c p"]:
        """The parameters of every sub-pixel given those before it."""
        *_, outputs = self.masked()
        h = self.features(x, condition, keys)
        out = jnp.einsum("bf,dfp->bdp", h, self._flat(outputs)) + self._flat(self.biases)[None]
        return out.reshape(*x.shape, -1)

    def features(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b f"]:
        """The units of the last hidden layer, each of which sees the sub-pixels of its degree."""
        inputs, *kernels, _ = self.masked()
        h = x.reshape(x.shape[0], -1) @ self._flat(inputs)
        for i, bias in enumerate(self.begin(x.shape[0], condition)):
            h = bias + (h @ kernels[i - 1] if i else h)
            h = dropout(fold_keys(keys, i), jax.nn.relu(h), self.dropout)
        return h

    def _flat(self, w: Array) -> Array:
        return w.reshape(self.dims, *w.shape[2:])

    def weights(self) -> Any:
        """See `SubpixelNet`."""
        inputs, *_, outputs = self.masked()
        place = jnp.arange(self.dims).reshape(inputs.shape[:2])
        return inputs, outputs, self.biases, place

    def emit(self, carry: Any, weights: Any) -> tuple[Any, Float[Array, "b p"]]:
        """See `SubpixelNet`; the carry is every layer's sums so far.

        Those of units of the sub-pixel's own degree are complete by now: units of one degree lie
        side by side, and what they give to the next layer is added there, once.
        """
        _, outputs, bias, place = weights
        sums, dims = list(carry), self.dims
        layers = [jnp.asarray(degrees(units, dims)) for units in self.hidden]
        for i, kernel in enumerate(self.kernels):
            units = self.hidden[i]
            first, size = -(-place * units // dims), -(-units // dims)
            cut = lambda w, axis: lax.dynamic_slice_in_dim(w, first, size, axis)  # noqa: B023, E731
            h = jnp.where((cut(layers[i], 0) == place)[None], jax.nn.relu(cut(sums[i], 1)), 0.0)
            feeds = (place <= layers[i + 1])[None]
            sums[i + 1] = sums[i + 1] + h @ (cut(kernel, 0) * feeds)
        return tuple(sums), jax.nn.relu(sums[-1]) @ outputs + bias[None]

    def absorb(self, carry: Any, weights: Any, v: Float[Array, " b"]) -> Any:
        """See `SubpixelNet`."""
        return carry[0] + v[:, None] * weights[0][None], *carry[1:]


@dataclass(frozen=True)
class MADE(AnyOrder):
    """An autoencoder, masked so that each sub-pixel depends on those before it alone."""

    hidden: tuple[int, ...] = (500,)
    """Widths of the hidden layers."""
    masks: int = 1
    """Ways to connect the hidden units, for each order: an ensemble as random_orders are."""
    order_seed: int = 0
    """Chooses the random orders and masks."""
    dropout: float = 0.5
    """Dropout rate after every hidden layer, in training."""

    only: ClassVar = {
        "order_seed": Only(
            "without `random_orders`, or several `masks`",
            lambda made: made.random_orders > 0 or made.masks > 1,
        )
    }

    def checks(self) -> None:
        self.check_orders()
        if not self.hidden or min(self.hidden) < 1 or self.masks < 1:
            raise UserError("`hidden` needs one or more positive widths, and `masks` at least 1")

    @property
    def network(self) -> MADENet:
        return MADENet(
            shape=self.arranged.shape,
            dropout=self.dropout,
            likelihood=self.likelihood,
            hidden=self.hidden,
        )

    @property
    def connections(self) -> int:
        return self.masks

    def connected(self, params: Params, way: int | Array) -> Params:
        """See `AnyOrder`. Hidden units of another mask have other degrees: they change places."""
        if self.masks == 1:
            return params
        params = dict(params)
        for i, units in enumerate(self.hidden):
            each = [orders.permutation(units, self.order_seed, k, i + 1) for k in range(self.masks)]
            units_of = jnp.asarray(np.stack(each))[way]
            after = "outputs" if i == len(self.hidden) - 1 else f"kernel_{i + 1}"
            before = "inputs" if i == 0 else f"kernel_{i}"
            params[before] = params[before][..., units_of]
            params[after] = jnp.take(params[after], units_of, -2)
            params[f"bias_{i}"] = params[f"bias_{i}"][units_of]
            if (shift := f"shift_{i}") in params:
                params[shift] = jax.tree.map(lambda w: w[..., units_of], params[shift])  # noqa: B023
        return params

    def network_facts(self) -> dict[str, str]:
        seen = "all before each sub-pixel"
        if min(self.hidden) < self.spec.dims:
            seen += f", but for the last few: a layer has only {min(self.hidden)} units"
        return {"sees": seen}
