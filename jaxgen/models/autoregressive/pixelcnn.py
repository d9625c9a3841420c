"""PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016, arXiv:1601.06759)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal import masked_stack, wavefront
from jaxgen.causal.masked import CausalConv, Parts
from jaxgen.causal.samplers import Draw, Stepper
from jaxgen.errors import UserError
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.nn.layers import dropout, fold_keys
from jaxgen.spec import ImageSpec

# How a causal convolution is run: on the image as a whole, or on one pixel and group of features.
RunConv = Callable[[CausalConv, Array], Array]


def _shifted(layer: CausalConv, label: nn.Dense, one_hot: Array | None) -> Parts:
    """A layer's parts, with what the label adds in the bias."""
    parts = layer.parts()
    return parts if one_hot is None else parts._replace(bias=parts.bias + label(one_hot))


class ResidualBlock(nn.Module):
    """ReLU, 1x1 to h; ReLU, masked kxk; ReLU, 1x1 to 2h; plus the input (the paper's figure 5)."""

    features: int
    kernel: int
    groups: int
    num_classes: int
    dropout: float

    def setup(self) -> None:
        self.down = CausalConv(self.features, 1, "B", self.groups)
        self.causal = CausalConv(self.features, self.kernel, "B", self.groups)
        self.up = CausalConv(2 * self.features, 1, "B", self.groups)
        self.label = nn.Dense(self.features, use_bias=False, kernel_init=nn.initializers.zeros)

    def __call__(self, x: Array, label: Array | None, run: RunConv, keys: Array | None) -> Array:
        h = run(self.causal, jax.nn.relu(run(self.down, jax.nn.relu(x))))
        if label is not None:
            h = h + self.label(label)[:, None, None]
        h = dropout(keys, jax.nn.relu(h), self.dropout)
        return x + run(self.up, h)

    def parts(self, label: Array | None) -> list[Parts]:
        """The parts of its layers, in the order in which they run."""
        return [self.down.parts(), _shifted(self.causal, self.label, label), self.up.parts()]


class PlainBlock(nn.Module):
    """ReLU, masked kxk to h: the network that courses start with."""

    features: int
    kernel: int
    groups: int
    num_classes: int
    dropout: float

    def setup(self) -> None:
        self.causal = CausalConv(self.features, self.kernel, "B", self.groups)
        self.label = nn.Dense(self.features, use_bias=False, kernel_init=nn.initializers.zeros)

    def __call__(self, x: Array, label: Array | None, run: RunConv, keys: Array | None) -> Array:
        h = run(self.causal, dropout(keys, jax.nn.relu(x), self.dropout))
        return h if label is None else h + self.label(label)[:, None, None]

    def parts(self, label: Array | None) -> list[Parts]:
        """The parts of its one layer."""
        return [_shifted(self.causal, self.label, label)]


BLOCKS = {"residual": ResidualBlock, "plain": PlainBlock}


