"""What all latent-variable models share: the bounds, the train step, samples and inspection."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.abilities import Bounds, Embeds, Encodes, Generates
from jaxgen.distributions.normal import normal_like
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import (
    Batch,
    Inspection,
    Metric,
    Metrics,
    Request,
    example_keys,
    labels_or_all,
    without_label,
)
from jaxgen.models.latent.descent import Descends
from jaxgen.models.latent.draws import (
    Draw,
    Estimator,
    Terms,
    Training,
    kl_with_free_bits,
    terms_of,
    weighted,
)
from jaxgen.optim.net import NetState, Precision, Variables, create, create_state

NATS = "nats per image"


@dataclass(frozen=True)
class LatentVariable(Descends, Generates, Encodes, Embeds, Bounds):
    """p(x) = ∫ p(x | z) p(z) dz, bounded from below with the help of q(z | x).

    What users see of z is in noise space: N(0, I) under the prior. A model gives the `groups` of z,
    its `network`, how z is drawn given x (`infer`) and weighed (`score`), z given x
    (`posterior_mean`), and x given z (`decode`, `sample_x`).
    """

    beta: float = 1.0
    """Weight of the KL in the training loss (Higgins et al. 2017); evaluation ignores it."""
    warmup: int = 0
    """Steps over which beta rises linearly to its value, so that fewer latents are given up
    early (Sønderby et al. 2016, arXiv:1602.02282); 0 = none."""
    free_bits: float = 0.0
    """Nats of KL that each latent may have at no cost in training, on average over the batch
    (Kingma et al. 2016, arXiv:1606.04934), so that fewer latents are given up."""
    k: int = 1
    """Draws of z per example: what is trained is L_k, the importance-weighted bound of that many
    (Burda et al. 2016, arXiv:1509.00519)."""
    estimator: Estimator = "reparam"
    """How the gradient of the bound is estimated. reparam: through z and its density; stl: through
    z alone (Roeder et al. 2017), without noise where q is the posterior, and biased for several
    draws; dreg: the same without that bias (Tucker et al. 2019)."""
    precision: Precision = "float32"
    """What the networks compute in while training. Parameters, losses and statistics stay float32,
    and so do evaluation and sampling."""

    clock: ClassVar = ("warmup",)
    only: ClassVar = {
        "warmup": Only("without a `beta` above 0", lambda model: model.beta > 0),
        "free_bits": Only("without `k`=1 and `estimator`=reparam", lambda model: not model.weighs),
    }
    estimators: ClassVar[tuple[Estimator, ...]] = ("reparam",)
    """Those that the model has."""
    metrics: ClassVar = {
        "nll": Metric("negative log-likelihood", NATS, "lower", likelihood=True),
        "elbo": Metric("ELBO", NATS, "higher"),
        "reconstruction": Metric("reconstruction, -log p(x | z)", NATS, "lower"),
        "kl": Metric("KL(q(z | x) || p(z))", NATS),
    }
    monitor: ClassVar = "nll"

    @property
    @abc.abstractmethod
    def network(self) -> nn.Module:
        """The module of all parameters, which is called with (x floats [b h w c], label)."""

    @abc.abstractmethod
    def infer(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        training: Training | None = None,
    ) -> Draw:
        """Draws z from q(z | x), once per example; None = evaluation."""

    @abc.abstractmethod
    def score(
        self, variables: Variables, draw: Draw, batch: Batch, training: Training | None = None
    ) -> Terms:
        """Weighs what `infer` drew."""

    @abc.abstractmethod
    def posterior_mean(self, variables: Variables, batch: Batch) -> Float[Array, "b z"]:
        """E[z | x] under q, in noise space."""

    @abc.abstractmethod
    def sample_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        temperature: float | Array,
    ) -> Shaped[Array, "b h w c"]:
        """Draws x from p(x | z), each by its own key."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raises UserError where the model's own fields cannot be."""

    def checks(self) -> None:
        if self.warmup < 0 or self.beta < 0:
            raise UserError("`warmup` and `beta` must not be negative")
        if self.k < 1:
            raise UserError(f"`k` must be at least 1; got {self.k}")
        if self.free_bits < 0:
            raise UserError(f"`free_bits` must not be negative; got {self.free_bits}")
        if self.free_bits and self.accumulate > 1:
            raise UserError("`free_bits` are of the whole batch: set `accumulate`=1")
        if self.estimator not in self.estimators:
            have = " or ".join(self.estimators)
            raise UserError(f"`estimator`={self.estimator} is not one of this model's: {have}")
        self.check()

    @property
    def kind(self) -> str:
        return "the ELBO"

    def init(self, key: Key[Array, ""], batch: Batch) -> NetState:
        x = self.spec.to_float(batch["x"])
        return create_state(create(self.network, self.optimizer, key, x, batch.get("label")))

    def loss(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None,
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        """Minus the bound, with the KL weighted by beta; what is measured is the bound itself."""
        beta = self.beta * jnp.minimum(1.0, (step + 1) / max(self.warmup, 1))
        key_z, key_dropout = jax.random.split(key)
        training = Training(example_keys(key_dropout, batch["index"]), axis_name)
        if self.weighs:
            bound, values, changed = weighted(self, key_z, variables, batch, training, beta)
            return -bound.mean(), (jax.tree.map(jnp.mean, values), changed)
        terms = terms_of(self, key_z, variables, batch, training)
        log_px, kl = terms.log_px.mean(), terms.kl.sum(-1).mean()
        cost = kl_with_free_bits(terms.kl, self.free_bits, axis_name) if self.free_bits else kl
        metrics = {"elbo": log_px - kl, "reconstruction": -log_px, "kl": kl}
        return beta * cost - log_px, (metrics, terms.changed)

    @property
    def weighs(self) -> bool:
        """Whether the objective is made of drawn weights, instead of a KL in closed form."""
        return self.k > 1 or self.estimator != "reparam"

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        """The NLL is bounded by L_k, of as many draws as training has; for one draw, by the ELBO
        with the KL as `score` has it."""
        # Two splits, although one would do: the noise of the published figures.
        key_z = jax.random.split(jax.random.split(key)[0])[0]
        if self.k > 1:
            return weighted(self, key_z, state.ema, batch)[1]
        terms = terms_of(self, key_z, state.ema, batch)
        log_px, kl = terms.log_px, terms.kl.sum(-1)
        return {"nll": kl - log_px, "elbo": log_px - kl, "reconstruction": -log_px, "kl": kl}

    def log_weight(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Float[Array, " b"]:
        terms = terms_of(self, key, state.ema, batch)
        return terms.log_px + terms.log_ratio

    def draw_latents(
        self,
        key: Key[Array, ""],
        state: NetState,
        num: int,
        label: Int[Array, " num"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "num z"]:
        return normal_like(key, start + jnp.arange(num), (sum(self.groups),))

    def sample(
        self, key: Key[Array, ""], state: NetState, num: int, request: Request = Request()
    ) -> Shaped[Array, "num h w c"]:
        """z from the prior and x from p(x | z); temperature scales the noise of both."""
        label, temperature, start = request
        key_z, key_x = jax.random.split(key)
        z = temperature * self.draw_latents(key_z, state, num, label, start)
        label = labels_or_all(self.spec, label, num, start)
        keys = example_keys(key_x, start + jnp.arange(num))
        return self.sample_x(keys, state.ema, z, label, temperature)

    def encode(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Float[Array, "b z"]:
        return self.posterior_mean(state.ema, batch)

    def embed(self, state: NetState, batch: Batch) -> Float[Array, "b z"]:
        """The posterior mean, of a conditional model averaged over all classes."""
        mean = lambda batch: self.posterior_mean(state.ema, batch)  # noqa: E731
        return without_label(mean, self.spec, batch)

    def inspect(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Inspection:
        """How much each latent tells of data, and each layer of them."""
        kl = terms_of(self, key, state.ema, batch).kl.mean(0)
        numbers = {"latents": jnp.asarray(sum(self.groups))}
        if len(self.groups) > 1:
            layers = jnp.split(kl, np.cumsum(self.groups)[:-1])
            for i, layer in enumerate(layers):
                numbers[f"KL of layer {len(layers) - i} (nats)"] = layer.sum()
        return Inspection(numbers, {}, {"KL of each latent (nats)": kl[None, None, None]}, kl)
