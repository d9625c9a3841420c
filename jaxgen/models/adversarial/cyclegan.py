"""Translation between two domains without pairs (Zhu et al. 2017, arXiv:1703.10593)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from jaxgen.abilities import Watches
from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats, refuse_huge, refuse_idle
from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES
from jaxgen.model import Batch, Metric, Metrics
from jaxgen.models.adversarial.alignment import RANK, aligned, beginning, check_aligned
from jaxgen.models.adversarial.base import NOT_PARAMS
from jaxgen.models.adversarial.game_fields import LOSSES
from jaxgen.models.adversarial.pool import Pool, empty, exchanged
from jaxgen.models.adversarial.shown import Shown, variety
from jaxgen.models.adversarial.translation import L1, Translation, absolute, copied
from jaxgen.models.adversarial.trouble import trouble
from jaxgen.nn.translation import PatchDiscriminator, patch
from jaxgen.optim.net import Net, Params, Precision, Variables, apply_in, average, create, descend
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import mean_over

VALUES = "what D makes of images"
_LOSS = ADVERSARIAL_LOSSES["least_squares"]


@flax.struct.dataclass
class CycleState:
    """Four networks, what the generators made before, and the generators' averages, which are
    used."""

    forth: Net
    """Makes x of sources."""
    back: Net
    """Makes sources of x."""
    d_x: Net
    d_source: Net
    pools: tuple[Pool, ...]
    """One of made x and one of made sources; () where nothing is kept."""
    ema: dict[str, Variables]
    """Moving average of every collection of each generator, by its way."""


class Made(NamedTuple):
    """What the generators make of a batch."""

    x: Float[Array, "b h w c"]
    source: Float[Array, "b h w c"]


@dataclass(frozen=True)
class CycleGAN(Translation[CycleState], Watches):
    """Translation between two domains, both ways, learned without pairs.

    Two generators are each other's inverse as far as they can be, and what each makes is to pass
    for the other domain before a discriminator of patches.
    """

    cycle: float = 10.0
    """Weight of the absolute error of data that went one way and back, beside the adversarial
    loss."""
    identity: float = 0.0
    """Weight of the absolute error of data that are of the domain to be made already, and are to
    stay; it needs domains of one shape."""
    aligned: int = 0
    """Train examples of either domain by which the generators begin as the linear map that brings
    one domain to the other (see `alignment`), to which their networks then add; 0 = begin with
    nearly nothing, where pixels stay at their places. A turn or a mirror image, which networks of
    small kernels hardly find, needs some 500."""
    pool: int = 50
    """Generated images that are kept, of which the discriminators are shown some again; 0 = none,
    they see the newest."""
    chosen_by: Literal["truth", "cycle"] = "truth"
    """What selects the best checkpoint. truth: the absolute error of translations, where validation
    has pairs; cycle: the error after one way and back, where it has none."""
    d_filters: int = 64
    """The discriminators' features after their first layer, doubled at every halving."""
    d_halvings: Repeats = 2
    """How often the discriminators halve height and width: patches of 7, 16, 34, 70 pixels for
    0, 1, 2, 3."""
    d_norm: Literal["instance", "spectral", "none"] = "instance"
    """In the discriminators: InstanceNorm after their first layer, spectral normalization of all
    their weights, or no normalization."""
    ema: float = 0.999
    """Decay of the generators' moving average, which translating uses."""
    precision: Precision = "float32"
    """What the networks compute in while training. Parameters and losses stay float32, and so does
    translating."""
    g_optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """How both generators are trained."""
    d_optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """How both discriminators are trained."""

    ways: ClassVar = ("forth", "back")
    compared: ClassVar = {"d_logit": "d_gap"}
    only: ClassVar = {
        "identity": Only(
            "without domains of one shape",
            lambda model: model.spec.source and model.spec.shape == model.spec.source.shape,
        )
    }
    metrics: ClassVar = {
        "l1": L1,
        "l1_forth": L1._replace(label="absolute error of translations forth"),
        "l1_back": L1._replace(label="absolute error of translations back"),
        "cycle": L1._replace(label="absolute error after one way and back"),
        "identity": L1._replace(label="absolute error of what is to stay"),
        "g_loss": Metric("the generators' loss", chart=LOSSES, curve="G"),
        "d_loss": Metric("the discriminators' loss", chart=LOSSES, curve="D"),
        "d_real": Metric("what D makes of real images, 1 being real", "", "", VALUES, "real"),
        "d_fake": Metric("what D makes of translations, 0 being made", "", "", VALUES, "made"),
        "d_logit": Metric("what D makes of real images", "1 = real"),
        "d_logit_fake": Metric("what D makes of translations", "0 = made"),
        "d_gap": Metric("what D makes of validation images over that of train images"),
        "variety": Metric("standard deviation of translations over that of real images, one way"),
    }

    def __post_init__(self) -> None:
        refuse_huge(self)
        self.check_translation()
        sizes = [f"{s.height}x{s.width}" for s in (self.source, self.spec)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"both domains are to have images of one size, and these are of {sizes[0]} and "
                f"{sizes[1]}: give --size=N to --dataset=folders, or a --pairing that keeps the "
                "size"
            )
        if self.spec.num_classes:
            raise UserError(
                "labels are those of x, and a source that stands apart has none: leave "
                "--conditional out"
            )
        if not all(0 <= weight < float("inf") for weight in (self.cycle, self.identity)):
            raise UserError("`cycle` and `identity` must not be negative")
        if self.pool < 0 or self.d_filters < 1 or self.d_halvings < 0:
            raise UserError(
                "`d_filters` must be positive, and `pool` and `d_halvings` not negative"
            )
        if not 0 <= self.ema < 1:
            raise UserError(f"`ema` must lie in [0, 1); got {self.ema}")
        self.check_halvings("d_halvings", self.d_halvings)
        check_aligned(self.aligned)
        refuse_idle(self)

    @property
    def first(self) -> int:
        return self.aligned

    @property
    def rank(self) -> int:
        return min(self.spec.dims, self.source.dims, RANK) if self.aligned else 0

    @property
    def monitor(self) -> str:
        return "l1" if self.chosen_by == "truth" else "cycle"

    @property
    def pairs(self) -> Mapping[str, str]:
        return {"validation": "set `chosen_by`=cycle"} if self.chosen_by == "truth" else {}

    def facts(self) -> dict[str, str]:
        side = patch(self.d_halvings)
        return {"patches": f"{side}x{side} pixels, each judged by the discriminators"}

    def discriminator(self, train: bool) -> PatchDiscriminator:
        """The network of each discriminator."""
        return PatchDiscriminator(
            filters=self.d_filters, halvings=self.d_halvings, norm=self.d_norm, train=train
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> CycleState:
        keys = jax.random.split(key, 4)
        x, source = self.pair(batch)
        forth = create(self.network("forth"), self.g_optimizer, keys[0], source)
        back = create(self.network("back"), self.g_optimizer, keys[1], x)
        if self.aligned:
            found = aligned(source.reshape(len(x), -1), x.reshape(len(x), -1))
            forth, back = beginning(forth, found), beginning(back, found.inverse)
        d_x = create(self.discriminator(False), self.d_optimizer, keys[2], x)
        d_source = create(self.discriminator(False), self.d_optimizer, keys[3], source)
        shapes = [self.spec.shape, self.source.shape] if self.pool else []
        pools = tuple(empty(self.pool, shape) for shape in shapes)
        ema = {"forth": copied(forth.variables), "back": copied(back.variables)}
        return CycleState(forth, back, d_x, d_source, pools, ema)

    def train_step(
        self,
        key: Key[Array, ""],
        state: CycleState,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None = None,
    ) -> tuple[CycleState, Metrics]:
        """One update of the generators by the discriminators as they are, and one of these by what
        the generators made before theirs, some of it earlier (section 4 of the paper)."""
        key_g, key_x, key_source = jax.random.split(key, 3)
        (x, source), index = self.pair(batch), batch["index"]
        players = {"forth": state.forth, "back": state.back}
        loss = jax.grad(self._g_loss, has_aux=True)
        grads, (metrics, made) = loss(
            {way: net.params for way, net in players.items()}, key_g, state, batch
        )
        shown, pools = made, state.pools
        if self.pool:
            pool_x, shown_x = exchanged(key_x, state.pools[0], made.x, index, axis_name)
            pool_s, shown_s = exchanged(key_source, state.pools[1], made.source, index, axis_name)
            shown, pools = Made(shown_x, shown_s), (pool_x, pool_s)
        d_loss = jax.value_and_grad(self._d_loss, has_aux=True)
        loss_x, d_x = d_loss(state.d_x.params, state.d_x, x, shown.x)
        loss_source, d_source = d_loss(state.d_source.params, state.d_source, source, shown.source)
        (changed_x, judged_x), (changed_source, judged_source) = loss_x[1], loss_source[1]
        metrics["d_loss"] = (loss_x[0] + loss_source[0]) / 2
        metrics |= {name: (judged_x[name] + judged_source[name]) / 2 for name in judged_x}
        changed = {"d_x": changed_x, "d_source": changed_source}
        grads, metrics, changed = mean_over(
            axis_name, ({**grads, "d_x": d_x, "d_source": d_source}, metrics, changed)
        )
        ways = Shown(x, jax.lax.stop_gradient(made.x)), Shown(source, made.source)
        metrics["variety"] = jnp.minimum(*(variety(way, axis_name) for way in ways))
        for name, part in (("g", ("forth", "back")), ("d", ("d_x", "d_source"))):
            metrics[f"{name}_grad_norm"] = optax.tree.norm([grads[each] for each in part])
        new = {
            way: descend(self.g_optimizer, net, grads[way], {}, step)
            for way, net in players.items()
        }
        judges = {
            name: descend(self.d_optimizer, getattr(state, name), grads[name], others, step)
            for name, others in changed.items()
        }
        used = {way: net.variables for way, net in new.items()}
        ema = average(state.ema, used, self.ema, step)
        return CycleState(**new, **judges, pools=pools, ema=ema), metrics

    def _g_loss(
        self, params: dict[str, Params], key: Key[Array, ""], state: CycleState, batch: Batch
    ) -> tuple[Array, tuple[Metrics, Made]]:
        """Both generators' loss, a scalar, with its parts and what they make."""
        keys = iter(jax.random.split(key, 6))
        x, source = self.pair(batch)

        def go(way: str, given: Array) -> Array:
            variables = {**getattr(state, way).variables, "params": params[way]}
            noise = self.keys(next(keys), batch["index"])
            return apply_in(self.precision, self.network(way), variables, given, None, noise)

        made = Made(go("forth", source), go("back", x))
        judge = self.discriminator(train=False)
        passed = [
            _LOSS.generator(apply_in(self.precision, judge, d.variables, fake)).mean()
            for d, fake in ((state.d_x, made.x), (state.d_source, made.source))
        ]
        cycle = absolute(x, go("forth", made.source)) + absolute(source, go("back", made.x))
        # The paper's loss is (D - 1)^2, twice that of Mao et al.; only D's is halved.
        value = 2 * (passed[0] + passed[1]) + self.cycle * cycle.mean()
        metrics = {"cycle": cycle.mean() / 2}
        if self.identity:
            same = absolute(x, go("forth", x)) + absolute(source, go("back", source))
            value += self.identity * same.mean()
            metrics["identity"] = same.mean() / 2
        return value, ({**metrics, "g_loss": value}, made)

    def _d_loss(
        self, params: Params, d: Net, real: Array, fake: Array
    ) -> tuple[Array, tuple[Variables, Metrics]]:
        """The loss ((D(real) - 1)^2 + D(fake)^2) / 2 of one discriminator, the collections that its
        pass over real examples changed, and what it makes of both."""
        network, variables = self.discriminator(train=True), d.having(params)

        def see(x: Array) -> Any:
            return apply_in(self.precision, network, variables, x, mutable=NOT_PARAMS)

        (of_real, changed), (of_fake, _) = see(real), see(jax.lax.stop_gradient(fake))
        made = {"d_real": of_real.mean(), "d_fake": of_fake.mean()}
        return _LOSS.real(of_real).mean() + _LOSS.fake(of_fake).mean(), (changed, made)

    def used(self, state: CycleState, way: str) -> Variables:
        return state.ema[way]

    def eval_step(
        self, key: Key[Array, ""], state: CycleState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        keys = iter(jax.random.split(key, 4))
        x, source = self.pair(batch)

        def go(way: str, given: Array) -> Any:
            noise = self.keys(next(keys), batch["index"])
            return self.network(way).apply(self.used(state, way), given, None, noise)

        made = Made(go("forth", source), go("back", x))
        cycle = absolute(x, go("forth", made.source)) + absolute(source, go("back", made.x))
        judge = self.discriminator(train=False)

        def judged(x: Array, source: Array) -> Array:
            """By both discriminators, the mean over an image's patches."""
            sides: Any = [
                judge.apply(d.variables, a) for d, a in ((state.d_x, x), (state.d_source, source))
            ]
            return sum(values.reshape(len(x), -1).mean(1) for values in sides) / 2

        values = {"d_logit": judged(x, source), "d_logit_fake": judged(*made)}
        if self.chosen_by == "cycle":
            return {"cycle": cycle / 2, **values}
        forth, back = absolute(x, made.x), absolute(source, made.source)
        each = {"l1_forth": forth, "l1_back": back, "cycle": cycle / 2}
        return {"l1": (forth + back) / 2, **each, **values}

    def verdict(self, means: Mapping[str, float]) -> str | None:
        """Whether translations of one way hardly vary, or D has won or remembers its images."""
        return trouble(means, judged=True)
