"""What models share whose latents have parts, each Gaussian given the part above it: how they are
drawn, what a draw weighs, and noise space."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxgen.distributions.normal import kl_normal, normal_like, normal_log_prob
from jaxgen.model import Batch
from jaxgen.models.latent.draws import Draw, Terms, Training
from jaxgen.models.latent.gaussian import Gaussian
from jaxgen.models.latent.with_decoder import WithDecoder
from jaxgen.optim.net import Variables


@dataclass(frozen=True)
class Hierarchy(WithDecoder):
    """Latents in parts; p and q of each are Gaussians, given the parts above. A model gives both,
    and p(x | z), z being the part next to x."""

    @property
    @abstractmethod
    def closed(self) -> int:
        """How many latents, from the topmost on, have their KL in closed form: those of whose part
        q knows what p knows."""

    @abstractmethod
    def posterior_of(
        self,
        noise: Float[Array, "b z"],
        variables: Variables,
        batch: Batch,
        training: Training | None,
    ) -> Draw:
        """What noise becomes under q(z | x), and the Gaussians that it was given to."""

    @abstractmethod
    def prior_of(
        self, z: Float[Array, "b z"], variables: Variables, training: Training | None = None
    ) -> Gaussian:
        """p of every latent, given what it is drawn after, as z has that."""

    def parts(self, z: Float[Array, "b z"]) -> list[Float[Array, "b z"]]:
        """The parts of z, the lowest first."""
        return jnp.split(z, np.cumsum(self.groups)[:-1], -1)[::-1]

    def joined(self, parts: Sequence[Any]) -> Any:
        """All parts as one, the topmost first."""
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, -1), *parts[::-1])

    def infer(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        training: Training | None = None,
    ) -> Draw:
        noise = normal_like(key, batch["index"], (sum(self.groups),))
        return self.posterior_of(noise, variables, batch, training)

    def score(
        self, variables: Variables, draw: Draw, batch: Batch, training: Training | None = None
    ) -> Terms:
        """The KL of the `closed` latents is in closed form, given those before each as z has them,
        where p knows these; it is estimated by z for the others."""
        log_px = self.log_px(variables, self.parts(draw.z)[0], batch, training)
        p, q = self.prior_of(draw.z, variables, training), draw.q
        log_ratio = normal_log_prob(draw.z, *p) - normal_log_prob(draw.z, *q)
        kl = kl_normal(q.mean, q.logvar, p.mean, p.logvar)
        if self.closed < sum(self.groups):
            kl = jnp.where(jnp.arange(sum(self.groups)) < self.closed, kl, -log_ratio)
        return Terms(log_px, kl, log_ratio.sum(-1))

    def posterior_mean(self, variables: Variables, batch: Batch) -> Float[Array, "b z"]:
        """The noise of every part's mean, given the means of the parts that it is drawn after."""
        zero = jnp.zeros((len(batch["x"]), sum(self.groups)))
        z = self.posterior_of(zero, variables, batch, None).z
        return self.prior_of(z, variables).noise(z)
