"""PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016, arXiv:1601.06759)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.causal import masked_stack
from jaxgen.causal.condition import NOTHING, Condition, Shift
from jaxgen.causal.masked import CausalConv, Terms
from jaxgen.causal.samplers import Draw, Stepper
from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.nn.layers import dropout, fold_keys
from jaxgen.spec import DataSpec

# How a causal convolution is run: on the image as a whole, or on one pixel and group of features.
RunConv = Callable[[CausalConv, Array], Array]


def _shifted(layer: CausalConv, shift: Shift, vector: Array | None) -> Terms:
    """A layer's terms, with what the vector adds in the bias."""
    terms, (by_vector, by_maps) = layer.terms(), shift.kernels()
    if vector is not None and by_vector is not None:
        terms = terms._replace(bias=terms.bias + vector @ by_vector)
    return terms._replace(maps=by_maps)


class ResidualBlock(nn.Module):
    """ReLU, 1x1 to h; ReLU, masked kxk; ReLU, 1x1 to 2h; plus the input (the paper's figure 5)."""

    features: int
    kernel: int
    groups: int
    dropout: float

    def setup(self) -> None:
        self.down = CausalConv(self.features, 1, "B", self.groups)
        self.causal = CausalConv(self.features, self.kernel, "B", self.groups)
        self.up = CausalConv(2 * self.features, 1, "B", self.groups)
        self.shift = Shift()

    def __call__(self, x: Array, condition: Condition, run: RunConv, keys: Array | None) -> Array:
        h = run(self.causal, jax.nn.relu(run(self.down, jax.nn.relu(x))))
        h = dropout(keys, jax.nn.relu(self.shift(h, condition)), self.dropout)
        return x + run(self.up, h)

    def terms(self, vector: Array | None) -> list[Terms]:
        """The terms of its layers, in the order in which they run."""
        return [self.down.terms(), _shifted(self.causal, self.shift, vector), self.up.terms()]


class PlainBlock(nn.Module):
    """ReLU, masked kxk to h: the network that courses start with."""

    features: int
    kernel: int
    groups: int
    dropout: float

    def setup(self) -> None:
        self.causal = CausalConv(self.features, self.kernel, "B", self.groups)
        self.shift = Shift()

    def __call__(self, x: Array, condition: Condition, run: RunConv, keys: Array | None) -> Array:
        h = run(self.causal, dropout(keys, jax.nn.relu(x), self.dropout))
        return self.shift(h, condition)

    def terms(self, vector: Array | None) -> list[Terms]:
        """The terms of its one layer."""
        return [_shifted(self.causal, self.shift, vector)]


BLOCKS = {"residual": ResidualBlock, "plain": PlainBlock}


