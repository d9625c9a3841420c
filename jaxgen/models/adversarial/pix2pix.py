"""Paired translation between images (Isola et al. 2017, arXiv:1611.07004): a game of pairs, and the
same generator trained by the absolute error alone."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError
from jaxgen.fields import Repeats, refuse_huge, refuse_idle
from jaxgen.model import Batch, Metric, Metrics
from jaxgen.models.adversarial.base import Game
from jaxgen.models.adversarial.shown import Shown, packed
from jaxgen.models.adversarial.state import Apply, GameState
from jaxgen.models.adversarial.translation import L1, Translation, absolute, copied
from jaxgen.nn.translation import PatchDiscriminator, patch, resized
from jaxgen.optim.net import (
    NetState,
    Precision,
    Variables,
    apply_in,
    create,
    create_state,
)
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net

PAIRED = "leave --unpaired out, or train a model of two domains apart"


@dataclass(frozen=True)
class Pix2Pix(Translation[GameState], Game):
    """Translation learned from pairs: an absolute error, and a discriminator of pairs in patches.

    The discriminator sees the source beside x, or beside what the generator makes of the source.
    """

    l1: float = 100.0
    """Weight of the absolute error, of values in [-1, 1], beside the adversarial loss."""
    d_filters: int = 64
    """The discriminator's features after its first layer, doubled at every halving."""
    d_halvings: Repeats = 2
    """How often the discriminator halves height and width: patches of 7, 16, 34, 70 pixels for
    0, 1, 2, 3."""
    d_norm: Literal["instance", "spectral", "none"] = "instance"
    """In the discriminator: InstanceNorm after its first layer, spectral normalization of all its
    weights, or no normalization."""

    metrics: ClassVar = {
        **Game.metrics,
        "l1": L1,
        "l1_loss": Metric("the absolute error's part of the generator's loss", "", "lower"),
    }
    monitor: ClassVar = "l1"
    pairs: ClassVar = {"train": PAIRED, "validation": PAIRED}
    cannot: ClassVar = dict.fromkeys(
        ("projection", "auxiliary"),
        "needs features of a whole image, and the discriminator judges patches",
    )

    def check(self) -> None:
        self.check_translation()
        if not 0 <= self.l1 < float("inf"):
            raise UserError(f"`l1` must not be negative; got {self.l1}")
        if self.d_filters < 1 or self.d_halvings < 0:
            raise UserError("`d_filters` must be positive, and `d_halvings` not negative")
        self.check_halvings("d_halvings", self.d_halvings)

    def facts(self) -> dict[str, str]:
        side = patch(self.d_halvings)
        return {"patches": f"{side}x{side} pixels, each judged by the discriminator"}

    def generator(self, train: bool, axis_name: str | None = None) -> nn.Module:
        return self.network()

    def discriminator(self, train: bool, axis_name: str | None = None) -> PatchDiscriminator:
        return PatchDiscriminator(
            filters=self.d_filters,
            halvings=self.d_halvings,
            norm=self.d_norm,
            num_classes=self.spec.num_classes,
            train=train,
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> GameState:
        key_g, key_d = jax.random.split(key)
        x, source = self.pair(batch)
        label = batch.get("label")
        g = create(self.generator(train=False), self.g_optimizer, key_g, source, label)
        one = jax.tree.map(lambda a: a[:1].repeat(self.pack, 0), self._judged(x, source))
        first = None if label is None else label[:1]
        seen = packed(one, self.pack)
        d = create(self.discriminator(train=False), self.d_optimizer, key_d, seen, first)
        return GameState(g, d, copied(g.variables))

    def show(self, key: Key[Array, ""], g: Apply, batch: Batch) -> tuple[Shown, Variables]:
        x, source = self.pair(batch)
        fake, changed = g(source, batch.get("label"), self.keys(key, batch["index"]))
        error = absolute(x, fake)
        costs = {"l1_loss": self.l1 * error.mean()}
        return Shown(
            self._judged(x, source), self._judged(fake, source), costs, {"l1": error}
        ), changed

    def _judged(self, x: Array, source: Array) -> tuple[Array, Array]:
        """What D sees: x, and its source at the size of x."""
        return x, resized(source, self.spec.shape[:2])

    def used(self, state: GameState, way: str) -> Variables:
        return state.ema


@dataclass(frozen=True)
class Pix2PixL1(Translation[NetState]):
    """Translation learned from pairs by the absolute error alone, without a game.

    The generator is that of `Pix2Pix`: what the game adds to it can be seen.
    """

    ema: float = 0.999
    """Decay of the generator's moving average, which translating uses."""
    precision: Precision = "float32"
    """What the network computes in while training. Parameters and losses stay float32, and so does
    translating."""
    optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """How the generator is trained."""

    metrics: ClassVar = {"l1": L1}
    monitor: ClassVar = "l1"
    pairs: ClassVar = {"train": PAIRED, "validation": PAIRED}

    def __post_init__(self) -> None:
        refuse_huge(self)
        if not 0 <= self.ema < 1:
            raise UserError(f"`ema` must lie in [0, 1); got {self.ema}")
        self.check_translation()
        refuse_idle(self)

    def init(self, key: Key[Array, ""], batch: Batch) -> NetState:
        _, source = self.pair(batch)
        return create_state(create(self.network(), self.optimizer, key, source, batch.get("label")))

    def train_step(
        self,
        key: Key[Array, ""],
        state: NetState,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None = None,
    ) -> tuple[NetState, Metrics]:
        keys = self.keys(key, batch["index"])

        def loss(variables: Variables, batch: Batch) -> tuple[Array, tuple[Metrics, Variables]]:
            x, source = self.pair(batch)
            label = batch.get("label")
            made = apply_in(self.precision, self.network(), variables, source, label, keys)
            error = absolute(x, made).mean()
            return error, ({"l1": error}, {})

        return train_net(self.optimizer, self.ema, state, loss, batch, step, axis_name)

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        x, source = self.pair(batch)
        keys = self.keys(key, batch["index"])
        made: Any = self.network().apply(state.ema, source, batch.get("label"), keys)
        return {"l1": absolute(x, made)}

    def used(self, state: NetState, way: str) -> Variables:
        return state.ema
