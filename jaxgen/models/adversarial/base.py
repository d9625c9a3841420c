"""Two-player games: what every model with a generator and a discriminator shares."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.core.scope import DenyList
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxgen.errors import UserError
from jaxgen.fields import Only, refuse_huge, refuse_idle
from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES
from jaxgen.losses.penalties import gradient_penalty_r1
from jaxgen.model import Batch, Metric, Metrics, Model, example_keys
from jaxgen.optim.net import Net, Params, Precision, Variables, apply_in, average, descend
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import mean_over

LOSSES = "losses of the two players"
JUDGEMENTS = "what D holds to be real (probability)"

_NOT_PARAMS = DenyList("params")
"""The collections that a training pass may change."""


@flax.struct.dataclass
class GameState:
    """The two players, and the generator's average, which is used."""

    g: Net
    d: Net
    ema: Variables
    """Moving average of every collection of the generator."""


class Shown(NamedTuple):
    """What the generator lets the discriminator see of a batch."""

    real: PyTree
    """What is to be taken for real: one array [b …], or a tuple of them, such as x and its code."""
    fake: PyTree
    """What is to be taken for fake, of the same structure."""
    costs: dict[str, Array] = {}
    """Further losses of the generator, by the names of their metrics: scalars."""


class Turn(NamedTuple):
    """What the updates of one train step share."""

    step: int | Int[Array, ""]
    key_real: Key[Array, ""]
    key_fake: Key[Array, ""]
    noise: float | Float[Array, ""] | None
    """Standard deviation of the instance noise, if there is any."""
    axis_name: str | None


Apply = Callable[..., tuple[Any, Variables]]
"""A player with its arrays: (inputs) -> (outputs, the collections that the pass changed)."""


