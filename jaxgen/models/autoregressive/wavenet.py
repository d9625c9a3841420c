"""WaveNet (van den Oord et al. 2016, arXiv:1609.03499)."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.condition import NOTHING, Condition, Shift
from jaxgen.causal.streamed import StreamedNet, recall, remember
from jaxgen.causal.streamed_layers import Head, shift_right
from jaxgen.distributions.likelihoods import Likelihood
from jaxgen.errors import UserError
from jaxgen.fields import Repeats
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.nn.layers import dropout, fold_keys, gate


class DilatedConv(nn.Module):
    """A convolution along rows that sees its own sample and, to the left, `kernel` - 1 more at
    distances of `dilation`."""

    features: int
    kernel: int
    dilation: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *hw i"], column: Int[Array, ""] | None = None
    ) -> Float[Array, "b *hw o"]:
        """The layer on whole rows [b 1 w i]; or on the sample [b i] in that column."""
        shape = (self.kernel, x.shape[-1], self.features)
        init = nn.initializers.lecun_normal(in_axis=(0, 1))
        kernel = self.param("kernel", init, shape).reshape(-1, self.features)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        taps = self._taps(x) if column is None else self._remembered(x, column)
        out = jnp.concatenate(taps, -1) @ kernel
        return out + bias.reshape(*(1,) * (out.ndim - 1), -1)

    def _taps(self, x: Float[Array, "b h w i"]) -> list[Array]:
        """The rows, moved to the right by each tap's distance, the farthest first.

        Products of matrices, because the gradients of a dilated convolution run seven times slower
        inside a loop of XLA on CPU.
        """
        width = x.shape[2]
        distances = [min(i * self.dilation, width) for i in range(self.kernel - 1, -1, -1)]
        return [jnp.pad(x, ((0, 0), (0, 0), (d, 0), (0, 0)))[:, :, :width] for d in distances]

    def _remembered(self, x: Float[Array, "b i"], column: Int[Array, ""]) -> list[Array]:
        """The same taps, from a ring of the last dilation * (kernel - 1) samples."""
        length = self.dilation * (self.kernel - 1)
        ring = recall(self, "ring", (length, *x.shape), x.dtype)
        places = [(column - i * self.dilation) % length for i in range(self.kernel - 1, 0, -1)]
        taps = [lax.dynamic_index_in_dim(ring, place, keepdims=False) for place in places]
        remember(self, "ring", lax.dynamic_update_index_in_dim(ring, x, places[0], 0))
        return [*taps, x]


class WaveNetLayer(nn.Module):
    """A gated dilated convolution, and what it adds to the signal and to the skips (figure 4)."""

    features: int
    skips: int
    kernel: int
    dilation: int
    dropout: float
    last: bool

    @nn.compact
    def __call__(
        self, h: Array, condition: Condition, keys: Key[Array, " b"] | None, column: Array | None
    ) -> tuple[Array, Array]:
        """(signal after this layer, its skip); the last one's signal has no use, and stays."""
        new = DilatedConv(2 * self.features, self.kernel, self.dilation)(h, column)
        new = dropout(keys, gate(Shift()(new, condition)), self.dropout)
        if self.last:
            return h, nn.Dense(self.skips)(new)
        both = nn.Dense(self.skips + self.features)(new)
        return h + both[..., self.skips :], both[..., : self.skips]


class WaveNetNet(StreamedNet):
    """A causal convolution, gated layers of growing dilation, and two 1x1 layers on the skips."""

    width: int
    skips: int
    kernel: int
    dilations: tuple[int, ...]
    dropout: float
    hidden: int
    likelihood: Likelihood

    def setup(self) -> None:
        self.first = DilatedConv(self.width, self.kernel, 1)
        self.stack = [
            WaveNetLayer(
                self.width, self.skips, self.kernel, dilation, self.dropout,
                last=i == len(self.dilations) - 1,
            )
            for i, dilation in enumerate(self.dilations)
        ]  # fmt: skip
        self.head = Head(self.hidden, 1, self.likelihood)

    def _run(
        self,
        x: Array,
        condition: Condition,
        keys: Key[Array, " b"] | None = None,
        column: Array | None = None,
    ) -> Array:
        """The sum of all skips, on whole rows or on the sample in that column; x is what stands
        before each."""
        h, total = self.first(x, column), jnp.zeros((), x.dtype)
        for i, layer in enumerate(self.stack):
            h, skip = layer(h, condition, fold_keys(keys, i), column)
            total = total + skip
        return total

    def features(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w f"]:
        return self._run(shift_right(x), condition, keys)

    def begin_row(self, above: Float[Array, "b w c"], condition: Condition) -> None:
        """There is one row."""

    def pixel(
        self, left: Float[Array, "b c"], column: Int[Array, ""], condition: Condition
    ) -> Float[Array, "b f"]:
        return self._run(left, condition, column=column)


@dataclass(frozen=True)
class WaveNet(Autoregressive):
    """Gated dilated convolutions over a sound, whose every sample is one of 256 mu-law levels.

    A level enters as one number in [-1, 1], not one-hot: neighbouring levels sound alike, which
    the first layer would otherwise have to learn for each of them.
    """

    dropout: float = 0.0
    """Dropout rate inside each layer, in training; the paper has none."""
    features: int = 32
    """Features of the signal between layers, and of each gate."""
    skips: int = 32
    """Features of the sum of all layers' skip outputs."""
    head: int = 64
    """Features of the hidden layer before the output."""
    kernel: Repeats = 2
    """Taps of each convolution."""
    layers: Repeats = 8
    """Layers of a stack: their dilations are 1, 2, 4, ..., 2^(layers-1)."""
    stacks: Repeats = 1
    """Stacks, one on another."""

    def checks(self) -> None:
        spec = self.spec
        if spec.height != 1 or spec.channels != 1:
            raise UserError(
                f"the model needs sounds, one row of one channel, and the data has images of "
                f"{spec.height}x{spec.width}x{spec.channels}; use --dataset=tones, or wav"
            )
        if self.order == "columns":
            raise UserError("`order`=columns: a sound is one row; use raster or reversed")
        for name in ("features", "skips", "head", "layers", "stacks"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be positive; got {getattr(self, name)}")
        if self.kernel < 2:
            raise UserError(f"`kernel` must be at least 2; got {self.kernel}")

    @property
    def network(self) -> WaveNetNet:
        return WaveNetNet(
            width=self.features,
            skips=self.skips,
            kernel=self.kernel,
            dilations=self.dilations,
            dropout=self.dropout,
            hidden=self.head,
            likelihood=self.likelihood,
        )

    @property
    def dilations(self) -> tuple[int, ...]:
        """Every layer's, in their order."""
        return tuple(2**i for i in range(self.layers)) * self.stacks

    @property
    def receptive_field(self) -> int:
        """How many samples before it the prediction of a sample depends on."""
        return 1 + (self.kernel - 1) * (1 + sum(self.dilations))

    def network_facts(self) -> dict[str, str]:
        seen = f"{self.receptive_field} samples"
        if self.spec.rate:
            seen += f" ({1000 * self.receptive_field / self.spec.rate:.4g} ms)"
        return {"receptive field": seen}
