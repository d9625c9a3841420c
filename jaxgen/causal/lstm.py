"""LSTM layers over images whose states see only earlier pixels (van den Oord et al. 2016,
arXiv:1601.06759): Row LSTM and Diagonal BiLSTM, each one scan.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from jaxgen.causal.streamed import recall, remember
from jaxgen.causal.streamed_layers import RightConv, shift_down


def cell(gates: Float[Array, "*b 4f"], memory: Float[Array, "*b f"]) -> tuple[Array, Array]:
    """(h, memory) after one step of an LSTM (equation 3); gates: output, forget, input, content."""
    o, f, i, g = jnp.split(gates, 4, -1)
    memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(memory)
    return h.astype(gates.dtype), memory


def conv_states(
    h: Float[Array, "n b f"], kernel: Float[Array, "k f o"], first: int
) -> Float[Array, "n b o"]:
    """The state-to-state convolution: place n gets those at n + first, ..., n + first + k - 1.

    Beside the first and the last place there are zeros.
    """
    taps, places = len(kernel), len(h)
    padded = jnp.pad(h, ((-first, first + taps - 1), (0, 0), (0, 0)))
    beside = [padded[tap : tap + places] for tap in range(taps)]
    return jnp.concatenate(beside, -1) @ kernel.reshape(-1, kernel.shape[-1])


def scan_states(
    gates: Float[Array, "t n b 4f"],
    kernel: Float[Array, "k f 4f"],
    first: int,
    initial: Float[Array, "2 f"],
    starts: Int[np.ndarray, " n"],
) -> Float[Array, "t n b f"]:
    """h of n LSTMs side by side, each given the last step's h of itself and its neighbours.

    gates: what the input gives to them. `initial` (h, memory) stays until a place's start, the
    time of its first step. The memory is float32 even if the rest is bfloat16: it adds up.
    """
    times, places, batch, _ = gates.shape
    started = jnp.asarray(np.arange(times)[:, None] >= starts)[..., None, None]

    def step(state: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[Any, Array]:
        gates, started = now
        new = cell(gates + conv_states(state[0], kernel, first), state[1])
        state = jax.tree.map(lambda new, old: jnp.where(started, new, old), new, state)
        return state, state[0]

    h, memory = jnp.broadcast_to(initial[:, None, None], (2, places, batch, initial.shape[-1]))
    memory = memory.astype(_wide(memory))
    return lax.scan(step, (h, memory), (gates, started))[1]


def _wide(x: Array) -> jnp.dtype:
    """What the memory is kept in."""
    return jnp.promote_types(x.dtype, jnp.float32)


def skew(x: Shaped[Array, "h w *s"]) -> Shaped[Array, "t h *s"]:
    """The image by diagonals, t = h + w - 1: [t, r] = x[r, t - r], zero where that is outside."""
    height, width, *rest = x.shape
    x = jnp.pad(x, ((0, 0), (0, height), *((0, 0),) * len(rest)))
    x = x.reshape(-1, *rest)[:-height]
    return x.reshape(height, width + height - 1, *rest).swapaxes(0, 1)


def unskew(x: Shaped[Array, "t h *s"]) -> Shaped[Array, "h w *s"]:
    """The image whose diagonals these are."""
    times, height, *rest = x.shape
    x = x.swapaxes(0, 1).reshape(-1, *rest)
    x = jnp.pad(x, ((0, height), *((0, 0),) * len(rest)))
    return x.reshape(height, times + 1, *rest)[:, : times + 1 - height]


def _kernel(batch_axis: tuple[int, ...] = ()) -> nn.initializers.Initializer:
    return nn.initializers.lecun_normal(batch_axis=batch_axis)


class RowLayer(nn.Module):
    """A Row LSTM: each row from the one above it, through a 1 x 3 convolution of its states."""

    features: int

    def setup(self) -> None:
        features = self.features
        self.inputs = RightConv(4 * features, 2)
        self.states = self.param("states", _kernel(), (3, features, 4 * features))
        self.initial = self.param("initial", nn.initializers.zeros, (2, features))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w f"]:
        gates = self.inputs(x).transpose(1, 2, 0, 3)
        starts = np.zeros(x.shape[2], int)
        h = scan_states(gates, self.states, -1, self.initial, starts)
        return h.transpose(2, 0, 1, 3)

    @staticmethod
    def begin_row(layers: "list[RowLayer]", started: Array, width: int, batch: int) -> None:
        """Computes what the row above gives to every gate of the next row, for every layer."""
        for layer in layers:
            layer._begin_row(started, width, batch)

    def _begin_row(self, started: Array, width: int, batch: int) -> None:
        row = recall(self, "row", (2, width, batch, self.features), _wide(self.initial))
        row = jnp.where(started, row, self.initial[:, None, None])
        remember(self, "row", row)
        h = row[0].astype(self.initial.dtype)
        remember(self, "above", conv_states(h, self.states, -1))

    def pixel(self, x: Float[Array, "b i"], column: Int[Array, ""]) -> Float[Array, "b f"]:
        """h of one pixel; its state takes the place of the one above."""
        row: Any = self.get_variable("cache", "row")
        above: Any = self.get_variable("cache", "above")
        new = cell(self.inputs(x, column) + above[column], row[1, column])
        remember(self, "row", row.at[:, column].set(jnp.stack(new)))
        return new[0]


class DiagonalLayer(nn.Module):
    """A Diagonal BiLSTM: each pixel from the left and above, and from the right and above.

    Its parameters' leading axis is the direction: left to right, right to left.
    """

    features: int

    def setup(self) -> None:
        features = self.features
        gates, zeros = 4 * features, nn.initializers.zeros
        self.inputs = self.param("inputs", _kernel((0,)), (2, 2 * features, gates))
        self.bias = self.param("bias", zeros, (2, gates))
        self.states = self.param("states", _kernel((0,)), (2, 2, features, gates))
        self.initial = self.param("initial", zeros, (2, 2, features))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w f"]:
        x = x.transpose(1, 2, 0, 3)
        starts = np.arange(len(x))

        def run(x: Array, inputs: Array, bias: Array, states: Array, initial: Array) -> Array:
            gates = skew(x @ inputs + bias[None, None, None])
            return unskew(scan_states(gates, states, -1, initial, starts))

        # Both directions are one scan: the image, and its mirror image.
        both = jnp.stack([x, x[:, ::-1]])
        left, right = jax.vmap(run)(both, self.inputs, self.bias, self.states, self.initial)
        left, right = left.transpose(2, 0, 1, 3), right[:, ::-1].transpose(2, 0, 1, 3)
        # In its own row the map from the right has seen the pixels to the right.
        return left + shift_down(right)

    @staticmethod
    def begin_row(layers: "list[DiagonalLayer]", started: Array, width: int, batch: int) -> None:
        """Runs the row above from the right, now that it is complete: one scan for every layer."""
        given = [layer._from_right(width, batch) for layer in layers]
        gates, kernels, initial = (jnp.stack(each) for each in zip(*given, strict=True))

        def run(gates: Array, kernel: Array, initial: Array) -> Array:
            return scan_states(gates, kernel, 0, initial, np.zeros(1, int))

        right = jax.vmap(run)(gates, kernels, initial)[:, ::-1, 0]
        for layer, h in zip(layers, right, strict=True):
            # There is no row above the first one.
            remember(layer, "right", jnp.where(started, h, 0.0))

    def _from_right(self, width: int, batch: int) -> tuple[Array, Array, Array]:
        """What the row above gives from the right: gates [w 1 b 4f] but for what its own states
        give, the kernel for those [1 f 4f], and the initial state."""
        dtype = self.inputs.dtype
        x = recall(self, "row", (width, batch, 2 * self.features), dtype)
        h = recall(self, "right", (width, batch, self.features), dtype)
        above, own = self.states[1]
        gates = x @ self.inputs[1] + self.bias[1][None, None] + h @ above
        return gates[::-1, None], own[None], self.initial[1]

    def pixel(self, x: Float[Array, "b i"], column: Int[Array, ""]) -> Float[Array, "b f"]:
        """h of one pixel; it is recorded, and so is the layer's input."""
        right: Any = self.get_variable("cache", "right")
        row = recall(self, "row", (len(right), *x.shape), x.dtype)
        left = recall(self, "left", right.shape, right.dtype)
        state = recall(self, "state", (2, *right.shape[1:]), _wide(self.initial))
        state = jnp.where(column == 0, self.initial[0][:, None], state)
        seen = jnp.concatenate([left[column], state[0].astype(x.dtype)], -1)
        gates = x @ self.inputs[0] + seen @ self.states[0].reshape(-1, 4 * self.features)
        new = cell(gates + self.bias[0][None], state[1])
        remember(self, "row", row.at[column].set(x))
        remember(self, "left", left.at[column].set(new[0]))
        remember(self, "state", jnp.stack(new))
        return new[0] + right[column]
