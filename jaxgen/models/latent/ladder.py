"""Ladder VAE (Sønderby et al. 2016, arXiv:1602.02282)."""

from dataclasses import dataclass

from jaxgen.models.latent.layered import Layered
from jaxgen.models.latent.observation import ObservationNet
from jaxgen.models.latent.with_decoder import Observed


@dataclass(frozen=True)
class Ladder(Observed, Layered):
    """Several layers of latents, whose sub-pixels are independent given the lowest one."""

    def check_decoder(self) -> None:
        _ = self.observation  # refuses what does not fit x

    @property
    def decoder(self) -> ObservationNet:
        return self.observation.network(upsample=self.upsample, **self.near_x)

    def facts(self) -> dict[str, str]:
        layers, p = " < ".join(map(str, self.latents)), type(self.observation.p).__name__
        return {"latents": f"{layers} in layers, {self.told}; p(x | z) {p}"}
