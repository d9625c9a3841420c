"""Layers that two or more models use: causal, strided and transposed convolutions, dropout.

Everything is NHWC with kernels [height width in out].
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxgen.conv import conv, conv_adjoint, same_padding

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "elu": jax.nn.elu,
    "tanh": jnp.tanh,
}
Activation = Literal["relu", "leaky_relu", "elu", "tanh"]


def causal_mask(
    kernel: int, features_in: int, features_out: int, kind: Literal["A", "B"], groups: int
) -> np.ndarray:
    """The live taps of a causal kernel's own row, [kernel//2+1 in out] of 0 and 1.

    Left taps are live. On the centre tap, features are split into `groups` contiguous groups (R,
    G, B) and group i feeds group j where i < j (kind A, for the image itself) or i <= j (kind B).
    van den Oord et al. 2016, arXiv:1601.06759, section 3.4.
    """
    group_in = np.arange(features_in) * groups // features_in
    group_out = np.arange(features_out) * groups // features_out
    allowed = np.less if kind == "A" else np.less_equal
    mask = np.ones((kernel // 2 + 1, features_in, features_out), np.float32)
    mask[-1] = allowed(group_in[:, None], group_out[None, :])
    return mask


class CausalConv(nn.Module):
    """A masked convolution whose kernel holds only the rows that can be live.

    A causal k x k kernel sees k//2 rows above and, in its own row, the pixels to the left (and
    the pixel itself, by group, see `causal_mask`): its rows below are dropped, not multiplied by
    zero. The layer also runs row by row and pixel by pixel, which is what exact sampling needs.
    """

    features: int
    kernel: int
    kind: Literal["A", "B"]
    groups: int = 1

    def _weights(self, features_in: int) -> tuple[Array, Array]:
        reach = self.kernel // 2
        mask = causal_mask(self.kernel, features_in, self.features, self.kind, self.groups)
        # The variance counts the taps that are live, not the masked ones.
        live = reach * self.kernel * features_in + mask.sum((0, 1)).mean()
        init = nn.initializers.normal(float(np.sqrt(1.0 / max(live, 1.0))))
        shape = (reach + 1, self.kernel, features_in, self.features)
        kernel = self.param("kernel", init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        own = kernel[-1, : reach + 1] * mask
        return jnp.concatenate([kernel[:-1], self._row(own)[None]]), bias

    def _row(self, own: Array) -> Array:
        return jnp.pad(own, ((0, self.kernel // 2), (0, 0), (0, 0)))

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w i"],
        above: Float[Array, "b o"] | None = None,
        mode: Literal["image", "above", "pixel"] = "image",
    ) -> Array:
        """The convolution of a whole image, [b h w o]; or one of the two parts of it:

        - mode "above": x = the last kernel//2 rows [b k//2 w i]; returns [b w o], what they give
          to the row below them;
        - mode "pixel": x = the pixel and its kernel//2 left neighbours [b k//2+1 i], above = the
          pixel's share of the other mode; returns [b o].
        """
        reach = self.kernel // 2
        kernel, bias = self._weights(x.shape[-1])
        if mode == "pixel":
            own = jnp.einsum("bki,kio->bo", x, kernel[-1, : reach + 1])
            return own + bias[None] if above is None else own + above + bias[None]
        if mode == "above":
            return conv(x, kernel[:-1], 1, ((0, 0), (reach, reach)))[:, 0]
        if self.kernel == 1:
            return x @ kernel[0, 0] + bias[None, None, None]
        return conv(x, kernel, 1, ((reach, 0), (reach, reach))) + bias[None, None, None]


class Conv(nn.Module):
    """A strided convolution, output size ceil(size / stride)."""

    features: int
    kernel: int
    stride: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        pad = same_padding((x.shape[1], x.shape[2]), shape[:2], self.stride)
        y = conv(x, self.param("kernel", self.kernel_init, shape), self.stride, pad)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias[None, None, None]
        return y


class ConvTranspose(nn.Module):
    """The adjoint of `Conv`: from size ceil(s / stride) back to any such size s.

    Its kernel [k k out in] is the kernel of the convolution whose adjoint it is.
    """

    features: int
    kernel: int
    size: tuple[int, int]
    """Height and width of the output."""
    stride: int = 2
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        shape = (self.kernel, self.kernel, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        pad = same_padding(self.size, shape[:2], self.stride)
        y = conv_adjoint(x, kernel, self.stride, pad, self.size)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias[None, None, None]
        return y


def upsample(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Each pixel doubled in height and width, cropped to `size`."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)[:, : size[0], : size[1]]


def halvings(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from the image's own down, each half (rounded up) of the one before, until the
    smaller side is at most 4 (at most 2 for images under 16): 28 -> 28, 14, 7, 4; 8 -> 8, 4, 2."""
    smallest = 4 if min(height, width) >= 16 else 2
    sizes = [(height, width)]
    while min(sizes[-1]) > smallest:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def dropout(
    keys: Key[Array, " b"] | None, x: Float[Array, "b *s"], rate: float
) -> Float[Array, "b *s"]:
    """Zeroes entries at `rate` and scales the rest; keys None or rate 0 = identity.

    One key per example: the noise is the same on any number of devices.
    """
    if keys is None or rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - rate), 0.0)