@dataclass(frozen=True)
class Game(Model[GameState]):
    """A generator against a discriminator, two optimizers in one step.

    A model gives the two networks, and what the generator shows of a batch.
    """

    loss: Literal["minimax", "nonsaturating", "lsgan", "hinge"] = "nonsaturating"
    """minimax, nonsaturating: the original paper's two; lsgan: least squares; hinge: margins."""
    updates: Literal["alternating", "simultaneous"] = "alternating"
    """alternating: the generator meets the updated discriminator; simultaneous: the old one."""
    d_steps: int = 1
    """Discriminator steps per generator step, each on a batch of its own."""
    r1: float = 0.0
    """gamma of the penalty gamma/2 |grad D|^2 on real examples; it needs a discriminator without
    BatchNorm."""
    instance_noise: float = 0.0
    """Standard deviation of the noise on the discriminator's inputs, which lie in [-1, 1]."""
    noise_steps: int = 0
    """Steps over which the instance noise falls linearly to zero; 0 = it stays."""
    ema: float = 0.999
    """Decay of the generator's moving average, which sampling uses."""
    precision: Precision = "float32"
    """What the networks compute in while training. Parameters, losses and statistics stay float32,
    and so do evaluation and sampling."""
    g_optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """How the generator is trained."""
    d_optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """How the discriminator is trained."""

    only: ClassVar = {
        "noise_steps": Only("without `instance_noise`", lambda game: game.instance_noise > 0),
    }
    metrics: ClassVar = {
        "d_loss": Metric("the discriminator's loss", chart=LOSSES, curve="D"),
        "g_loss": Metric("the generator's loss", chart=LOSSES, curve="G"),
        "d_real": Metric(
            "D(x): held to be real, of real images", "probability", chart=JUDGEMENTS, curve="D(x)"
        ),
        "d_fake": Metric(
            "D(G(z)): held to be real, of generated images",
            "probability",
            chart=JUDGEMENTS,
            curve="D(G(z))",
        ),
        "r1": Metric("|grad D|^2 on real images"),
    }

    @abc.abstractmethod
    def generator(self, train: bool, axis_name: str | None = None) -> nn.Module:
        """The generator's network."""

    @abc.abstractmethod
    def discriminator(self, train: bool, axis_name: str | None = None) -> nn.Module:
        """The discriminator's network, which is called with (what is shown, label) and returns
        logits [b …] of being real."""

    @abc.abstractmethod
    def show(self, key: Key[Array, ""], g: Apply, batch: Batch) -> tuple[Shown, Variables]:
        """Runs the generator `g` on a batch, with noise from (key, index): what the discriminator
        sees, and the generator's collections that changed."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raises UserError where the model's own fields cannot be."""

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise UserError(f"`ema` must lie in [0, 1); got {self.ema}")
        if self.d_steps < 1:
            raise UserError(f"`d_steps` must be at least 1; got {self.d_steps}")
        if min(self.r1, self.instance_noise, self.noise_steps) < 0:
            raise UserError("`r1`, `instance_noise` and `noise_steps` must not be negative")
        refuse_huge(self)
        self.check()
        refuse_idle(self)

    @property
    def monitor(self) -> str:
        return "frechet"

    @property
    def minibatches(self) -> int:
        return self.d_steps

    def train_step(
        self,
        key: Key[Array, ""],
        state: GameState,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None = None,
    ) -> tuple[GameState, Metrics]:
        """Algorithm 1 of Goodfellow et al. 2014: `d_steps` updates of D, then one of G.

        The last update of D and that of G share one forward pass of G: its pullback is kept, and
        given the gradient that the judging D sends back. G's statistics move with that pass alone,
        D's with its passes over real examples. BatchNorm's statistics are those of the whole
        batch, so it is not taken in parts.
        """
        key_z, key_real, key_fake = jax.random.split(key, 3)
        turn = Turn(step, key_real, key_fake, self._noise(step), axis_name)

        def show(g: Params, part: Batch) -> tuple[Shown, Variables]:
            player = self._player(self.generator(True, axis_name), state.g.having(g))
            return self.show(key_z, player, part)

        # Example i goes to D's step i % d_steps, however the batch is split over devices.
        *earlier, last = (
            {name: x[i :: self.d_steps] for name, x in batch.items()} for i in range(self.d_steps)
        )
        d = state.d
        for part in earlier:
            d, _ = self._update_d(turn, d, show(state.g.params, part)[0], part)
        shown, pull_back, changed = jax.vjp(lambda g: show(g, last), state.g.params, has_aux=True)
        new_d, metrics = self._update_d(turn, d, shown, last)
        judge = new_d if self.updates == "alternating" else d
        (loss, costs), towards_real = jax.value_and_grad(self._g_loss, has_aux=True)(
            shown, turn, judge, last
        )
        (grads,) = pull_back(towards_real)
        grads, g_metrics, changed = mean_over(
            axis_name, (grads, {"g_loss": loss, **costs}, changed)
        )
        g = descend(self.g_optimizer, state.g, grads, changed, step)
        metrics |= {**g_metrics, "g_grad_norm": optax.tree.norm(grads)}
        return GameState(g, new_d, average(state.ema, g.variables, self.ema, step)), metrics

    def _update_d(self, turn: Turn, d: Net, shown: Shown, batch: Batch) -> tuple[Net, Metrics]:
        """One step of D, given what G shows."""
        loss = jax.grad(self._d_loss, has_aux=True)
        grads, aux = loss(d.params, turn, d, shown, batch)
        grads, (metrics, changed) = mean_over(turn.axis_name, (grads, aux))
        metrics["d_grad_norm"] = optax.tree.norm(grads)
        return descend(self.d_optimizer, d, grads, changed, turn.step), metrics

    def _d_loss(
        self, params: Params, turn: Turn, d: Net, shown: Shown, batch: Batch
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        """D's loss on real and fake examples, with the R1 penalty: a scalar."""
        player = self._player(self.discriminator(True, turn.axis_name), d.having(params))
        see = lambda x: player(x, batch.get("label"))  # noqa: E731
        real = _noised(turn.key_real, shown.real, batch, turn.noise)
        fake = _noised(turn.key_fake, shown.fake, batch, turn.noise)
        (real_logits, changed), (fake_logits, _) = see(real), see(fake)
        loss = ADVERSARIAL_LOSSES[self.loss]
        value = loss.real(real_logits).mean() + loss.fake(fake_logits).mean()
        metrics = {
            "d_loss": value,
            "d_real": jax.nn.sigmoid(real_logits).mean(),
            "d_fake": jax.nn.sigmoid(fake_logits).mean(),
        }
        if self.r1 > 0:
            metrics["r1"] = gradient_penalty_r1(lambda x: see(x)[0], real).mean()
            value = value + 0.5 * self.r1 * metrics["r1"]
        return value, (metrics, changed)

    def _g_loss(
        self, shown: Shown, turn: Turn, judge: Net, batch: Batch
    ) -> tuple[Array, dict[str, Array]]:
        """G's loss, as a function of what it shows: a scalar, of which the costs are a part."""
        player = self._player(self.discriminator(True, turn.axis_name), judge.variables)
        fake = _noised(turn.key_fake, shown.fake, batch, turn.noise)
        logits, _ = player(fake, batch.get("label"))
        value = ADVERSARIAL_LOSSES[self.loss].generator(logits).mean()
        return value + sum(shown.costs.values()), shown.costs

    def _player(self, network: nn.Module, variables: Variables) -> Apply:
        """The network in training."""

        def apply(*inputs: Any) -> tuple[Any, Variables]:
            return apply_in(self.precision, network, variables, *inputs, mutable=_NOT_PARAMS)

        return apply

    def _noise(self, step: int | Int[Array, ""]) -> float | Float[Array, ""] | None:
        if not (self.noise_steps and self.instance_noise):
            return self.instance_noise or None
        return self.instance_noise * jnp.maximum(0.0, 1.0 - step / self.noise_steps)

    def eval_step(
        self, key: Key[Array, ""], state: GameState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        """What D holds to be real, of given examples and of as many generated ones."""
        generator, discriminator = self.generator(train=False), self.discriminator(train=False)
        shown, _ = self.show(key, lambda *x: (generator.apply(state.ema, *x), {}), batch)

        def prob(x: PyTree) -> Float[Array, " b"]:
            logits: Any = discriminator.apply(state.d.variables, x, batch.get("label"))
            return jax.nn.sigmoid(logits).reshape(len(logits), -1).mean(1)

        return {"d_real": prob(shown.real), "d_fake": prob(shown.fake)}


def _noised(
    key: Key[Array, ""], shown: PyTree, batch: Batch, noise: float | Float[Array, ""] | None
) -> PyTree:
    """What is shown with instance noise (Sønderby et al. 2017, arXiv:1610.04490), example by
    example."""
    if noise is None:
        return shown

    def noised(key: Key[Array, ""], x: PyTree) -> PyTree:
        flat, back = ravel_pytree(x)
        return back(flat + noise * jax.random.normal(key, flat.shape))

    return jax.vmap(noised)(example_keys(key, batch["index"]), shown)
