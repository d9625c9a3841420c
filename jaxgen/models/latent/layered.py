"""What models with several layers of latents share: the layers' inference and priors (Sønderby et
al. 2016, arXiv:1602.02282, and the plain bottom-up one of Burda et al. 2016, arXiv:1509.00519)."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxgen.distributions.normal import kl_normal, normal_like, normal_log_prob
from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Batch
from jaxgen.models.latent.draws import Draw, Terms, Training
from jaxgen.models.latent.encoder_decoder import EncoderDecoder
from jaxgen.models.latent.ladder_net import Gaussian, LadderNet, combined
from jaxgen.nn.encoders import Encoder
from jaxgen.optim.net import Variables


@dataclass(frozen=True)
class Layered(EncoderDecoder):
    """Latents in layers, each layer's prior given by the one above it; the topmost is N(0, I). A
    model gives p(x | z), z being the layer next to x."""

    latents: tuple[int, ...] = (16, 8)
    """Latents of each layer, from the one next to x up."""
    hidden: tuple[int, ...] = (256, 128)
    """Width of the fully connected layers next to each layer of latents."""
    depth: int = 1
    """How many fully connected layers lie between two layers of latents."""
    inference: Literal["ladder", "bottom_up"] = "ladder"
    """q(z | x). ladder: from the top down, what x says of a layer times what the layer above says;
    bottom_up: each layer from a sample of the one below, as in the plain models before it."""
    prior: Literal["independent", "autoregressive"] = "independent"
    """p of a layer's latents, given the layer above: independent; or autoregressive, each given
    those before it as well, by masked layers, and drawn one after the other."""

    only: ClassVar = {
        "inference": Only(
            "without several layers of `latents`", lambda model: len(model.latents) > 1
        ),
    }

    @abstractmethod
    def check_decoder(self) -> None:
        """Raises UserError where the fields of p(x | z) cannot be."""

    @property
    @abstractmethod
    def decoder(self) -> nn.Module:
        """The module that is called with (z, label, keys, first) (see `Decoder`)."""

    @property
    def pixels(self) -> nn.Module | None:
        """A causal network that is given what the decoder returns, as maps."""
        return None

    def check_networks(self) -> None:
        if not self.latents or len(self.latents) != len(self.hidden):
            raise UserError(
                "`latents` and `hidden` have a number for each layer of latents; got "
                f"{len(self.latents)} and {len(self.hidden)}"
            )
        if min(*self.latents, *self.hidden, self.depth) < 1:
            raise UserError("`latents`, `hidden` and `depth` must be positive")
        self.check_decoder()

    @property
    def groups(self) -> tuple[int, ...]:
        return self.latents[::-1]

    @property
    def told(self) -> str:
        """What the prior is, for people."""
        chained = "each latent given those before it, from the topmost layer on"
        return chained if self.prior == "autoregressive" else "the topmost standard normal"

    @property
    def convolutional(self) -> bool:
        return self.architecture == "conv" or self.pixels is not None

    @property
    def near_x(self) -> dict[str, Any]:
        """The sizes of encoder and decoder."""
        return {"hidden": (self.hidden[0],) * self.depth, **self.ends}

    @property
    def network(self) -> LadderNet:
        return LadderNet(
            encoder=Encoder(**self.near_x), decoder=self.decoder, pixels=self.pixels,
            latents=self.latents, hidden=self.hidden, depth=self.depth,
            sampled=self.inference == "bottom_up", chained=self.prior == "autoregressive",
            activation=self.activation, dropout=self.dropout,
        )  # fmt: skip

    def _parts(self, z: Float[Array, "b z"]) -> list[Float[Array, "b z"]]:
        """The layers of z, the lowest first."""
        return jnp.split(z, np.cumsum(self.groups)[:-1], -1)[::-1]

    def _joined(self, layers: Sequence[Any]) -> Any:
        """All layers as one, the topmost first."""
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, -1), *layers[::-1])

    def _posterior(
        self,
        noise: Float[Array, "b z"],
        variables: Variables,
        batch: Batch,
        training: Training | None,
    ) -> Draw:
        """What noise becomes under q(z | x), and the Gaussians that it was given to."""
        parts, h = self._parts(noise), self.encoded(variables, batch, training)
        said: list[Gaussian] = []
        z: list[Array] = []
        for number, part in enumerate(parts):
            h, q = self.run("upward", variables, training, h, number=number)
            said, z = [*said, q], [*z, q.at(part)]
            h = z[-1] if self.inference == "bottom_up" else h
        if self.inference == "ladder":
            for number in reversed(range(len(parts) - 1)):
                p = self.run("prior", variables, training, z[number + 1], number=number)
                said[number] = combined(said[number], p)
                z[number] = said[number].at(parts[number])
        return Draw(self._joined(z), self._joined(said))

    def _prior(
        self, z: Float[Array, "b z"], variables: Variables, training: Training | None = None
    ) -> Gaussian:
        """p of every latent, given the layer above, and those before it in its own where the prior
        is autoregressive, as z has them."""
        parts = self._parts(z)
        given = [
            self.run("each_given", variables, training, part, above, number=number)
            for number, (part, above) in enumerate(zip(parts, [*parts[1:], None], strict=True))
        ]
        return self._joined(given)

    def _layer(
        self, variables: Variables, noise: Array, above: Array | None, number: int
    ) -> Float[Array, "b z"]:
        """What the noise of layer `number` becomes below the layer above."""

        def refined(_: Any, z: Array) -> Array:
            return self.run("each_given", variables, None, z, above, number=number).at(noise)

        zero = jnp.zeros_like(noise)
        if self.prior == "independent":
            return refined(0, zero)
        # With every pass one more latent, from the first on, is what it will be.
        return jax.lax.fori_loop(0, noise.shape[-1], refined, zero)

    def infer(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        training: Training | None = None,
    ) -> Draw:
        noise = normal_like(key, batch["index"], (sum(self.latents),))
        return self._posterior(noise, variables, batch, training)

    def score(
        self, variables: Variables, draw: Draw, batch: Batch, training: Training | None = None
    ) -> Terms:
        """The KL of a layer is in closed form where q knows the layer above, as p does (given the
        latents before each as z has them, where p knows these too); bottom-up, it is so of the
        topmost, and is estimated by z for the others."""
        log_px = self.log_px(variables, self._parts(draw.z)[0], batch, training)
        p, q = self._prior(draw.z, variables, training), draw.q
        log_ratio = normal_log_prob(draw.z, *p) - normal_log_prob(draw.z, *q)
        kl = kl_normal(q.mean, q.logvar, p.mean, p.logvar)
        if self.inference == "bottom_up":
            kl = jnp.where(jnp.arange(sum(self.latents)) < self.latents[-1], kl, -log_ratio)
        return Terms(log_px, kl, log_ratio.sum(-1))

    def posterior_mean(self, variables: Variables, batch: Batch) -> Float[Array, "b z"]:
        """The noise of every layer's mean, given the means of the layers that it is drawn after."""
        zero = jnp.zeros((len(batch["x"]), sum(self.latents)))
        z = self._posterior(zero, variables, batch, None).z
        return self._prior(z, variables).noise(z)

    def lowest(self, variables: Variables, noise: Float[Array, "b z"]) -> Float[Array, "b z"]:
        """The layer next to x that noise becomes, from the top down."""
        z = None
        for number, part in reversed([*enumerate(self._parts(noise))]):
            z = self._layer(variables, part, z, number)
        assert z is not None
        return z
