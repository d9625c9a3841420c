"""Ladder VAE (Sønderby et al. 2016, arXiv:1602.02282)."""

from dataclasses import dataclass

from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.model import Batch
from jaxgen.models.latent.draws import Training
from jaxgen.models.latent.layered import Layered
from jaxgen.models.latent.observation import (
    LikelihoodName,
    Observation,
    ObservationNet,
    Scale,
)
from jaxgen.optim.net import Variables


@dataclass(frozen=True)
class Ladder(Layered):
    """Several layers of latents, whose sub-pixels are independent given the lowest one."""

    likelihood: LikelihoodName = "auto"
    """p(x | z) per sub-pixel; auto: bernoulli for two levels, logistic for more, normal (a density)
    for real numbers."""
    scale: Scale = "pixel"
    """gaussian, logistic, normal: a scale per sub-pixel from the decoder, or one for all, learned.
    """

    def check_decoder(self) -> None:
        _ = self.observation  # refuses what does not fit x

    @property
    def observation(self) -> Observation:
        """p(x | z)."""
        return Observation(self.spec, self.likelihood, self.scale)

    @property
    def decoder(self) -> ObservationNet:
        return self.observation.network(upsample=self.upsample, **self.ends)

    def parameters(
        self,
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        training: Training | None = None,
    ) -> Float[Array, "b h w c p"]:
        """Parameters of p(x | z), z being the lowest layer."""
        return self.run("decode", variables, training, z, label)

    def log_px(
        self,
        variables: Variables,
        z: Float[Array, "b z"],
        batch: Batch,
        training: Training | None,
    ) -> Float[Array, " b"]:
        params = self.parameters(variables, z, batch.get("label"), training)
        return self.observation.log_prob(params, batch["x"])

    def mean_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
    ) -> Float[Array, "b h w c"]:
        """The mean of p(x | z)."""
        return self.observation.mean(self.parameters(variables, z, label))

    def draw_x(
        self,
        keys: Key[Array, " b"],
        variables: Variables,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None,
        temperature: float | Array,
    ) -> Shaped[Array, "b h w c"]:
        return self.observation.sample(keys, self.parameters(variables, z, label), temperature)

    def facts(self) -> dict[str, str]:
        layers, p = " < ".join(map(str, self.latents)), type(self.observation.p).__name__
        return {"latents": f"{layers} in layers, {self.told}; p(x | z) {p}"}
