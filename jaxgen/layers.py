"""Layers that two or more models use: causal, strided and transposed convolutions, dropout.

Everything is NHWC with kernels [height width in out].
"""

from typing import Literal, NamedTuple

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


def group_bounds(features: int, groups: int, group: int) -> tuple[int, int]:
    """Where the group's features start and stop: feature f belongs to group f*groups//features."""
    return -(-group * features // groups), -(-(group + 1) * features // groups)


class Parts(NamedTuple):
    """A causal convolution as a sum, for the samplers, which compute its terms at other times."""

    kernel: int
    """Side of the kernel."""
    before: Float[Array, "n i o"]
    """The taps before the centre, in raster order."""
    centre: tuple[Float[Array, "_ _"], ...]
    """For each group: the pixel's own features that it may see, to the features of the group."""
    bias: Float[Array, "b o"]


class CausalConv(nn.Module):
    """A masked convolution whose kernel holds only the rows that can be live.

    A causal k x k kernel sees k//2 rows above and, in its own row, the pixels to the left (and
    the pixel itself, by group, see `causal_mask`): its rows below are dropped, not multiplied by
    zero, and so are the taps to the right in its own row.
    """

    features: int
    kernel: int
    kind: Literal["A", "B"]
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        reach, features_in = self.kernel // 2, x.shape[-1]
        # The variance counts the taps that are live, not the masked ones.
        live = reach * self.kernel * features_in + self._mask(features_in).sum((0, 1)).mean()
        init = nn.initializers.normal(float(np.sqrt(1.0 / max(live, 1.0))))
        shape = (reach + 1, self.kernel, features_in, self.features)
        above, own = self._live(self.param("kernel", init, shape))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]
        if self.kernel == 1:
            return x @ own[0] + bias
        left = conv(x, own[None], 1, ((0, 0), (reach, 0)))
        return conv(x, above, 1, ((reach, -1), (reach, reach))) + left + bias

    def parts(self) -> Parts:
        """The terms of the sum; the parameters exist already."""
        above, own = self._live(self.get_variable("params", "kernel"))
        features_in = own.shape[1]
        before = jnp.concatenate([above.reshape(-1, *own.shape[1:]), own[:-1]])
        centre = []
        for group in range(self.groups):
            start, stop = group_bounds(self.features, self.groups, group)
            seen = group + (self.kind == "B")
            inputs = group_bounds(features_in, self.groups, seen)[0]
            centre.append(own[-1, :inputs, start:stop])
        return Parts(self.kernel, before, tuple(centre), self.get_variable("params", "bias")[None])

    def _mask(self, features_in: int) -> np.ndarray:
        return causal_mask(self.kernel, features_in, self.features, self.kind, self.groups)

    def _live(self, kernel: Array) -> tuple[Array, Array]:
        """The rows above, and the taps of the own row that are not to the right, masked."""
        own = kernel[-1, : self.kernel // 2 + 1]
        return kernel[:-1], own * self._mask(kernel.shape[2]).astype(kernel.dtype)


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


def concat_elu(x: Float[Array, "*s f"]) -> Float[Array, "*s 2f"]:
    """ELU of x and of -x."""
    return jax.nn.elu(jnp.concatenate([x, -x], -1))


def gate(x: Float[Array, "*b 2f"]) -> Float[Array, "*b f"]:
    """tanh of one half times the logistic function of the other (van den Oord et al.
    2016, arXiv:1606.05328, equation 2)."""
    content, opening = jnp.split(x, 2, -1)
    return jnp.tanh(content) * jax.nn.sigmoid(opening)


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


def fold_keys(keys: Key[Array, " b"] | None, i: int | Array) -> Key[Array, " b"] | None:
    """The keys of layer i, made of those of the network; None stays None."""
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, i)
