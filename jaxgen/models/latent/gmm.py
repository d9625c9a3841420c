"""A mixture of Gaussians, trained by gradient."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.abilities import Embeds, Samples
from jaxgen.errors import UserError
from jaxgen.model import Batch, Metric, Metrics, Request, example_keys
from jaxgen.models.latent.descent import Descends
from jaxgen.optim.net import Net, NetState, Variables, create_state
from jaxgen.optim.optimizer import Optimizer

FULL = 32
"""Dimensions up to which covariances are full; beyond, they are diagonal."""


@dataclass(frozen=True)
class GMM(Descends, Samples, Embeds):
    """A mixture of Gaussians: the exact density of real numbers, trained by gradient.

    Covariances are full up to 32 dimensions. It is what EM fits, by the same trainer as all others.
    """

    components: int = 16
    """Gaussians of the mixture."""
    optimizer: Optimizer = Optimizer(learning_rate=1e-2)
    """How weights, means and covariances are trained."""

    metrics: ClassVar = {
        "nll": Metric("negative log-likelihood", "nats per image", "lower", likelihood=True)
    }
    monitor: ClassVar = "nll"

    def checks(self) -> None:
        if self.components < 1:
            raise UserError(f"`components` must be at least 1; got {self.components}")
        if self.spec.levels:
            raise UserError(
                f"a mixture of Gaussians is a density of real numbers, and the data has "
                f"{self.spec.levels} levels: use points, or arrays of floats, without --levels"
            )
        if self.spec.num_classes:
            raise UserError("a mixture is told no labels: leave --conditional out")

    def init(self, key: Key[Array, ""], batch: Batch) -> NetState:
        """Means are examples, each far from those chosen before it (Arthur & Vassilvitskii 2007,
        k-means++, of several draws the farthest); covariances are those of all of them."""
        x = batch["x"].reshape(len(batch["x"]), -1)
        dims, spread = x.shape[1], jnp.maximum(x.std(0), 1e-2)
        places = jax.random.randint(key, (self.components, 32), 0, len(x))
        chosen = x[places[:1, 0]]
        for drawn in places[1:]:
            apart = ((x[drawn][:, None] - chosen[None]) ** 2).sum(-1).min(1)
            chosen = jnp.concatenate([chosen, x[drawn[jnp.argmax(apart)]][None]])
        # Smaller than that of all, since each covers a part.
        width = jnp.log(spread / max(1.0, self.components ** (1 / dims)))
        params = {
            "logits": jnp.zeros(self.components),
            "mean": chosen,
            "log_diagonal": jnp.broadcast_to(-width, (self.components, dims)),
        }
        if dims <= FULL:
            params["below"] = jnp.zeros((self.components, dims * (dims - 1) // 2))
        return create_state(Net({"params": params}, self.optimizer.make().init(params)))

    def _precision_root(self, params: dict[str, Array]) -> Float[Array, "k d d"]:
        """L of each precision matrix L' L: lower triangular, of positive diagonal."""
        diagonal = jnp.exp(params["log_diagonal"])
        eye = jnp.eye(diagonal.shape[1])[None]
        row, column = np.tril_indices(diagonal.shape[1], -1)
        return (diagonal[:, :, None] * eye).at[:, row, column].set(params["below"])

    def log_joint(self, variables: Variables, x: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """log p(x, component), in nats."""
        params = variables["params"]
        centred = x.reshape(len(x), 1, -1) - params["mean"][None]
        if "below" in params:
            white = jnp.einsum("kde,bke->bkd", self._precision_root(params), centred)
        else:
            white = centred * jnp.exp(params["log_diagonal"])[None]
        log_p = -0.5 * (white**2 + jnp.log(2 * jnp.pi)).sum(-1)
        weights = jax.nn.log_softmax(params["logits"]) + params["log_diagonal"].sum(-1)
        return log_p + weights[None]

    def _nll(self, variables: Variables, batch: Batch) -> Float[Array, " b"]:
        return -jax.nn.logsumexp(self.log_joint(variables, batch["x"]), axis=-1)

    def loss(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None,
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        nll = self._nll(variables, batch).mean()
        return nll, ({"nll": nll}, {})

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        return {"nll": self._nll(state.ema, batch)}

    def sample(
        self, key: Key[Array, ""], state: NetState, num: int, request: Request = Request()
    ) -> Shaped[Array, "num h w c"]:
        """See `Samples`; temperature multiplies the distance from the component's mean."""
        params = state.ema["params"]

        def one(key: Key[Array, ""]) -> Float[Array, " d"]:
            key_k, key_x = jax.random.split(key)
            k = jax.random.categorical(key_k, params["logits"])
            noise = request.temperature * jax.random.normal(key_x, params["mean"].shape[1:])
            if "below" in params:
                root = self._precision_root(params)[k]
                noise = jax.scipy.linalg.solve_triangular(root, noise, lower=True)
            else:
                noise = noise * jnp.exp(-params["log_diagonal"][k])
            return params["mean"][k] + noise

        keys = example_keys(key, request.start + jnp.arange(num))
        return jax.vmap(one)(keys).reshape(num, *self.spec.shape)

    def embed(self, state: NetState, batch: Batch) -> Float[Array, "b k"]:
        """The probability of each component, given x."""
        return jax.nn.softmax(self.log_joint(state.ema, batch["x"]), -1)

    def facts(self) -> dict[str, str]:
        covariance = "full" if self.spec.dims <= FULL else "diagonal"
        return {"density": f"{self.components} Gaussians, {covariance} covariances"}
