"""VAE whose posterior is an inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934)."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.causal.flow import InverseAutoregressiveFlow
from jaxgen.distributions.normal import normal_like, normal_log_prob
from jaxgen.errors import UserError
from jaxgen.fields import Repeats
from jaxgen.model import Batch
from jaxgen.models.latent.draws import Draw, Terms, Training
from jaxgen.models.latent.one_layer import EncoderDecoderNet, OneLayer
from jaxgen.optim.net import Variables, apply_in


class IAFNet(nn.Module, kw_only=True):
    """Encoder and decoder, and the flow from the encoder's Gaussian to q(z | x)."""

    autoencoder: EncoderDecoderNet
    flow: InverseAutoregressiveFlow
    context: int

    def setup(self) -> None:
        nn.share_scope(self, self.autoencoder)
        self.to_context = nn.Dense(self.context)

    def encode(
        self,
        x: Float[Array, "b h w c"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"], Float[Array, "b f"]]:
        """Mean and log variance of what the flow begins with, and its context; x in [0, 1]."""
        h = self.autoencoder.encoder(x, label, keys)
        return *self.autoencoder.gaussian(h), self.to_context(h)

    def move(
        self, z: Float[Array, "b z"], context: Float[Array, "b f"]
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """See `InverseAutoregressiveFlow`."""
        return self.flow(z, context)

    def decode(
        self,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w c p"]:
        """Parameters of p(x | z)."""
        return self.autoencoder.decode(z, label, keys)

    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None
    ) -> Float[Array, "b h w c p"]:
        mean, _, context = self.encode(x, label)
        return self.decode(self.move(mean, context)[0], label)


@dataclass(frozen=True)
class IAF(OneLayer):
    """VAE whose posterior is what a flow of masked layers makes of a diagonal Gaussian.

    It fits posteriors whose latents depend on each other.
    """

    flows: Repeats = 2
    """Steps of the flow."""
    flow_hidden: tuple[int, ...] = (128,)
    """Widths of the masked layers of each step."""
    context: int = 64
    """Numbers that the encoder gives to every step."""

    def check_posterior(self) -> None:
        if min(self.flows, self.context, *self.flow_hidden, len(self.flow_hidden)) < 1:
            raise UserError(
                "`flows` and `context` must be at least 1, and `flow_hidden` one or more positive "
                "widths"
            )

    @property
    def network(self) -> IAFNet:
        flow = InverseAutoregressiveFlow(self.flows, self.flow_hidden)
        return IAFNet(autoencoder=self.autoencoder, flow=flow, context=self.context)

    def infer(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        training: Training | None = None,
    ) -> Draw:
        """z, and log q(z | x) by latent: the noise's, less the scales that it was given."""
        mean, logvar, context = self.encoded(variables, batch, training)
        noise = normal_like(key, batch["index"], (self.latents,))
        first = mean + jnp.exp(0.5 * logvar) * noise
        precision = "float32" if training is None else self.precision
        z, log_scale = apply_in(precision, self.network, variables, first, context, method="move")
        return Draw(z, normal_log_prob(noise, 0.0, 0.0) - 0.5 * logvar - log_scale)

    def score(
        self, variables: Variables, draw: Draw, batch: Batch, training: Training | None = None
    ) -> Terms:
        """The KL has no closed form: it is estimated by z."""
        kl = draw.q - normal_log_prob(draw.z, 0.0, 0.0)
        return Terms(self.log_px(variables, draw.z, batch, training), kl, -kl.sum(-1))

    def posterior_mean(self, variables: Variables, batch: Batch) -> Float[Array, "b z"]:
        """What the flow makes of the mean of its Gaussian: the mean of q itself has no closed
        form."""
        mean, _, context = self.encoded(variables, batch)
        return self.network.apply(variables, mean, context, method="move")[0]
