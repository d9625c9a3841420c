"""What NADE and MADE share: random orders, ensembles over them, and how they are sampled.

Their networks know nothing of where pixels lie, so any order is as good as another. A network
takes the pixels of its input from the first to the last; for another order its input is laid in
that order, and so are those of its parameters that belong to pixels. Orders therefore share all
parameters (Uria et al. 2014, arXiv:1310.1757; Germain et al. 2015, arXiv:1502.03509, section 4.2).
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxgen.causal import orders
from jaxgen.causal.subpixel import PIXELWISE
from jaxgen.errors import UserError
from jaxgen.model import Batch, example_keys
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.optim.net import NetState, Params, Precision


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
