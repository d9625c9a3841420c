"""Draws of z given x, what they weigh, and the objectives that are made of them."""

from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.losses.bounds import doubly_reparameterized_bound, log_mean_exp
from jaxgen.model import Batch
from jaxgen.optim.net import Variables
from jaxgen.optim.update import mean_over

Estimator = Literal["reparam", "stl", "dreg"]


class Draw(NamedTuple):
    """z of q(z | x), one per example."""

    z: Float[Array, "b z"]
    q: Any
    """What q(z | x) is, such as its mean and variance: arrays [b ...]."""
    changed: Variables = {}
    """The collections that a training pass changed: BatchNorm's statistics, …"""


class Terms(NamedTuple):
    """What the bounds are made of, for one z per example; in nats."""

    log_px: Float[Array, " b"]
    """log p(x | z)."""
    kl: Float[Array, "b z"]
    """KL(q(z | x) || p(z)) by latent: in closed form where there is one, else estimated by z."""
    log_ratio: Float[Array, " b"]
    """log p(z) - log q(z | x) at z."""
    changed: Variables = {}
    """As that of `Draw`."""


class Training(NamedTuple):
    """What a training pass has and evaluation does not."""

    keys: Key[Array, " b"]
    """The keys of dropout, one for each example."""
    axis_name: str | None
    """The mapped axis over which statistics of the batch are taken, if there is one."""


class Inference(Protocol):
    """What the objectives ask of a model."""

    @property
    def k(self) -> int:
        """Draws of z per example."""

    @property
    def estimator(self) -> Estimator:
        """How the gradient is estimated."""

    def infer(
        self, key: Key[Array, ""], variables: Variables, batch: Batch, training: Training | None
    ) -> Draw:
        """Draws z from q(z | x), once per example."""

    def score(
        self, variables: Variables, draw: Draw, batch: Batch, training: Training | None
    ) -> Terms:
        """Weighs what `infer` drew."""


def terms_of(
    model: Inference,
    key: Key[Array, ""],
    variables: Variables,
    batch: Batch,
    training: Training | None = None,
) -> Terms:
    """The terms of one z per example, and all collections that changed."""
    draw = model.infer(key, variables, batch, training)
    terms = model.score({**variables, **draw.changed}, draw, batch, training)
    return terms._replace(changed={**draw.changed, **terms.changed})


def kl_with_free_bits(
    kl: Float[Array, "b z"], free_bits: float, axis_name: str | None
) -> Float[Array, ""]:
    """The mean KL, in which a latent that has less than `free_bits`, on average over the batch,
    counts as having that much (Kingma et al. 2016, arXiv:1606.04934, section 5.2)."""
    mine = kl.mean(0)
    whole = mean_over(axis_name, jax.lax.stop_gradient(mine))
    return jnp.where(whole > free_bits, mine, free_bits).sum()


def weighted(
    model: Inference,
    key: Key[Array, ""],
    variables: Variables,
    batch: Batch,
    training: Training | None = None,
    beta: float | Array = 1.0,
) -> tuple[Float[Array, " b"], dict[str, Array], Variables]:
    """L_k of each example, whose KL is weighted by beta, with the chosen estimator of its gradient;
    what else is measured of each example; and the collections that changed."""
    infer = lambda key: model.infer(key, variables, batch, training)  # noqa: E731
    draws = jax.vmap(infer)(jax.random.split(key, model.k))
    q = draws.q if model.estimator == "reparam" else jax.lax.stop_gradient(draws.q)

    def log_weight(variables: Variables, z: Float[Array, "k b z"]) -> tuple[Array, Terms]:
        score = lambda z, q: model.score(variables, Draw(z, q), batch, training)  # noqa: E731
        terms = jax.vmap(score)(z, q)
        return terms.log_px + beta * terms.log_ratio, terms

    changed = jax.tree.map(lambda c: c.mean(0), draws.changed)
    variables = {**variables, **changed}
    if model.estimator == "dreg":
        bound, terms = doubly_reparameterized_bound(log_weight, variables, draws.z)
    else:
        log_w, terms = log_weight(variables, draws.z)
        bound = log_mean_exp(log_w)
    log_px, kl = terms.log_px.mean(0), terms.kl.sum(-1).mean(0)
    nll = -log_mean_exp(terms.log_px + terms.log_ratio)
    values = {"nll": nll, "elbo": log_px - kl, "reconstruction": -log_px, "kl": kl}
    changed |= jax.tree.map(lambda c: c.mean(0), terms.changed)
    return bound, jax.lax.stop_gradient(values), changed
