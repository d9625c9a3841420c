"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114)."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.distributions.normal import kl_standard_normal, normal_like, normal_log_prob
from jaxgen.model import Batch
from jaxgen.models.latent.draws import Draw, Terms, Training
from jaxgen.models.latent.one_layer import EncoderDecoderNet, OneLayer
from jaxgen.optim.net import Variables


@dataclass(frozen=True)
class VAE(OneLayer):
    """Explicit density through a lower bound; Gaussian prior and diagonal Gaussian posterior."""

    estimators: ClassVar = ("reparam", "stl", "dreg")

    def check_posterior(self) -> None:
        pass

    @property
    def network(self) -> EncoderDecoderNet:
        return self.autoencoder

    def posterior(
        self, variables: Variables, batch: Batch, training: Training | None = None
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Mean and log variance of q(z | x)."""
        return self.encoded(variables, batch, training)

    def infer(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        training: Training | None = None,
    ) -> Draw:
        """z by reparameterization (section 2.4)."""
        mean, logvar = self.posterior(variables, batch, training)
        noise = normal_like(key, batch["index"], (self.latents,))
        return Draw(mean + jnp.exp(0.5 * logvar) * noise, (mean, logvar))

    def score(
        self, variables: Variables, draw: Draw, batch: Batch, training: Training | None = None
    ) -> Terms:
        """The KL in closed form (appendix B)."""
        z, (mean, logvar) = draw.z, draw.q
        log_px = self.log_px(variables, z, batch, training)
        log_ratio = normal_log_prob(z, 0.0, 0.0) - normal_log_prob(z, mean, logvar)
        return Terms(
            log_px=log_px,
            kl=kl_standard_normal(mean, logvar),
            log_ratio=log_ratio.sum(-1),
        )

    def posterior_mean(self, variables: Variables, batch: Batch) -> Float[Array, "b z"]:
        return self.posterior(variables, batch)[0]
