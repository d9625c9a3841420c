"""PixelVAE (Gulrajani et al. 2017, arXiv:1611.05013): latents, and pixels that see earlier ones."""

from dataclasses import dataclass

from jaxgen.models.latent.layered import Layered
from jaxgen.models.latent.pixel_decoder import PixelDecoded
from jaxgen.nn.encoders import Decoder


@dataclass(frozen=True)
class PixelVAE(PixelDecoded, Layered):
    """Layers of latents under a Gated PixelCNN, which sees the pixels before each.

    It is given the lowest layer as maps, a vector for each pixel. What is local is left to it, and
    the latents carry the rest; with several layers, each one's prior is given by the layer above.
    """

    latents: tuple[int, ...] = (16,)
    """Latents of each layer, from the one next to x up."""
    hidden: tuple[int, ...] = (256,)
    """Width of the fully connected layers next to each layer of latents."""

    def check_decoder(self) -> None:
        self.check_pixels()

    @property
    def decoder(self) -> Decoder:
        shape = self.spec.height, self.spec.width, self.maps
        return Decoder(shape=shape, upsample=self.upsample, **self.near_x)

    def facts(self) -> dict[str, str]:
        layers = " < ".join(map(str, self.latents))
        return {"latents": f"{layers} in layers, {self.told}", "sees": self.reach}
