"""Networks that run on whole images to be trained, and row by row, pixel by pixel, to sample.

A `StreamedNet` sees pixels strictly before the one it is asked about: to train, its input is
moved down by a row and right by a column; to sample, it is given the row above, then the pixel to
the left. What its layers remember in between lies in their Linen collection "cache", made of
zeros, which is what lies outside the image.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxgen.conv import conv
from jaxgen.likelihoods import Likelihood
from jaxgen.model import ImageSpec
from jaxgen.sampling import Draw, Pixels, Stepper, keep_known, stacked


class StreamedNet(nn.Module):
    """A network whose `features` at a pixel depend on earlier pixels alone.

    The label is one-hot [b k], or None. A subclass offers a submodule `head` (see `Head`), and the
    three methods that raise here.
    """

    num_classes: int

    def features(
        self, x: Float[Array, "b h w c"], label: Array | None, keys: Key[Array, " b"] | None
    ) -> Float[Array, "b h w f"]:
        """Of every pixel of whole images; keys turn dropout on."""
        raise NotImplementedError

    def begin_row(self, above: Float[Array, "b w c"], label: Array | None) -> None:
        """Takes the row above, zeros before the first, into the cache."""
        raise NotImplementedError

    def pixel(
        self, left: Float[Array, "b c"], column: Int[Array, ""], label: Array | None
    ) -> Float[Array, "b f"]:
        """The features of one pixel, given the one to its left (zeros in column 0)."""
        raise NotImplementedError

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c p"]:
        """The parameters of every sub-pixel given those before it."""
        features = self.features(x, one_hot(label, self.num_classes, x.dtype), keys)
        return self.head(features, x)  # type: ignore[attr-defined]

    def stepper(self, spec: ImageSpec, draw: Draw, label: Int[Array, " b"] | None) -> Stepper:
        """What the cached sampler runs; the module must be bound."""
        return _Streamed(self, spec, draw, one_hot(label, self.num_classes, jnp.float32))


def one_hot(label: Int[Array, " b"] | None, classes: int, dtype: Any) -> Array | None:
    """[b k], or None."""
    return None if label is None else jax.nn.one_hot(label, classes, dtype=dtype)


class _Streamed:
    """See `sampling.Stepper`."""

    def __init__(self, net: StreamedNet, spec: ImageSpec, draw: Draw, label: Array | None) -> None:
        self._net, self._spec, self._draw, self._label = net, spec, draw, label
        self._module, self._variables = net.unbind()

    def _run(self, cache: Any, method: str, *inputs: Any) -> tuple[Any, Any]:
        variables = {**self._variables, "cache": cache}
        out, new = self._module.apply(
            variables, *inputs, self._label, method=method, mutable=["cache"]
        )
        return out, new.get("cache", {})

    def start(self, batch: int) -> Any:
        """The empty cache, and the row above the first."""
        above = jnp.zeros((batch, self._spec.width, self._spec.channels))

        def caches() -> Any:
            _, cache = self._run({}, "begin_row", above)
            return self._run(cache, "pixel", above[:, 0], jnp.int32(0))[1]

        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(caches)), above

    def begin(self, rows: Any) -> tuple[Any, Any]:
        """See `Stepper`; a column gets only its number: the cache has what is above it."""
        cache, above = rows
        _, cache = self._run(cache, "begin_row", above)
        return (cache, jnp.zeros_like(above[:, 0])), jnp.arange(above.shape[1])

    def pixel(
        self, left: Any, above: Any, pixels: Pixels, state: Any
    ) -> tuple[Any, Any, Array, Any, Any]:
        """See `Stepper`; the row keeps the pixel's levels as floats."""
        features, cache = self._run(left[0], "pixel", left[1], above)
        levels = jnp.where(pixels.keep, pixels.given, 0).astype(jnp.uint8)
        records = []
        for channel in range(self._spec.channels):
            params = self._net.head(features, self._spec.to_float(levels))  # type: ignore[attr-defined]
            noise = pixels.noise[channel]
            state, level, record = self._draw.pick(state, noise, params[:, channel])
            records.append(record)
            levels = keep_known(levels, level, pixels, channel)
        x = self._spec.to_float(levels)
        return (cache, x), x, levels, state, stacked(records)

    def end(self, rows: Any, left: Any, kept: Any) -> Any:
        """The cache, and the row that is now above."""
        return left[0], kept.swapaxes(0, 1)


def shift_down(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Each row is the one above it; the first is zero."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def shift_right(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Each pixel is the one to its left; the first of a row is zero."""
    return jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]


def recall(module: nn.Module, name: str, shape: tuple[int, ...]) -> Array:
    """What the module remembers under that name; zeros if nothing yet."""
    kept: Array | None = module.get_variable("cache", name)
    return jnp.zeros(shape) if kept is None else kept


def remember(module: nn.Module, name: str, value: Any) -> None:
    """Keeps it in the module's cache."""
    module.put_variable("cache", name, value)


def _with_left(
    module: nn.Module, x: Float[Array, "b i"], left: int, column: Int[Array, ""]
) -> Float[Array, "b n"]:
    """The `left` inputs to the left, zeros beside the image, then the pixel's own, n = (left+1)*i;
    the module remembers them."""
    if not left:
        return x
    past = recall(module, "left", (left, *x.shape))
    now = jnp.concatenate([jnp.where(column == 0, 0.0, past), x[None]])
    remember(module, "left", now[1:])
    return now.swapaxes(0, 1).reshape(x.shape[0], -1)


