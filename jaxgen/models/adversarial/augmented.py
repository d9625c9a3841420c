"""Games whose discriminator sees augmented images (Zhao et al. 2020, arXiv:2006.10738), by a
strength that follows how well it knows its data (ADA, Karras et al. 2020, arXiv:2006.06676)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Batch, Metric, Metrics, example_keys
from jaxgen.models.adversarial.game_fields import GameFields
from jaxgen.models.adversarial.latent_game import LatentGame
from jaxgen.models.adversarial.state import GameState
from jaxgen.nn.augment import augmented
from jaxgen.optim.net import Net

SIGNED = ("minimax", "nonsaturating", "hinge")
"""Losses by which a positive logit means real."""
EVERY = 4
"""Updates of D from one move of the strength to the next."""


@dataclass(frozen=True)
class AugmentedGame(LatentGame):
    """A game of latents and images, which the discriminator may see augmented: real and generated
    ones alike, also where the generator learns from it. What is sampled is not."""

    augment: Literal["none", "translation", "translation,cutout", "color,translation,cutout"] = (
        "none"
    )
    """What is done to every image that D sees in training, for data so few that D learns them by
    heart: moved by up to an eighth, a hole of half its sides, other brightness and contrast."""
    augment_target: float = 0.0
    """Adaptive strength: above this mean sign of D's logits of real images, more of them are
    augmented, below it fewer (0.6 in the paper); 0 = all of them always."""
    augment_move: float = 0.002
    """How far the adaptive strength, 0 to 1, moves after every fourth update of D."""

    only: ClassVar = {
        "augment_target": Only("without `augment`", lambda game: game.augment != "none"),
        "augment_move": Only("without `augment_target`", lambda game: game.augment_target > 0),
    }
    metrics: ClassVar = {
        **GameFields.metrics,
        "d_sign": Metric("mean sign of D's logits of real images"),
        "augment": Metric("images that are augmented", "probability"),
    }

    def check_augmentation(self) -> None:
        """Raises UserError where these fields cannot be."""
        if self.augment != "none" and self.spec.kind != "image":
            raise UserError(
                f"`augment`={self.augment} is of images, and x is {self.spec.kind}: set "
                "`augment`=none"
            )
        if not 0 <= self.augment_target < 1:
            raise UserError(f"`augment_target` must lie in [0, 1); got {self.augment_target}")
        if self.augment_target > 0 and self.loss not in SIGNED:
            raise UserError(
                f"`augment_target` reads the sign of D's logits, which of `loss`={self.loss} does "
                f"not tell real from fake: choose `loss`={', '.join(SIGNED[:-1])} or {SIGNED[-1]}"
            )
        if not 0 < self.augment_move <= 1:
            raise UserError(f"`augment_move` must lie in (0, 1]; got {self.augment_move}")

    def with_strength(self, state: GameState) -> GameState:
        """The first state with the strength, beside D's arrays, where that is adaptive."""
        if not self.augment_target:
            return state
        own = {name: jnp.zeros(()) for name in ("strength", "signs", "count")}
        d = Net({**state.d.variables, "augment": own}, state.d.opt_state)
        return GameState(state.g, d, state.ema)

    def altered(self, key: Key[Array, ""], x: PyTree, batch: Batch, d: Net) -> PyTree:
        """x, real or generated, as D is to see it; with noise from (key, index)."""
        if self.augment == "none":
            return x
        keys = example_keys(jax.random.fold_in(jax.random.clone(key), 2), batch["index"])
        strength = d.variables["augment"]["strength"] if self.augment_target else 1.0
        return augmented(keys, x, self.augment.split(","), strength)

    def noted(self, real_logits: Float[Array, " b"], d: Net) -> Metrics:
        """What an update of D notes of its logits of real images."""
        if not self.augment_target:
            return {}
        strength = jnp.asarray(d.variables["augment"]["strength"])
        return {"d_sign": jnp.sign(real_logits).mean(), "augment": strength}

    def adapted(self, d: Net, metrics: Metrics) -> Net:
        """D with the strength that its updates since the last move call for: p += sign(mean sign of
        D(x) - target) times `augment_move`, within 0..1 (section 3.1)."""
        if not self.augment_target:
            return d
        own = d.variables["augment"]
        signs, count = own["signs"] + metrics["d_sign"], own["count"] + 1.0
        by = jnp.sign(signs / count - self.augment_target) * self.augment_move
        moves = count >= EVERY
        new = {
            "strength": jnp.where(moves, jnp.clip(own["strength"] + by, 0.0, 1.0), own["strength"]),
            "signs": jnp.where(moves, 0.0, signs),
            "count": jnp.where(moves, 0.0, count),
        }
        return Net({**d.variables, "augment": new}, d.opt_state)