class PixelCNNNet(nn.Module):
    """7x7 masked convolution (A), blocks (B), two 1x1 layers, p numbers per sub-pixel."""

    block: Literal["residual", "plain"]
    features: int
    blocks: int
    head: int
    first_kernel: int
    kernel: int
    channels: int
    num_params: int
    num_classes: int
    dropout: float
    remat: bool

    def setup(self) -> None:
        groups = self.channels
        width = 2 * self.features if self.block == "residual" else self.features
        self.first = CausalConv(width, self.first_kernel, "A", groups)
        self.stack = [
            BLOCKS[self.block](self.features, self.kernel, groups, self.num_classes, self.dropout)
            for _ in range(self.blocks)
        ]
        self.hidden = CausalConv(self.head, 1, "B", groups)
        self.out = CausalConv(groups * self.num_params, 1, "B", groups)

    def run(
        self,
        x: Array,
        run: RunConv,
        label: Array | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Array:
        """The network, its causal convolutions run by `run`; label = one-hot [b k]; keys say that
        it is trained."""
        h = run(self.first, x)
        if self.remat and keys is not None and self.stack:
            h = self._recomputed(h, run, label, keys)
        else:
            for i, block in enumerate(self.stack):
                h = block(h, label, run, fold_keys(keys, i))
        return run(self.out, jax.nn.relu(run(self.hidden, jax.nn.relu(h))))

    def _recomputed(self, h: Array, run: RunConv, label: Array | None, keys: Array) -> Array:
        """The blocks, of which the backward pass keeps the inputs alone.

        They are one loop over their stacked parameters: XLA on CPU takes a block computed twice
        outside a loop for the same, and keeps it.
        """
        block = self.stack[0].clone(parent=None)
        params = [block.variables["params"] for block in self.stack]

        def step(h: Array, now: Any) -> tuple[Array, None]:
            values, i = now
            out: Any = block.apply({"params": values}, h, label, run, fold_keys(keys, i))
            return out, None

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        numbered = stacked, jnp.arange(len(params))
        return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), h, numbered)[0]

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c p"]:
        """The parameters of every sub-pixel given those before it; keys turn dropout on."""
        one_hot = self._one_hot(label, x.dtype)
        h = self.run(x, lambda layer, h: layer(h), one_hot, keys)
        return h.reshape(*h.shape[:-1], self.channels, self.num_params)

    def parts(self, label: Int[Array, " b"] | None) -> list[Parts]:
        """The parts of every causal convolution, in the order in which `run` runs them."""
        one_hot = self._one_hot(label, jnp.float32)
        blocks = [parts for block in self.stack for parts in block.parts(one_hot)]
        return [self.first.parts(), *blocks, self.hidden.parts(), self.out.parts()]

    def stepper(self, spec: ImageSpec, draw: Draw, label: Int[Array, " b"] | None) -> Stepper:
        """What `cached` runs; see `sampling.Stepper`."""
        return masked_stack.Stack(self, spec, draw, label)

    def _one_hot(self, label: Int[Array, " b"] | None, dtype: Any) -> Array | None:
        return None if label is None else jax.nn.one_hot(label, self.num_classes, dtype=dtype)


@dataclass(frozen=True)
class PixelCNN(Autoregressive):
    """One stack of masked convolutions; it has the blind spot of the paper."""

    block: Literal["residual", "plain"] = "residual"
    """residual: the paper's bottleneck (1x1, kxk, 1x1); plain: ReLU and one kxk layer."""
    features: int = 32
    """h: features inside a block; 2h between residual blocks."""
    blocks: int = 6
    """Blocks after the first layer."""
    head: int = 64
    """Features of the 1x1 layer before the output."""
    first_kernel: int = 7
    """Side of the first kernel (mask A); odd."""
    kernel: int = 3
    """Side of the kernels in the blocks (mask B); odd."""
    sampler: Literal["cached", "wavefront", "naive"] = "cached"  # type: ignore[assignment]
    """cached: the cost of one forward pass; wavefront: that in fewer, wider steps;
    naive: the whole net per sub-pixel. The images are the same."""
    remat: bool = False
    """Recompute each block's features in the backward pass: memory for time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("first_kernel", "kernel"):
            if getattr(self, name) % 2 == 0 or getattr(self, name) < 3:
                raise UserError(f"--pixelcnn.{name} must be odd and at least 3")
        if min(self.features, self.head) < self.spec.channels:
            raise UserError(
                f"--pixelcnn.features and --pixelcnn.head must be at least the image's "
                f"{self.spec.channels} channels, so that each has features of its own"
            )
        if self.blocks < 0:
            raise UserError("--pixelcnn.blocks must not be negative")

    @property
    def samplers(self) -> dict[str, Callable[..., Array]]:
        return {**super().samplers, "wavefront": wavefront.sample_pixels_wavefront}

    @property
    def network(self) -> PixelCNNNet:
        return PixelCNNNet(
            self.block, self.features, self.blocks, self.head, self.first_kernel, self.kernel,
            self.spec.channels, self.likelihood.num_params, self.spec.num_classes, self.dropout,
            self.remat,
        )  # fmt: skip

    def facts(self) -> dict[str, str]:
        """How far the prediction of a pixel reaches; see the class for what it misses."""
        reach = self.first_kernel // 2 + self.blocks * (self.kernel // 2)
        return {
            "sees": f"{reach} rows above and {reach} columns to the left; to the right one column "
            f"per row above after the first kernel's {self.first_kernel // 2} (the blind spot)",
            **super().facts(),
        }