class DownConv(nn.Module):
    """A convolution that sees its own row and `rows` - 1 above, and `columns`//2 to each side."""

    features: int
    rows: int
    columns: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], by_row: bool = False) -> Float[Array, "b h w o"]:
        """Of whole images; or, `by_row`, of the next row, h = 1."""
        batch, _, width, features = x.shape
        shape = (self.rows, self.columns, features, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        above, side = self.rows - 1, self.columns // 2
        if by_row and above:
            x = jnp.concatenate([recall(self, "rows", (batch, above, width, features)), x], 1)
            remember(self, "rows", x[:, 1:])
            above = 0
        return conv(x, kernel, 1, ((above, 0), (side, side))) + bias[None, None, None]


class RightConv(nn.Module):
    """A convolution along rows that sees its own pixel and `columns` - 1 to the left."""

    features: int
    columns: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *hw i"], column: Int[Array, ""] | None = None
    ) -> Float[Array, "b *hw o"]:
        """Of whole images [b h w i]; or of one pixel [b i], in that column."""
        shape = (1, self.columns, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if column is None:
            return conv(x, kernel, 1, ((0, 0), (self.columns - 1, 0))) + bias[None, None, None]
        own = _with_left(self, x, self.columns - 1, column)
        return own @ kernel.reshape(-1, self.features) + bias[None]


class DownRightConv(nn.Module):
    """A convolution that sees its own pixel and `columns` - 1 to the left, in its own row and in
    `rows` - 1 above.

    To stream, `begin_row` comes before the pixels of each row: it computes what the rows above
    give to the whole row, so that only the own row's taps are left to each pixel.
    """

    features: int
    rows: int
    columns: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *hw i"], column: Int[Array, ""] | None = None
    ) -> Float[Array, "b *hw o"]:
        """Of whole images [b h w i]; or of one pixel [b i], in that column."""
        shape = (self.rows, self.columns, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        above, left = self.rows - 1, self.columns - 1
        if column is None:
            return conv(x, kernel, 1, ((above, 0), (left, 0))) + bias[None, None, None]
        own = _with_left(self, x, left, column) @ kernel[-1].reshape(-1, self.features)
        if not above:
            return own + bias[None]
        rows: Array = self.get_variable("cache", "rows")
        remember(self, "rows", rows.at[-1, column].set(x))
        return own + self.get_variable("cache", "above")[column]

    def begin_row(self, batch: int, width: int) -> None:
        """Takes the row that is finished into the cache; the parameters exist already."""
        kernel: Array = self.get_variable("params", "kernel")
        bias: Array = self.get_variable("params", "bias")
        above, left = self.rows - 1, self.columns - 1
        if not above:
            return
        rows = recall(self, "rows", (above, width, batch, kernel.shape[2]))
        padded = jnp.pad(rows, ((0, 0), (left, 0), (0, 0), (0, 0)))
        taps = [row[i : i + width] for row in padded for i in range(self.columns)]
        share = jnp.concatenate(taps, -1) @ kernel[:-1].reshape(-1, self.features)
        remember(self, "above", share + bias[None, None])
        # The oldest row's place is the next one's, pixel by pixel.
        remember(self, "rows", jnp.roll(rows, -1, 0))


class LabelShift(nn.Module):
    """Adds to every place a vector that the label chooses, zero before training."""

    @nn.compact
    def __call__(self, x: Float[Array, "b *hw f"], label: Array | None) -> Float[Array, "b *hw f"]:
        """label: one-hot [b k], or None, which adds nothing."""
        if label is None:
            return x
        shift = nn.Dense(x.shape[-1], use_bias=False, kernel_init=nn.initializers.zeros)(label)
        return x + shift.reshape(x.shape[0], *(1,) * (x.ndim - 2), -1)


class Head(nn.Module):
    """From a pixel's features to the parameters of its sub-pixels, R before G before B.

    One hidden layer for each channel, which also sees the channels before it.
    """

    hidden: int
    channels: int
    likelihood: Likelihood

    @nn.compact
    def __call__(
        self, features: Float[Array, "*b f"], x: Float[Array, "*b c"]
    ) -> Float[Array, "*b c p"]:
        """x: the pixel's levels in [-1, 1], of which channel d sees those before d."""
        channels, hidden, outputs = self.channels, self.hidden, self.likelihood.num_params
        h = nn.Dense(channels * hidden, name="features")(jax.nn.relu(features))
        h = h.reshape(*h.shape[:-1], channels, hidden)
        if channels > 1:
            normal = nn.initializers.normal(channels**-0.5)
            weights = self.param("before", normal, (channels, channels, hidden))
            earlier = jnp.tril(jnp.ones((channels, channels), x.dtype), -1)
            h = h + jnp.einsum("...i,oih->...oh", x, weights * earlier[..., None])
        init = nn.initializers.lecun_normal(batch_axis=0)
        kernel = self.param("kernel", init, (channels, hidden, outputs))
        bias = self.param("bias", nn.initializers.zeros, (channels, outputs))
        out = jnp.einsum("...oh,ohp->...op", jax.nn.relu(h), kernel)
        return out + bias.reshape(*(1,) * (out.ndim - 2), channels, outputs)


def at_column(context: Float[Array, "b w f"], column: Int[Array, ""]) -> Float[Array, "b f"]:
    """That column of what a row remembers, [b w f] -> [b f]."""
    return lax.dynamic_index_in_dim(context, column, 1, keepdims=False)
