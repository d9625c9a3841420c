"""Masked layers: convolutions that see only earlier pixels, and the masks of MADE."""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.nn.conv import conv


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


class Terms(NamedTuple):
    """A causal convolution as a sum, for the samplers, which compute its terms at other times."""

    kernel: int
    """Side of the kernel."""
    before: Float[Array, "n i o"]
    """The taps before the centre, in raster order."""
    centre: tuple[Float[Array, "_ _"], ...]
    """For each group: the pixel's own features that it may see, to the features of the group."""
    bias: Float[Array, "b o"]
    maps: Float[Array, "f o"] | None = None
    """What the condition's maps of a place are multiplied with and add to it; None: nothing."""


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

    def terms(self) -> Terms:
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
        return Terms(self.kernel, before, tuple(centre), self.get_variable("params", "bias")[None])

    def _mask(self, features_in: int) -> np.ndarray:
        return causal_mask(self.kernel, features_in, self.features, self.kind, self.groups)

    def _live(self, kernel: Array) -> tuple[Array, Array]:
        """The rows above, and the taps of the own row that are not to the right, masked."""
        own = kernel[-1, : self.kernel // 2 + 1]
        return kernel[:-1], own * self._mask(kernel.shape[2]).astype(kernel.dtype)


def degrees(units: int, dims: int) -> np.ndarray:
    """How many of the first sub-pixels each hidden unit may see, int32 [units]: 0..dims-1, evenly
    and in rising order (the paper draws them at random)."""
    return (np.arange(units, dtype=np.int64) * dims // units).astype(np.int32)


def layer_masks(dims: int, hidden: tuple[int, ...]) -> list[np.ndarray]:
    """Which unit of each layer [i] feeds which of the next [o], bool; sub-pixels stand at both
    ends (equations 8 and 9 of the paper, whose degrees are one more than these)."""
    place = np.arange(dims)
    layers = [degrees(units, dims) for units in hidden]
    between = [a[:, None] <= b for a, b in zip(layers, layers[1:], strict=False)]
    return [place[:, None] < layers[0], *between, layers[-1][:, None] <= place]
