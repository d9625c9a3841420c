"""Networks that run on whole images to be trained, and row by row, pixel by pixel, to sample.

A `StreamedNet` sees pixels strictly before the one it is asked about: to train, its input is
moved down by a row and right by a column; to sample, it is given the row above, then the pixel to
the left. What its layers remember in between lies in their Linen collection "cache", made of
zeros, which is what lies outside the image.
"""

import abc
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.condition import NOTHING, Condition
from jaxgen.causal.samplers import Draw, Pixels, Stepper, dtype_of, keep_known, stacked
from jaxgen.spec import DataSpec


class StreamedNet(nn.Module, abc.ABC):
    """A network whose `features` at a pixel depend on earlier pixels alone.

    A subclass offers a submodule `head` (see `Head`).
    """

    @abc.abstractmethod
    def features(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w f"]:
        """The features of every pixel of whole images; keys turn dropout on."""

    @abc.abstractmethod
    def begin_row(self, above: Float[Array, "b w c"], condition: Condition) -> None:
        """Takes the row above, zeros before the first, into the cache; the condition is the row's
        own."""

    @abc.abstractmethod
    def pixel(
        self, left: Float[Array, "b c"], column: Int[Array, ""], condition: Condition
    ) -> Float[Array, "b f"]:
        """The features of one pixel, given the one to its left (zeros in column 0)."""

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        condition: Condition = NOTHING,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c p"]:
        """The parameters of every sub-pixel given those before it."""
        return self.head(self.features(x, condition, keys), x)  # type: ignore[attr-defined]

    def stepper(self, spec: DataSpec, draw: Draw, condition: Condition) -> Stepper:
        """What the cached sampler runs; the module must be bound."""
        return _Streamed(self, spec, draw, condition)


class _Streamed:
    """See `samplers.Stepper`."""

    def __init__(self, net: StreamedNet, spec: DataSpec, draw: Draw, condition: Condition) -> None:
        self._net, self._spec, self._draw, self._condition = net, spec, draw, condition
        self._module, self._variables = net.unbind()
        self._dtype = dtype_of(net)

    def _run(self, cache: Any, method: str, *inputs: Any) -> tuple[Any, Any]:
        variables = {**self._variables, "cache": cache}
        out, new = self._module.apply(variables, *inputs, method=method, mutable=["cache"])
        return out, new.get("cache", {})

    def start(self, batch: int) -> Any:
        """The empty cache, and the row above the first."""
        above = jnp.zeros((batch, self._spec.width, self._spec.channels), self._dtype)

        def caches() -> Any:
            row = self._condition.row(0)
            pixel = row if row.maps is None else row.having(row.maps[:, 0, 0])
            _, cache = self._run({}, "begin_row", above, row)
            return self._run(cache, "pixel", above[:, 0], jnp.int32(0), pixel)[1]

        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(caches)), above

    def begin(self, rows: Any, row: Int[Array, ""]) -> tuple[Any, Any]:
        """See `Stepper`; a column gets its number and its maps: the cache has what is above it."""
        (cache, above), condition = rows, self._condition.row(row)
        _, cache = self._run(cache, "begin_row", above, condition)
        maps = None if condition.maps is None else condition.maps[:, 0].swapaxes(0, 1)
        return (cache, jnp.zeros_like(above[:, 0])), (jnp.arange(above.shape[1]), maps)

    def pixel(
        self, left: Any, above: Any, pixels: Pixels, state: Any
    ) -> tuple[Any, Any, Array, Any, Any]:
        """See `Stepper`; the row keeps the pixel's levels as floats."""
        column, maps = above
        condition = self._condition.having(maps)
        features, cache = self._run(left[0], "pixel", left[1], column, condition)
        levels = jnp.where(pixels.keep, pixels.given, 0).astype(pixels.given.dtype)
        records = []
        for channel in range(self._spec.channels):
            x = self._spec.to_float(levels).astype(self._dtype)
            params = self._net.head(features, x)  # type: ignore[attr-defined]
            noise = pixels.noise[channel]
            state, level, record = self._draw.pick(state, noise, params[:, channel])
            records.append(record)
            levels = keep_known(levels, level, pixels, channel)
        x = self._spec.to_float(levels).astype(self._dtype)
        return (cache, x), x, levels, state, stacked(records)

    def end(self, rows: Any, left: Any, memos: Any) -> Any:
        """The cache, and the row that is now above."""
        return left[0], memos.swapaxes(0, 1)


def recall(module: nn.Module, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """What the module remembers under that name; zeros if nothing yet."""
    value: Array | None = module.get_variable("cache", name)
    return jnp.zeros(shape, dtype) if value is None else value


def remember(module: nn.Module, name: str, value: Any) -> None:
    """Keeps it in the module's cache."""
    module.put_variable("cache", name, value)


def at_column(context: Float[Array, "b w f"], column: Int[Array, ""]) -> Float[Array, "b f"]:
    """That column of what a row remembers, [b w f] -> [b f]."""
    return lax.dynamic_index_in_dim(context, column, 1, keepdims=False)
