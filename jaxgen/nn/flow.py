"""Invertible layers: affine couplings, squeezing, and a learned scale of every channel."""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxgen.nn.labels import with_label
from jaxgen.nn.layers import Conv

SMALLEST = 1e-2
"""The standard deviation below which a channel of the first examples counts as that wide."""


def checkerboard(shape: tuple[int, int, int], odd: bool) -> np.ndarray:
    """1 where a coupling passes its input through, else 0: [1 h w c], every other sub-pixel."""
    places = np.add.outer(
        np.add.outer(np.arange(shape[0]), np.arange(shape[1])), np.arange(shape[2])
    )
    return ((places + odd) % 2).astype(np.float32)[None]


def halves(shape: tuple[int, int, int], odd: bool) -> np.ndarray:
    """1 where a coupling passes its input through: one half of the channels."""
    first = np.arange(shape[2]) < shape[2] // 2
    return np.broadcast_to(first != odd, shape).astype(np.float32)[None]


def squeeze(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 4c"]:
    """Each 2x2 block of pixels as one pixel of four times the channels."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h // 2, w // 2, 4 * c)


def unsqueeze(x: Float[Array, "b h w 4c"]) -> Float[Array, "b h2 w2 c"]:
    """The inverse of `squeeze`."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, 2 * h, 2 * w, c // 4)


class ActNorm(nn.Module):
    """A shift and a scale for each channel, which make the examples that it is initialized on of
    mean 0 and variance 1 (Kingma & Dhariwal 2018, arXiv:1807.03039, section 3.1)."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], inverse: bool = False
    ) -> tuple[Float[Array, "b h w c"], Float[Array, ""]]:
        """What x becomes, and the log-determinant of the Jacobian."""
        mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
        shift = self.param("shift", lambda key: mean)[None, None, None]
        log_scale = self.param("log_scale", lambda key: -jnp.log(jnp.maximum(std, SMALLEST)))
        by = jnp.exp(log_scale)[None, None, None]
        log_det = x.shape[1] * x.shape[2] * log_scale.sum()
        return (x / by + shift, -log_det) if inverse else ((x - shift) * by, log_det)


class CouplingNet(nn.Module):
    """What a coupling computes from the part that passes through: two numbers for each sub-pixel,
    zero before training."""

    kind: Literal["mlp", "conv"]
    width: int
    """Units of a fully connected layer, or features of a convolution."""
    depth: int
    """mlp: hidden layers; conv: residual blocks."""
    num_classes: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
        zeros, channels = nn.initializers.zeros, x.shape[-1]
        if self.kind == "mlp":
            h = with_label(x.reshape(len(x), -1), label, self.num_classes)
            for _ in range(self.depth):
                h = jax.nn.relu(nn.Dense(self.width)(h))
            out = nn.Dense(2 * x[0].size, kernel_init=zeros)(h).reshape(*x.shape[:3], 2 * channels)
        else:
            h = Conv(self.width, 3)(with_label(x, label, self.num_classes))
            for _ in range(self.depth):
                inner = Conv(self.width, 3)(jax.nn.relu(h))
                h = h + Conv(self.width, 1)(jax.nn.relu(inner))
            out = Conv(2 * channels, 1, kernel_init=zeros)(jax.nn.relu(h))
        return out[..., :channels], out[..., channels:]


class Coupling(nn.Module):
    """y = x where the mask is 1, and s x + t elsewhere, with s and t made of what passes through
    (Dinh et al. 2017, arXiv:1605.08803, equations 4 and 5); log s is bounded by a learned number
    for each channel."""

    net: CouplingNet
    odd: bool
    mask: Literal["checkerboard", "halves"]

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None, inverse: bool = False
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """What x becomes, and the log-determinant of each example's Jacobian."""
        shape = x.shape[1], x.shape[2], x.shape[3]
        mask = jnp.asarray(
            (checkerboard if self.mask == "checkerboard" else halves)(shape, self.odd)
        )
        log_s, t = self.net(x * mask, label)
        bound = self.param("bound", nn.initializers.ones, (shape[2],))[None, None, None]
        log_s, t = jnp.tanh(log_s) * bound * (1 - mask), t * (1 - mask)
        log_det = log_s.sum((1, 2, 3))
        return (
            ((x - t) * jnp.exp(-log_s), -log_det) if inverse else (x * jnp.exp(log_s) + t, log_det)
        )


class MultiScaleFlow(nn.Module, kw_only=True):
    """Data to noise and back, scale by scale: after each but the last, half of the channels are
    noise already (Dinh et al. 2017, section 3.6)."""

    kind: Literal["mlp", "conv"]
    scales: int
    couplings: int
    """Couplings before a scale is squeezed, and, of a conv, as many after."""
    width: int
    depth: int
    num_classes: int

    def setup(self) -> None:
        def steps(mask: Literal["checkerboard", "halves"]) -> list[tuple[ActNorm, Coupling]]:
            net: dict[str, Any] = {
                "kind": self.kind, "width": self.width, "depth": self.depth,
                "num_classes": self.num_classes,
            }  # fmt: skip
            parities = [i % 2 == 1 for i in range(self.couplings)]
            return [(ActNorm(), Coupling(CouplingNet(**net), odd, mask)) for odd in parities]

        self.before = [steps("checkerboard") for _ in range(self.scales)]
        self.after = [steps("halves") for _ in range(self.scales - 1)]

    def _run(
        self, steps: Any, x: Array, label: Any, inverse: bool
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        total = jnp.zeros(len(x))
        for pair in reversed(steps) if inverse else steps:
            norm, coupling = pair
            if inverse:
                x, log_det = coupling(x, label, True)
                x, more = norm(x, True)
            else:
                x, more = norm(x)
                x, log_det = coupling(x, label)
            total = total + log_det + more
        return x, total

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> tuple[Float[Array, "b z"], Float[Array, " b"]]:
        """The noise that x is, coarsest part first, and the log-determinant of the Jacobian."""
        parts: list[Array] = []
        total = jnp.zeros(len(x))
        for scale in range(self.scales):
            x, log_det = self._run(self.before[scale], x, label, False)
            total = total + log_det
            if scale < self.scales - 1:
                x, log_det = self._run(self.after[scale], squeeze(x), label, False)
                total = total + log_det
                x, noise = jnp.split(x, 2, -1)
                parts = [noise.reshape(len(x), -1), *parts]
        return jnp.concatenate([x.reshape(len(x), -1), *parts], -1), total

    def invert(
        self,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        shapes: tuple[tuple[int, int, int], ...],
    ) -> Float[Array, "b h w c"]:
        """What noise is; `shapes` are those of its parts, coarsest first."""
        first, *others = _split(z, [math.prod(shape) for shape in shapes])
        x, _ = self._run(self.before[-1], first.reshape(-1, *shapes[0]), label, True)
        for scale in reversed(range(self.scales - 1)):
            noise, *others = others
            x = jnp.concatenate([x, noise.reshape(x.shape)], -1)
            x, _ = self._run(self.after[scale], x, label, True)
            x, _ = self._run(self.before[scale], unsqueeze(x), label, True)
        return x


def _split(z: Float[Array, "b z"], sizes: list[int]) -> list[Float[Array, "b z"]]:
    return jnp.split(z, np.cumsum(sizes)[:-1], -1)
