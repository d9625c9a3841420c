"""What models with several layers of latents share: the layers' inference and priors (Sønderby et
al. 2016, arXiv:1602.02282, and the plain bottom-up one of Burda et al. 2016, arXiv:1509.00519)."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats
from jaxgen.model import Batch
from jaxgen.models.latent.draws import Draw, Training
from jaxgen.models.latent.encoder_decoder import EncoderDecoder
from jaxgen.models.latent.gaussian import Gaussian, combined
from jaxgen.models.latent.hierarchy import Hierarchy
from jaxgen.models.latent.ladder_net import LadderNet
from jaxgen.nn.encoders import Encoder
from jaxgen.optim.net import Variables


@dataclass(frozen=True)
class Layered(Hierarchy, EncoderDecoder):
    """Latents in layers, each layer's prior given by the one above it; the topmost is N(0, I). A
    model gives p(x | z), z being the layer next to x."""

    latents: tuple[int, ...] = (16, 8)
    """Latents of each layer, from the one next to x up."""
    hidden: tuple[int, ...] = (256, 128)
    """Width of the fully connected layers next to each layer of latents."""
    depth: Repeats = 1
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
    def closed(self) -> int:
        return self.latents[-1] if self.inference == "bottom_up" else sum(self.latents)

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

    def posterior_of(
        self,
        noise: Float[Array, "b z"],
        variables: Variables,
        batch: Batch,
        training: Training | None,
    ) -> Draw:
        """What noise becomes under q(z | x), and the Gaussians that it was given to."""
        parts, h = self.parts(noise), self.encoded(variables, batch, training)
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
        return Draw(self.joined(z), self.joined(said))

    def prior_of(
        self, z: Float[Array, "b z"], variables: Variables, training: Training | None = None
    ) -> Gaussian:
        """p of every latent, given the layer above, and those before it in its own where the prior
        is autoregressive, as z has them."""
        parts = self.parts(z)
        given = [
            self.run("each_given", variables, training, part, above, number=number)
            for number, (part, above) in enumerate(zip(parts, [*parts[1:], None], strict=True))
        ]
        return self.joined(given)

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

    def lowest(self, variables: Variables, noise: Float[Array, "b z"]) -> Float[Array, "b z"]:
        """The layer next to x that noise becomes, from the top down."""
        z = None
        for number, part in reversed([*enumerate(self.parts(noise))]):
            z = self._layer(variables, part, z, number)
        assert z is not None
        return z
