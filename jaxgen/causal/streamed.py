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

from jaxgen.causal.samplers import Draw, Pixels, Stepper, keep_known, stacked
from jaxgen.nn.layers import one_hot
from jaxgen.spec import ImageSpec


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


def recall(module: nn.Module, name: str, shape: tuple[int, ...]) -> Array:
    """What the module remembers under that name; zeros if nothing yet."""
    kept: Array | None = module.get_variable("cache", name)
    return jnp.zeros(shape) if kept is None else kept


def remember(module: nn.Module, name: str, value: Any) -> None:
    """Keeps it in the module's cache."""
    module.put_variable("cache", name, value)


def at_column(context: Float[Array, "b w f"], column: Int[Array, ""]) -> Float[Array, "b f"]:
    """That column of what a row remembers, [b w f] -> [b f]."""
    return lax.dynamic_index_in_dim(context, column, 1, keepdims=False)
