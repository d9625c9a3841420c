"""Progressive growing of generative adversarial networks (Karras et al. 2018, arXiv:1710.10196)."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError
from jaxgen.fields import Only
from jaxgen.model import Batch
from jaxgen.models.adversarial.augmented import AugmentedGame
from jaxgen.models.adversarial.shown import Shown
from jaxgen.models.adversarial.state import Apply, GameState
from jaxgen.nn.progressive import (
    ProgressiveDiscriminator,
    ProgressiveGenerator,
    Sizes,
    enlarged,
    growing_sizes,
    seen_at,
    used,
)
from jaxgen.optim.blocks import apart, average_blocks, descend_blocks
from jaxgen.optim.net import Net, Params, Variables
from jaxgen.optim.optimizer import Optimizer


@dataclass(frozen=True)
class ProGAN(AugmentedGame):
    """A game that begins at 4x4 pixels, and doubles the size stage by stage.

    Both players have the arrays of all sizes from the start; those of a size join the training with
    their stage, and are faded in. Before, real images are shrunk and samples are enlarged. Other
    than in the paper, latents are not normalized, and a penalty of the family bounds D's slope.
    """

    latents: int = 64
    """Dimensions of z, standard normal."""
    filters: int = 32
    """Features at the full size, doubled at every halving, up to 512."""
    deviation_group: int = 4
    """Examples, one after another, whose variation D sees as one more feature; 0 = none."""
    stages: int = 0
    """Sizes that the players grow through, from the smallest on; 0 = all, up to that of x."""
    stage_steps: int = 1000
    """Steps of each stage before the next; 0 = no growing: all are there from the start."""
    fade: float = 0.5
    """Share of a stage's steps over which it is faded in."""

    clock: ClassVar = ("stage_steps",)
    convolutional: ClassVar = True
    only: ClassVar = {"fade": Only("without `stage_steps`", lambda game: game.stage_steps > 0)}

    def check(self) -> None:
        self.check_augmentation()
        if self.spec.kind != "image":
            raise UserError(f"images grow, and x is {self.spec.kind}: choose another model")
        if not self.sizes:
            self._refuse_size()
        if not 0 <= self.stages <= len(self.sizes):
            raise UserError(
                f"`stages` must lie in 0..{len(self.sizes)}, since x is doubled from "
                f"{self._told(0)} to {self._told(-1)}; got {self.stages}"
            )
        if min(self.filters, self.latents) < 1:
            raise UserError("`filters` and `latents` must be at least 1")
        if self.deviation_group < 0 or self.deviation_group == 1:
            raise UserError(
                "`deviation_group` must be 0, or at least 2: one example alone does not vary; got "
                f"{self.deviation_group}"
            )
        if self.stage_steps < 0:
            raise UserError(f"`stage_steps` must not be negative; got {self.stage_steps}")
        if not 0 <= self.fade <= 1:
            raise UserError(f"`fade` must lie in [0, 1]; got {self.fade}")

    def _refuse_size(self) -> None:
        side = min(self.spec.height, self.spec.width)
        near, halvings = max(side, 4), 0
        while near >= 8:
            near, halvings = near // 2, halvings + 1
        raise UserError(
            f"images grow by doubling from a smaller side of 4 to 7 pixels, and x is "
            f"{self.spec.height}x{self.spec.width}: --size={near * 2**halvings} makes such images"
        )

    def _told(self, i: int) -> str:
        return "{}x{}".format(*self.sizes[i])

    @property
    def sizes(self) -> Sizes:
        """(height, width) of every stage; () where x does not halve to them."""
        return growing_sizes(self.spec.height, self.spec.width)

    @property
    def now(self) -> int:
        """How many stages there are by now."""
        return self.stages or len(self.sizes)

    @property
    def changes(self) -> tuple[int, ...]:
        return tuple(i * self.stage_steps for i in range(1, self.now)) if self.stage_steps else ()

    def at(self, step: int) -> "ProGAN":
        """The model with the stages that there are at that step."""
        if not self.stage_steps:
            return self
        return dataclasses.replace(self, stages=min(self.now, 1 + step // self.stage_steps))

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.latents,)

    def generator(self, train: bool, axis_name: str | None = None) -> ProgressiveGenerator:
        return ProgressiveGenerator(
            sizes=self.sizes,
            stages=self.now,
            channels=self.spec.channels,
            filters=self.filters,
            num_classes=self.spec.num_classes,
        )

    def discriminator(self, train: bool, axis_name: str | None = None) -> ProgressiveDiscriminator:
        return ProgressiveDiscriminator(
            sizes=self.sizes,
            stages=self.now,
            filters=self.filters,
            group=self.deviation_group,
            num_classes=self.spec.num_classes,
            condition=self.condition_by,
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> GameState:
        x, label = self.spec.to_float(batch["x"]), batch.get("label")
        z = jnp.zeros((len(x), self.latents))
        state = self.first_state(key, batch, (z, label), x)
        g, d = apart(self.g_optimizer, state.g), apart(self.d_optimizer, state.d)
        return self.with_strength(GameState(g, d, state.ema))

    def alpha(self, step: int | Int[Array, ""]) -> Float[Array, ""]:
        """How far the newest stage is faded in at that step: in its first a little, so that its
        optimizer begins with a gradient."""
        if self.now == 1 or not self.stage_steps:
            return jnp.ones(())
        done = jnp.asarray(step) - (self.now - 1) * self.stage_steps + 1
        whole = max(1.0, self.fade * self.stage_steps)
        return jnp.clip(done / whole, 0.0, 1.0).astype(jnp.float32)

    def clocked(self, state: GameState, step: int | Int[Array, ""]) -> GameState:
        """The state with alpha, which evaluation and sampling take from there."""
        fade = {"fade": {"alpha": self.alpha(step)}}
        g, d = (Net({**net.variables, **fade}, net.opt_state) for net in (state.g, state.d))
        return GameState(g, d, {**state.ema, **fade})

    def descended(
        self, optimizer: Optimizer, net: Net, grads: Params, others: Variables, step: int | Array
    ) -> Net:
        generates, judges = used(self.now)
        blocks = generates if generates <= net.params.keys() else judges
        return descend_blocks(optimizer, net, grads, others, step, blocks)

    def averaged(
        self, ema: Variables, g: Variables, decay: float, step: int | Int[Array, ""]
    ) -> Variables:
        return average_blocks(ema, g, decay, step, used(self.now)[0])

    def show(self, key: Key[Array, ""], g: Apply, batch: Batch) -> tuple[Shown, Variables]:
        """Both as images of the stage's size."""
        (fake, alpha), changed = g(self.draws(key, batch), batch.get("label"))
        real = seen_at(self.spec.to_float(batch["x"]), self.sizes, self.now, alpha)
        return Shown(real, fake), changed

    def generated(
        self, variables: Variables, z: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c"]:
        """G(z), enlarged to the full size."""
        made = self.generator(train=False).apply(variables, z, label)
        return enlarged(made[0], self.sizes[-1])  # type: ignore[arg-type]
