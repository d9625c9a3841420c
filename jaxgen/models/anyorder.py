"""What NADE and MADE share: random orders, ensembles over them, and how they are sampled.

Their networks know nothing of where pixels lie, so any order is as good as another. A network
takes the pixels of its input from the first to the last; for another order its input is laid in
that order, and so are those of its parameters that belong to pixels. Orders therefore share all
parameters (Uria et al. 2014, arXiv:1310.1757; Germain et al. 2015, arXiv:1502.03509, section 4.2).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxgen import orders
from jaxgen.errors import UserError
from jaxgen.likelihoods import Likelihood
from jaxgen.model import Batch, ImageSpec, example_keys
from jaxgen.models.autoregressive import Autoregressive
from jaxgen.net import NetState, Params, Precision
from jaxgen.sampling import Draw, Pixels, Stepper, keep_known, stacked

PIXELWISE = ("inputs", "outputs", "biases")
"""The parameters whose leading axis is that of pixels."""


class SubpixelNet(nn.Module):
    """A network that is run, to sample, from sub-pixel to sub-pixel with one carry [b …].

    A subclass offers the three methods that raise here. Parameters of pixels are named in
    `PIXELWISE`: what each sub-pixel gives to f hidden units, and what it takes of g of them.
    """

    spec: ImageSpec
    dropout: float
    likelihood: Likelihood

    def pixelwise(self, into: int, out: int) -> tuple[Array, Array, Array]:
        """Makes the parameters of `PIXELWISE`, for so many hidden units."""
        spec, normal = self.spec, nn.initializers.normal
        pixels, p = (spec.height * spec.width, spec.channels), self.likelihood.num_params
        return (
            self.param("inputs", normal(spec.dims**-0.5), (*pixels, into)),
            self.param("outputs", normal(out**-0.5), (*pixels, out, p)),
            self.param("biases", nn.initializers.zeros, (*pixels, p)),
        )

    def begin(self, batch: int, label: Int[Array, " b"] | None) -> Any:
        """The carry before the first sub-pixel."""
        raise NotImplementedError

    def weights(self) -> Any:
        """What `emit` and `absorb` need of each sub-pixel, leading axes [h*w c]."""
        raise NotImplementedError

    def emit(self, carry: Any, weights: Any) -> tuple[Any, Float[Array, "b p"]]:
        """The parameters of the sub-pixel whose weights these are, and the carry."""
        raise NotImplementedError

    def absorb(self, carry: Any, weights: Any, v: Float[Array, " b"]) -> Any:
        """The carry after that sub-pixel, `v` its level in [-1, 1]."""
        raise NotImplementedError

    def stepper(self, spec: ImageSpec, draw: Draw, label: Int[Array, " b"] | None) -> Stepper:
        """What the cached sampler runs; the module must be bound."""
        return _Steps(self, spec, draw, label)


class _Steps:
    """See `sampling.Stepper`: the carry goes on from row to row; a column gets its weights."""

    def __init__(self, net: SubpixelNet, spec: ImageSpec, draw: Draw, label: Array | None) -> None:
        self._net, self._spec, self._draw, self._label = net, spec, draw, label
        by_row = lambda w: w.reshape(spec.height, spec.width, *w.shape[1:])  # noqa: E731
        self._weights = jax.tree.map(by_row, net.weights())

    def start(self, batch: int) -> Any:
        """The carry, and the number of the row."""
        return self._net.begin(batch, self._label), jnp.int32(0)

    def begin(self, rows: Any) -> tuple[Any, Any]:
        """See `Stepper`."""
        return rows, jax.tree.map(lambda w: w[rows[1]], self._weights)

    def pixel(
        self, left: Any, above: Any, pixels: Pixels, state: Any
    ) -> tuple[Any, Any, Array, Any, Any]:
        """See `Stepper`; the row keeps nothing."""
        carry, row = left
        levels = jnp.where(pixels.keep, pixels.given, 0).astype(jnp.uint8)
        records = []
        for channel in range(self._spec.channels):
            weights = jax.tree.map(lambda w: w[channel], above)  # noqa: B023
            carry, params = self._net.emit(carry, weights)
            state, level, record = self._draw.pick(state, pixels.noise[channel], params)
            records.append(record)
            levels = keep_known(levels, level, pixels, channel)
            v = self._spec.to_float(levels[:, channel])
            carry = self._net.absorb(carry, weights, v)
        return (carry, row), (), levels, state, stacked(records)

    def end(self, rows: Any, left: Any, kept: Any) -> Any:
        """See `Stepper`."""
        carry, row = left
        return carry, row + 1


@dataclass(frozen=True)
class AnyOrder(Autoregressive):
    """An autoregressive model that may have random orders, and several: then its density is the
    mean of those of its components, a proper mixture."""

    random_orders: int = 0
    """Random orders of the pixels in place of `order`. Several are an ensemble: each step trains
    one of them, evaluation averages the densities of all, and each image is sampled in one."""
    order_seed: int = 0
    """Of the random orders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.random_orders, self.order_seed) < 0:
            raise UserError("--…random_orders and order_seed must not be negative")
        if self.random_orders and self.order != "raster":
            raise UserError(
                f"--…random_orders are in place of --…order={self.order}: give one of them"
            )

    @property
    def convolutional(self) -> bool:
        return False

    @property
    def one_order(self) -> bool:
        return self.components == 1 and not self.random_orders

    @property
    def components(self) -> int:
        """Of the mixture; component k takes the pixels in the order k modulo the orders."""
        return max(1, self.random_orders)

    def pixel_order(self, component: int | Array) -> Int[Array, "h*w"] | None:
        """That component's order of the pixels, where it is a random one."""
        if not self.random_orders:
            return None
        pixels = self.spec.height * self.spec.width
        each = [orders.permutation(pixels, self.order_seed, k) for k in range(self.random_orders)]
        return jnp.asarray(np.stack(each))[component % self.random_orders]

    def component(self, params: Params, component: int | Array) -> Params:
        """The parameters of that component's network, whose input is laid in its order."""
        order = self.pixel_order(component)
        if order is None:
            return params
        return {**params, **{name: params[name][order] for name in PIXELWISE}}

    def log_prob(
        self,
        params: Params,
        batch: Batch,
        keys: Key[Array, " b"] | None = None,
        precision: Precision = "float32",
        component: int | Array = 0,
    ) -> Float[Array, "b h w c"]:
        """log p of every sub-pixel given those before it, of one component."""
        order, params = self.pixel_order(component), self.component(params, component)
        if order is None:
            return super().log_prob(params, batch, keys, precision)
        laid = {**batch, "image": orders.permute(batch["image"], order)}
        log_p = super().log_prob(params, laid, keys, precision)
        return orders.permute(log_p, jnp.argsort(order))

    def training_log_prob(
        self, key: Key[Array, ""], params: Params, batch: Batch
    ) -> Float[Array, "b h w c"]:
        """`log_prob` with dropout of the step's component, drawn from `key` alone: one for the
        whole batch, so that masks and orders apply to weights, once, and not to each example."""
        key, key_component = jax.random.split(key)
        component = jax.random.randint(key_component, (), 0, self.components)
        keys = example_keys(key, batch["index"])
        return self.log_prob(params, batch, keys, self.precision, component)

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        def log_p(component: Array) -> Float[Array, " b"]:
            return self.log_prob(state.ema, batch, component=component).sum((1, 2, 3))

        each = lax.map(log_p, jnp.arange(self.components))
        return {"nll": jnp.log(self.components) - jax.nn.logsumexp(each, 0)}

    def sample(
        self,
        key: Key[Array, ""],
        state: NetState,
        num: int,
        label: Int[Array, " num"] | None = None,
        temperature: float | Array = 1.0,
        start: int | Array = 0,
    ) -> UInt8[Array, "num h w c"]:
        """Each image is of one component, which (key, number of the image) draws.

        All components draw all images, one after another, and each image is kept from its own.
        """
        image = jnp.zeros((num, *self.spec.shape), jnp.uint8)
        known = jnp.zeros(image.shape, bool)
        # No sub-pixel has that number: its noise is that of the component.
        at = jax.vmap(jax.random.fold_in, (0, None))
        keys = at(example_keys(key, start + jnp.arange(num)), self.spec.dims)
        mine = jax.vmap(lambda k: jax.random.randint(k, (), 0, self.components))(keys)

        def step(kept: Array, component: Array) -> tuple[Array, None]:
            drawn = self.complete(key, state, image, known, label, temperature, start, component)
            return jnp.where((mine == component)[:, None, None, None], drawn, kept), None

        return lax.scan(step, image, jnp.arange(self.components))[0]

    def complete(
        self,
        key: Key[Array, ""],
        state: NetState,
        image: UInt8[Array, "b h w c"],
        known: Array,
        label: Int[Array, " b"] | None = None,
        temperature: float | Array = 1.0,
        start: int | Array = 0,
        component: int | Array = 0,
    ) -> UInt8[Array, "b h w c"]:
        """See `Autoregressive.complete`; in the order of one component, the first if none is
        named."""
        order = self.pixel_order(component)
        state = dataclasses.replace(state, ema=self.component(state.ema, component))
        if order is None:
            return super().complete(key, state, image, known, label, temperature, start)
        image, known = orders.permute(image, order), orders.permute(known, order)
        drawn = super().complete(key, state, image, known, label, temperature, start)
        return orders.permute(drawn, jnp.argsort(order))

    def facts(self) -> dict[str, str]:
        found = super().facts()
        if self.components == 1:
            return found
        return {
            **found,
            "density": f"the mean of {self.components} densities, which share all parameters; "
            "one is trained a step, drawn at random; completions are of the first",
            "sampling": f"{found['sampling']}, for each of the {self.components} components",
        }
