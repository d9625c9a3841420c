"""Games whose generator draws from a prior: G(z) is data."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.abilities import Generates
from jaxgen.distributions.normal import normal_like
from jaxgen.model import Batch, Request, labels_or_all
from jaxgen.models.adversarial.base import Apply, Game, GameState, Shown
from jaxgen.optim.net import Variables, create


@dataclass(frozen=True)
class LatentGame(Game, Generates):
    """A game whose generator maps latents of a standard normal prior, and labels, to data."""

    def init(self, key: Key[Array, ""], batch: Batch) -> GameState:
        key_g, key_d = jax.random.split(key)
        x, label = self.spec.to_float(batch["x"]), batch.get("label")
        z = jnp.zeros((len(x), sum(self.groups)))
        g = create(self.generator(train=False), self.g_optimizer, key_g, z, label)
        d = create(self.discriminator(train=False), self.d_optimizer, key_d, x, label)
        return GameState(g, d, jax.tree.map(jnp.copy, g.variables))

    def show(self, key: Key[Array, ""], g: Apply, batch: Batch) -> tuple[Shown, Variables]:
        z = normal_like(key, batch["index"], (sum(self.groups),))
        fake, changed = g(z, batch.get("label"))
        return Shown(self.spec.to_float(batch["x"]), fake), changed

    def draw_latents(
        self,
        key: Key[Array, ""],
        state: GameState,
        num: int,
        label: Int[Array, " num"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "num z"]:
        return normal_like(key, start + jnp.arange(num), (sum(self.groups),))

    def decode(
        self,
        key: Key[Array, ""],
        state: GameState,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        """The averaged generator's output, which does not depend on the others in its batch."""
        label = labels_or_all(self.spec, label, len(z), start)
        x: Any = self.generator(train=False).apply(state.ema, z, label)
        return jnp.clip(x, -1.0, 1.0) if self.spec.levels else x

    def sample(
        self, key: Key[Array, ""], state: GameState, num: int, request: Request = Request()
    ) -> Shaped[Array, "num h w c"]:
        """G(z) for z from the prior scaled by the temperature (the truncation of Brock et al.
        2019, arXiv:1809.11096, without its resampling)."""
        label, temperature, start = request
        z = temperature * self.draw_latents(key, state, num, label, start)
        return self.spec.from_float(self.decode(key, state, z, label, start))

    def facts(self) -> dict[str, str]:
        return {"latents": f"{sum(self.groups)} standard normal"}
