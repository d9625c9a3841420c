"""Two-player games: what every model with a generator and a discriminator shares."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.core.scope import DenyList
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxgen.abilities import Watches
from jaxgen.fields import refuse_huge, refuse_idle
from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES, smoothed
from jaxgen.losses.penalties import gradient_penalty, gradient_penalty_r1, lazily
from jaxgen.model import Batch, Metrics, Model, example_keys
from jaxgen.models.adversarial.game_fields import GameFields, check_fields
from jaxgen.models.adversarial.shown import Shown, noised, packed, variety
from jaxgen.models.adversarial.state import Apply, GameState, Turn
from jaxgen.models.adversarial.trouble import trouble
from jaxgen.optim.net import Net, Params, Variables, apply_in, average, descend
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import mean_over

NOT_PARAMS = DenyList("params")
"""The collections that a training pass may change."""


@dataclass(frozen=True)
class Game(GameFields, Model[GameState], Watches):
    """A generator against a discriminator, two optimizers in one step.

    A model gives the two networks, and what the generator shows of a batch.
    """

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

    def demands(
        self, key: Key[Array, ""], g: Apply, batch: Batch, step: int | Int[Array, ""]
    ) -> tuple[dict[str, Array], Variables]:
        """Losses of the generator that no discriminator judges, by the names of their metrics, at
        that step: scalars, and the generator's collections that they change."""
        return {}, {}

    @abc.abstractmethod
    def check(self) -> None:
        """Raises UserError where the model's own fields cannot be."""

    def __post_init__(self) -> None:
        refuse_huge(self)
        check_fields(self)
        self.check()
        refuse_idle(self)

    @property
    def deviation_group(self) -> int:
        """Examples, one after another, whose variation the discriminator sees; 0 = none."""
        return 0

    def clocked(self, state: GameState, step: int | Int[Array, ""]) -> GameState:
        """The state before a step, with what follows from the clock alone."""
        return state

    def altered(self, key: Key[Array, ""], x: PyTree, batch: Batch, d: Net) -> PyTree:
        """What is shown, real or fake, as the discriminator is to see it in training."""
        return x

    def noted(self, real_logits: Array, d: Net) -> Metrics:
        """What is measured of the discriminator's logits of what is real."""
        return {}

    def adapted(self, d: Net, metrics: Metrics) -> Net:
        """The discriminator after an update, with what it has beside its parameters moved by that
        update's metrics."""
        return d

    def descended(
        self, optimizer: Optimizer, net: Net, grads: Params, others: Variables, step: int | Array
    ) -> Net:
        """A player after one update, with its collections that changed."""
        return descend(optimizer, net, grads, others, step)

    def averaged(
        self, ema: Variables, g: Variables, decay: float, step: int | Int[Array, ""]
    ) -> Variables:
        """The generator's average after an update."""
        return average(ema, g, decay, step)

    @property
    def monitor(self) -> str:
        return "frechet"

    @property
    def slack(self) -> float:
        """Fréchet distances of one state, by several draws of 1,000 samples, differ by more."""
        return 0.05 if self.monitor == "frechet" else 0.0

    @property
    def minibatches(self) -> int:
        return self.d_steps

    @property
    def multiple(self) -> int:
        return self.pack * max(1, self.deviation_group)

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
        state = self.clocked(state, step)
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

        def show_last(g: Params) -> tuple[Shown, Variables]:
            shown, changed = show(g, last)
            player = self._player(self.generator(True, axis_name), state.g.having(g))
            costs, more = self.demands(key_z, player, last, step)
            return shown._replace(costs={**shown.costs, **costs}), {**changed, **more}

        shown, pull_back, changed = jax.vjp(show_last, state.g.params, has_aux=True)
        new_d, metrics = self._update_d(turn, d, shown, last)
        judge = new_d if self.updates == "alternating" else d
        (loss, costs), towards_real = jax.value_and_grad(self._loss_ahead, has_aux=True)(
            shown, turn, judge, last
        )
        (grads,) = pull_back(towards_real)
        grads, g_metrics, changed = mean_over(
            axis_name, (grads, {"g_loss": loss, **costs}, changed)
        )
        g = self.descended(self.g_optimizer, state.g, grads, changed, step)
        metrics |= {**g_metrics, "g_grad_norm": optax.tree.norm(grads)}
        metrics["variety"] = variety(jax.lax.stop_gradient(shown), axis_name)
        ema = self.averaged(state.ema, g.variables, self.ema, step)
        return GameState(g, new_d, ema), metrics

    def _update_d(
        self, turn: Turn, d: Net, shown: Shown, batch: Batch, followed: bool = False
    ) -> tuple[Net, Metrics]:
        """One step of D, given what G shows; `followed` by a gradient."""
        loss = jax.grad(self._d_loss, has_aux=True)
        grads, aux = loss(d.params, turn, d, shown, batch)
        if followed:
            # Adam's root has no slope at 0: parameters without gradient would turn G's into NaN.
            grads = jax.tree.map(lambda g: jnp.where(jnp.abs(g) < 1e-15, 1e-15, g), grads)
        grads, (metrics, changed) = mean_over(turn.axis_name, (grads, aux))
        metrics["d_grad_norm"] = optax.tree.norm(grads)
        new = self.descended(self.d_optimizer, d, grads, changed, turn.step)
        return self.adapted(new, metrics), metrics

    def _seen(self, turn: Turn, key: Key[Array, ""], x: PyTree, batch: Batch, d: Net) -> PyTree:
        """What is shown, real or fake, as D is given it."""
        x = self.altered(key, x, batch, d)
        return packed(noised(key, x, batch, turn.noise), self.pack)

    def _d_loss(
        self, params: Params, turn: Turn, d: Net, shown: Shown, batch: Batch
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        """D's loss on real and fake examples, with the R1 penalty: a scalar."""
        player = self._player(self.discriminator(True, turn.axis_name), d.having(params))
        see = lambda x: player(x, batch.get("label"))  # noqa: E731
        real = self._seen(turn, turn.key_real, shown.real, batch, d)
        fake = self._seen(turn, turn.key_fake, shown.fake, batch, d)
        real_logits, of_real, changed = self._answers(player, real, batch)
        fake_logits, of_fake, _ = self._answers(player, fake, batch)
        loss = smoothed(self.loss, self.label_smoothing)
        value = loss.real(real_logits).mean() + loss.fake(fake_logits).mean()
        metrics = {
            "d_loss": value,
            "d_real": jax.nn.sigmoid(real_logits).mean(),
            "d_fake": jax.nn.sigmoid(fake_logits).mean(),
            **self.noted(real_logits, d),
        }
        if of_real is not None and of_fake is not None:
            value += of_real + of_fake
            metrics |= {"class_real": of_real, "class_fake": of_fake}
        judge = lambda x: see(x)[0]  # noqa: E731
        if self.r1 > 0:
            r1 = self._now_and_then(turn, lambda: gradient_penalty_r1(judge, real).mean())
            value, metrics["r1"] = value + 0.5 * self.r1 * r1, r1
        if self.slope_penalty > 0:
            key = jax.random.fold_in(jax.random.clone(turn.key_real), 1)
            keys = example_keys(key, batch["index"][:: self.pack])
            share = jax.vmap(jax.random.uniform)(keys)
            slope = self._now_and_then(
                turn, lambda: gradient_penalty(judge, real, fake, share).mean()
            )
            value, metrics["slope"] = value + self.slope_penalty * slope, slope
        return value, (metrics, changed)

    def _answers(
        self, player: Apply, x: PyTree, batch: Batch
    ) -> tuple[Array, Array | None, Variables]:
        """D's logits of being real; the mean cross-entropy of the classes that it tells, nats, if
        it is to tell them; and the collections that changed."""
        label = batch.get("label")
        if label is None or self.condition_by != "auxiliary":
            logits, changed = player(x, label)
            return logits, None, changed
        (logits, classes), changed = player(x, label, classes=True)
        each = optax.softmax_cross_entropy_with_integer_labels(classes, label)
        return logits, each.mean(), changed

    def _now_and_then(self, turn: Turn, penalty: Callable[[], Array]) -> Array:
        """A penalty, times `penalty_every` in the steps that have it, and 0 in the others."""
        every = self.penalty_every
        often = lambda: every * penalty()  # noqa: E731
        return lazily(turn.step, every, penalty if every == 1 else often, jnp.float32(0.0))

    def _g_loss(
        self, shown: Shown, turn: Turn, judge: Net, batch: Batch
    ) -> tuple[Array, dict[str, Array]]:
        """G's loss, as a function of what it shows: a scalar, of which the costs are a part."""
        player = self._player(self.discriminator(True, turn.axis_name), judge.variables)
        loss = ADVERSARIAL_LOSSES[self.loss]
        fake = self._seen(turn, turn.key_fake, shown.fake, batch, judge)
        logits, of_class, _ = self._answers(player, fake, batch)
        value = loss.generator(logits).mean()
        if of_class is not None:
            value += of_class
        if self.encodes:
            real = self._seen(turn, turn.key_real, shown.real, batch, judge)
            value += loss.encoder(player(real, batch.get("label"))[0]).mean()
        return value + sum(shown.costs.values()), shown.costs

    def _loss_ahead(
        self, shown: Shown, turn: Turn, judge: Net, batch: Batch
    ) -> tuple[Array, dict[str, Array]]:
        """G's loss at the D that `unrolled` more updates would make of the judge, which follow what
        G shows: these are thrown away (Metz et al. 2017, arXiv:1611.02163)."""

        def update(d: Net, _: None) -> tuple[Net, None]:
            return self._update_d(turn, d, shown, batch, followed=True)[0], None

        if self.unrolled:
            judge, _ = jax.lax.scan(update, judge, length=self.unrolled)
        return self._g_loss(shown, turn, judge, batch)

    def _player(self, network: nn.Module, variables: Variables) -> Apply:
        """The network in training."""

        def apply(*inputs: Any, **named: Any) -> tuple[Any, Variables]:
            kept = {**named, "mutable": NOT_PARAMS}
            return apply_in(self.precision, network, variables, *inputs, **kept)

        return apply

    def _noise(self, step: int | Int[Array, ""]) -> float | Float[Array, ""] | None:
        if not (self.noise_steps and self.instance_noise):
            return self.instance_noise or None
        return self.instance_noise * jnp.maximum(0.0, 1.0 - step / self.noise_steps)

    def verdict(self, means: Mapping[str, float]) -> str | None:
        """Whether the generator has collapsed, or D has won or remembers its images."""
        return trouble(means, judged=self.loss != "wasserstein")

    def eval_step(
        self, key: Key[Array, ""], state: GameState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        """What D holds to be real, and its logits, of given examples and of as many generated ones;
        where it judges several together, of each what it holds of them, the last ones filled up by
        the first."""
        generator, discriminator = self.generator(train=False), self.discriminator(train=False)
        shown, _ = self.show(key, lambda *x: (generator.apply(state.ema, *x), {}), batch)

        def judged(x: PyTree) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
            num = len(batch["index"])
            full = jnp.arange(-(-num // self.multiple) * self.multiple) % num
            x, label = jax.tree.map(lambda a: a[full], (x, batch.get("label")))
            logits: Any = discriminator.apply(state.d.variables, packed(x, self.pack), label)
            logits = logits.reshape(len(logits), -1)
            logit, prob = (x.mean(1).repeat(self.pack) for x in (logits, jax.nn.sigmoid(logits)))
            return logit[:num], prob[:num]

        (logit, real), (logit_fake, fake) = judged(shown.real), judged(shown.fake)
        judgements = {"d_real": real, "d_fake": fake, "d_logit": logit, "d_logit_fake": logit_fake}
        return {**judgements, **shown.each}
