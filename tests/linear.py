"""A linear latent-variable model, whose exact likelihood is a closed form: probabilistic PCA
(Tipping & Bishop 1999), able to do all that latents are good for."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from jaxgen.abilities import Bounds, Encodes, Generates, Watches
from jaxgen.distributions.normal import normal_like, normal_log_prob
from jaxgen.model import Inspection, Metric, Model, Request, labels_or_all
from jaxgen.optim.net import Net, NetState, create_state
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net

METRICS = {
    "nll": Metric("negative log-likelihood", "nats per image", "lower", likelihood=True),
    "elbo": Metric("evidence bound", "nats per image", "higher", "both terms", "their sum"),
    "error": Metric("squared error", "per example", "lower", "both terms", "the error"),
}


@dataclass(frozen=True)
class Linear(Model[NetState], Generates, Encodes, Bounds, Watches):
    """x = W z + b(label) + noise, z and noise standard normal."""

    latents: int = 2
    """Dimensions of z."""
    slack: float = 1.0
    """The posterior's deviation over the true one; 1 = every draw has the weight p(x)."""
    optimizer: Optimizer = Optimizer(learning_rate=0.01)
    """The optimizer of W and b."""

    metrics: ClassVar = METRICS
    monitor: ClassVar = "nll"
    kind: ClassVar = "the plain bound"

    @property
    def groups(self):
        return (self.latents,)

    def init(self, key, batch):
        w = jax.random.normal(key, (self.spec.dims, self.latents)) / self.latents**0.5
        b = jnp.zeros((max(self.spec.num_classes, 1), self.spec.dims))
        params = {"w": w, "b": b, "log_noise": jnp.float32(-0.7)}
        return create_state(Net({"params": params}, self.optimizer.make().init(params)))

    def _flat(self, params, batch):
        """x without its bias, [b dims]."""
        x = self.spec.to_float(batch["x"]).reshape(len(batch["x"]), -1)
        label = batch.get("label", jnp.zeros(len(x), jnp.int32))
        return x - params["b"][label]

    def posterior(self, params, batch):
        """The true posterior: means [b z], and a root of its covariance [z z]."""
        precision = jnp.exp(-2 * params["log_noise"])
        inner = params["w"].T @ params["w"] * precision + jnp.eye(self.latents)
        covariance = jnp.linalg.inv(inner)
        mean = precision * self._flat(params, batch) @ params["w"] @ covariance
        return mean, jnp.linalg.cholesky(covariance)

    def log_prob(self, params, batch):
        """log p(x), exactly: float64 [b]."""
        w = np.asarray(params["w"], np.float64)
        covariance = w @ w.T + np.exp(2 * float(params["log_noise"])) * np.eye(self.spec.dims)
        return multivariate_normal(cov=covariance).logpdf(self._flat(params, batch))

    def _log_weight(self, key, params, batch):
        mean, root = self.posterior(params, batch)
        noise = normal_like(key, batch["index"], (self.latents,))
        z = mean + self.slack * noise @ root.T
        log_q = normal_log_prob(noise, 0.0, 0.0).sum(-1) - jnp.log(jnp.diag(root)).sum()
        log_q -= self.latents * jnp.log(self.slack)
        error = self._flat(params, batch) - z @ params["w"].T
        log_px = normal_log_prob(error, 0.0, 2 * params["log_noise"]).sum(-1)
        return log_px + normal_log_prob(z, 0.0, 0.0).sum(-1) - log_q

    def log_weight(self, key, state, batch):
        return self._log_weight(key, state.ema["params"], batch)

    def train_step(self, key, state, batch, step, axis_name=None):
        def loss(variables, batch):
            elbo = self._log_weight(key, variables["params"], batch).mean()
            return -elbo, ({"elbo": elbo}, {})

        return train_net(self.optimizer, 0.9, state, loss, batch, step, axis_name)

    def eval_step(self, key, state, batch):
        params = state.ema["params"]
        elbo = self._log_weight(key, params, batch)
        mean, _ = self.posterior(params, batch)
        error = jnp.square(self._flat(params, batch) - mean @ params["w"].T).sum(-1)
        return {"nll": -elbo, "elbo": elbo, "error": error}

    def draw_latents(self, key, state, num, label=None, start=0):
        return normal_like(key, start + jnp.arange(num), (self.latents,))

    def decode(self, key, state, z, label=None, start=0):
        params = state.ema["params"]
        label = jnp.zeros(len(z), jnp.int32) if label is None else label
        return (z @ params["w"].T + params["b"][label]).reshape(-1, *self.spec.shape)

    def encode(self, key, state, batch):
        return self.posterior(state.ema["params"], batch)[0]

    def sample(self, key, state, num, request=Request()):
        label = labels_or_all(self.spec, request.label, num, request.start)
        z = request.temperature * self.draw_latents(key, state, num, None, request.start)
        return self.spec.from_float(self.decode(key, state, z, label))

    def inspect(self, key, state, batch):
        picture = batch["x"][:4].reshape(2, 2, *self.spec.shape)
        maps = self.spec.to_float(batch["x"][:2])[..., 0][None]
        return Inspection(
            {"examples": jnp.float32(len(batch["x"]))}, {"seen": picture}, {"map": maps}
        )

    def verdict(self, means):
        return f"the bound is {means['elbo']:.1f}" if "elbo" in means else None
