"""What NADE and MADE share: random orders, and an ensemble over them.

Their networks know nothing of where pixels lie, so any order is as good as another. A network
takes the pixels of its input from the first to the last; for another order its input is laid in
that order, and so are those of its parameters that belong to pixels. Orders therefore share all
parameters (Uria et al. 2014, arXiv:1310.1757; Germain et al. 2015, arXiv:1502.03509, section 4.2).
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxgen.causal import orders
from jaxgen.causal.subpixel import PIXELWISE
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.optim.net import Params, Variables


@dataclass(frozen=True)
class AnyOrder(Autoregressive):
    """An autoregressive model that may have random orders, and several: then its density is the
    mean of those of its components, a proper mixture.

    Component k takes the pixels in the order k modulo the orders, and has the connections k divided
    by the orders.
    """

    random_orders: int = 0
    """Random orders of the pixels in place of `order`. Several are an ensemble: each step trains
    one of them, evaluation averages the densities of all, and each image is sampled in one."""
    order_seed: int = 0
    """Chooses the random orders."""

    clock: ClassVar = ("order_seed",)
    only: ClassVar = {
        "order_seed": Only("without `random_orders`", lambda model: model.random_orders > 0)
    }

    @property
    def connections(self) -> int:
        """How many ways there are to connect the hidden units, for each order."""
        return 1

    def connected(self, params: Params, way: int | Array) -> Params:
        """The parameters of the network that is connected in that way."""
        return params

    def check_orders(self) -> None:
        """Raises UserError where random orders cannot be."""
        if min(self.random_orders, self.order_seed) < 0:
            raise UserError("`random_orders` and `order_seed` must not be negative")
        if self.random_orders and self.order != "raster":
            raise UserError(
                f"`random_orders` are in place of `order`={self.order}: give one of them"
            )

    @property
    def convolutional(self) -> bool:
        return False

    @property
    def num_components(self) -> int:
        return max(1, self.random_orders) * self.connections

    def pixel_order(self, component: int | Array) -> Int[Array, " h*w"] | None:
        if not self.random_orders:
            return None
        pixels = self.spec.height * self.spec.width
        each = [orders.permutation(pixels, self.order_seed, k) for k in range(self.random_orders)]
        return jnp.asarray(np.stack(each))[component % self.random_orders]

    def of_component(self, variables: Variables, component: int | Array) -> Variables:
        params, order = variables["params"], self.pixel_order(component)
        if order is not None:
            params = {**params, **{name: params[name][order] for name in PIXELWISE}}
        return {"params": self.connected(params, component // max(1, self.random_orders))}

    def step_component(self, key: Key[Array, ""]) -> tuple[Key[Array, ""], int | Array]:
        """Drawn from `key` alone: one for the whole batch, so that masks and orders apply to
        weights, once, and not to each example."""
        key, key_component = jax.random.split(key)
        return key, jax.random.randint(key_component, (), 0, self.num_components)
