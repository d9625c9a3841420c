"""Games whose generator draws from a prior: G(z) is data."""

from abc import abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.abilities import Generates
from jaxgen.distributions.normal import normal_like
from jaxgen.model import Batch, Request, labels_or_all
from jaxgen.models.adversarial.base import Game
from jaxgen.models.adversarial.shown import packed
from jaxgen.models.adversarial.state import GameState
from jaxgen.optim.net import Variables, create


@dataclass(frozen=True)
class PriorGame(Game, Generates):
    """A game whose generator takes latents of a standard normal prior."""

    def draws(self, key: Key[Array, ""], batch: Batch) -> Float[Array, "b z"]:
        """Latents of the prior for the examples of a batch."""
        return normal_like(key, batch["index"], (sum(self.groups),))

    def draw_latents(
        self,
        key: Key[Array, ""],
        state: GameState,
        num: int,
        label: Int[Array, " num"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "num z"]:
        return normal_like(key, start + jnp.arange(num), (sum(self.groups),))

    def first_state(
        self, key: Key[Array, ""], batch: Batch, given: tuple, shown: Array | tuple[Array, ...]
    ) -> GameState:
        """The state before the first step, of players that take `given` and, of one example, see
        `shown`."""
        key_g, key_d = jax.random.split(key)
        label = batch.get("label")
        g = create(self.generator(train=False), self.g_optimizer, key_g, *given)
        # As many examples as D judges together.
        seen = packed(jax.tree.map(lambda x: jnp.repeat(x[:1], self.multiple, 0), shown), self.pack)
        first = None if label is None else jnp.repeat(label[:1], self.multiple)
        d = create(self.discriminator(train=False), self.d_optimizer, key_d, seen, first)
        return GameState(g, d, jax.tree.map(jnp.copy, g.variables))

    def facts(self) -> dict[str, str]:
        return {"latents": f"{sum(self.groups)} standard normal"}


@dataclass(frozen=True)
class LatentGame(PriorGame):
    """A game whose generator maps latents, and labels, to data, and draws nothing else."""

    @abstractmethod
    def generated(
        self, variables: Variables, z: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c"]:
        """G(z), with given statistics: it does not depend on the others in its batch."""

    def decode(
        self,
        key: Key[Array, ""],
        state: GameState,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        """The averaged generator's output, which does not depend on the others in its batch."""
        x = self.generated(state.ema, z, labels_or_all(self.spec, label, len(z), start))
        return jnp.clip(x, -1.0, 1.0) if self.spec.levels else x

    def sample(
        self, key: Key[Array, ""], state: GameState, num: int, request: Request = Request()
    ) -> Shaped[Array, "num h w c"]:
        """G(z) for z from the prior scaled by the temperature (the truncation of Brock et al.
        2019, arXiv:1809.11096, without its resampling)."""
        label, temperature, start = request
        z = temperature * self.draw_latents(key, state, num, label, start)
        return self.spec.from_float(self.decode(key, state, z, label, start))