class PixelCNNNet(nn.Module):
    """7x7 masked convolution (A), blocks (B), two 1x1 layers, p numbers per sub-pixel."""

    block: Literal["residual", "plain"]
    width: int
    blocks: int
    head: int
    first_kernel: int
    kernel: int
    channels: int
    num_params: int
    dropout: float
    remat: bool

    def setup(self) -> None:
        groups = self.channels
        between = 2 * self.width if self.block == "residual" else self.width
        self.first = CausalConv(between, self.first_kernel, "A", groups)
        self.stack = [
            BLOCKS[self.block](self.width, self.kernel, groups, self.dropout)
            for _ in range(self.blocks)
        ]
        self.hidden = CausalConv(self.head, 1, "B", groups)
        self.out = CausalConv(groups * self.num_params, 1, "B", groups)

    def run(
        self,
        x: Array,
        run: RunConv,
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Array:
        """The network, its causal convolutions run by `run`; keys say that it is trained."""
        h = self._blocks(run(self.first, x), run, condition, keys)
        return run(self.out, jax.nn.relu(run(self.hidden, jax.nn.relu(h))))

    def features(self, x: Float[Array, "b h w c"], condition: Condition) -> Float[Array, "b h w f"]:
        """What the blocks have made of every pixel and those before it."""
        return self._blocks(self.first(x), lambda layer, h: layer(h), condition, None)

    def _blocks(self, h: Array, run: RunConv, condition: Condition, keys: Array | None) -> Array:
        if self.remat and keys is not None and self.stack:
            return self._recomputed(h, run, condition, keys)
        for i, block in enumerate(self.stack):
            h = block(h, condition, run, fold_keys(keys, i))
        return h

    def _recomputed(self, h: Array, run: RunConv, condition: Condition, keys: Array) -> Array:
        """The blocks, of which the backward pass keeps the inputs alone.

        They are one loop over their stacked parameters: XLA on CPU takes a block computed twice
        outside a loop for the same, and keeps it.
        """
        block = self.stack[0].clone(parent=None)
        params = [block.variables["params"] for block in self.stack]

        def step(h: Array, now: Any) -> tuple[Array, None]:
            values, i = now
            out: Any = block.apply({"params": values}, h, condition, run, fold_keys(keys, i))
            return out, None

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        numbered = stacked, jnp.arange(len(params))
        return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), h, numbered)[0]

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c p"]:
        """The parameters of every sub-pixel given those before it; keys turn dropout on."""
        h = self.run(x, lambda layer, h: layer(h), condition, keys)
        return h.reshape(*h.shape[:-1], self.channels, self.num_params)

    def terms(self, vector: Float[Array, "b k"] | None) -> list[Terms]:
        """The terms of every causal convolution, in the order in which `run` runs them, with what
        the condition's vector adds."""
        blocks = [terms for block in self.stack for terms in block.terms(vector)]
        return [self.first.terms(), *blocks, self.hidden.terms(), self.out.terms()]

    def stepper(self, spec: DataSpec, draw: Draw, condition: Condition) -> Stepper:
        """What `cached` runs; see `samplers.Stepper`."""
        return masked_stack.Stack(self, spec, draw, condition)


@dataclass(frozen=True)
class PixelCNN(Autoregressive):
    """One stack of masked convolutions; it has the blind spot of the paper."""

    block: Literal["residual", "plain"] = "residual"
    """residual: the paper's bottleneck (1x1, kxk, 1x1); plain: ReLU and one kxk layer."""
    features: int = 32
    """h: features inside a block; 2h between residual blocks."""
    blocks: Repeats = 6
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

    only: ClassVar = {
        "kernel": Only("without `blocks`", lambda model: model.blocks > 0),
        "remat": Only("without `blocks`", lambda model: model.blocks > 0),
        "dropout": Only("without `blocks`", lambda model: model.blocks > 0),
    }

    def checks(self) -> None:
        for name in ("first_kernel", "kernel"):
            if getattr(self, name) % 2 == 0 or getattr(self, name) < 3:
                raise UserError(f"`{name}` must be odd and at least 3")
        if min(self.features, self.head) < self.spec.channels:
            raise UserError(
                f"`features` and `head` must be at least the image's "
                f"{self.spec.channels} channels, so that each has features of its own"
            )
        if self.blocks < 0:
            raise UserError("`blocks` must not be negative")

    @property
    def network(self) -> PixelCNNNet:
        return PixelCNNNet(
            block=self.block,
            width=self.features,
            blocks=self.blocks,
            head=self.head,
            first_kernel=self.first_kernel,
            kernel=self.kernel,
            channels=self.spec.channels,
            num_params=self.likelihood.num_params,
            dropout=self.dropout,
            remat=self.remat,
        )

    def network_facts(self) -> dict[str, str]:
        """How far the prediction of a pixel reaches; see the class for what it misses."""
        reach = self.first_kernel // 2 + self.blocks * (self.kernel // 2)
        return {
            "sees": f"{reach} rows above and {reach} columns to the left; to the right one column "
            f"per row above after the first kernel's {self.first_kernel // 2} (the blind spot)"
        }
