"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): each layer takes its style from w, to which a
network maps z."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.abilities import Embeds
from jaxgen.distributions.normal import normal_like
from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats
from jaxgen.losses.penalties import lazily, path_lengths
from jaxgen.model import Batch, Metric, Request, example_keys, labels_or_all, without_label
from jaxgen.models.adversarial.latent_game import PriorGame
from jaxgen.models.adversarial.shown import Shown
from jaxgen.models.adversarial.state import Apply, GameState
from jaxgen.nn.labels import Condition
from jaxgen.nn.style import ResidualDiscriminator, StyleGenerator, style_layers, style_sizes
from jaxgen.optim.net import Variables

FOLLOWED = 0.01
"""How far the running mean of path lengths moves towards each new one."""


@dataclass(frozen=True)
class StyleGAN2(PriorGame, Embeds):
    """Implicit density whose latents set the style of each layer, at each size of the image.

    The temperature of samples is the truncation psi of Karras et al. 2019, appendix B: styles are
    w_mean + psi (w - w_mean). Scaling z, as other games do, would do nothing, since the mapping
    first brings z to one length.
    """

    condition_by: Condition = "projection"
    """How the discriminator takes labels, of a conditional model. concat: beside its input;
    projection: an inner product of its last features with the label's embedding, which joins the
    logit; auxiliary: not at all; it is to tell them, and the generator to draw what it can tell."""
    latents: int = 64
    """Dimensions of z, standard normal."""
    styles: int = 64
    """Dimensions of w, from which each layer takes its style."""
    mapping: Repeats = 4
    """Fully connected layers from z to w."""
    filters: int = 32
    """Features at full resolution of both players, doubled at every halving, to 512 at most."""
    noise: bool = True
    """Whether each layer adds noise, times a strength that is learned, for details by chance."""
    upsample: Literal["nearest", "bilinear"] = "bilinear"
    """How maps are doubled: each pixel repeated, or interpolated between."""
    mixing: float = 0.9
    """Share of the training examples whose styles are those of two latents, the second's from
    some layer on."""
    path_length: float = 0.0
    """gamma of the penalty gamma (|J y| - a)^2, where J is how data depend on w, y is noise and a
    the running mean of the lengths |J y|: equal steps in w are to change data as much."""
    path_every: int = 4
    """Steps from one with that penalty to the next, in which it counts as often."""
    deviation_group: int = 4
    """Examples, one after another, whose variation D sees as one more feature; 0 = none."""

    only: ClassVar = {
        "upsample": Only(
            "without images whose sides are 8 pixels or more", lambda model: model.doubles
        ),
        "path_every": Only("without `path_length`", lambda model: model.path_length > 0),
    }
    metrics: ClassVar = {
        **PriorGame.metrics,
        "path_penalty": Metric("what the path lengths add to the generator's loss"),
    }

    def check(self) -> None:
        if min(self.latents, self.styles, self.mapping, self.filters) < 1:
            raise UserError("`latents`, `styles`, `mapping` and `filters` must be positive")
        if not 0 <= self.mixing <= 1:
            raise UserError(f"`mixing` must lie in [0, 1]; got {self.mixing}")
        if self.path_length < 0:
            raise UserError(f"`path_length` must not be negative; got {self.path_length}")
        if self.path_every < 1:
            raise UserError(f"`path_every` must be at least 1; got {self.path_every}")
        if self.deviation_group < 0 or self.deviation_group == 1:
            raise UserError(
                "`deviation_group` must be 0, or at least 2: one example alone does not vary; got "
                f"{self.deviation_group}"
            )
        style_sizes(self.spec.height, self.spec.width)

    @property
    def doubles(self) -> bool:
        """Whether there are maps of more than one size."""
        return len(style_sizes(self.spec.height, self.spec.width)) > 1

    @property
    def convolutional(self) -> bool:
        return True

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.latents,)

    def generator(self, train: bool, axis_name: str | None = None) -> StyleGenerator:
        return StyleGenerator(
            shape=self.spec.shape,
            styles=self.styles,
            mapping=self.mapping,
            filters=self.filters,
            noise=self.noise,
            enlarge=self.upsample,
            num_classes=self.spec.num_classes,
            train=train,
        )

    def discriminator(self, train: bool, axis_name: str | None = None) -> ResidualDiscriminator:
        return ResidualDiscriminator(
            filters=self.filters,
            group=self.deviation_group,
            num_classes=self.spec.num_classes,
            condition=self.condition_by,
        )

    def init(self, key: Key[Array, ""], batch: Batch) -> GameState:
        x, label = self.spec.to_float(batch["x"]), batch.get("label")
        return self.first_state(key, batch, (jnp.zeros((len(x), self.latents)), label), x)

    def show(self, key: Key[Array, ""], g: Apply, batch: Batch) -> tuple[Shown, Variables]:
        """With the styles of two latents in some examples."""
        z, label = self.draws(key, batch), batch.get("label")
        *given, keys = self._mixed(key, batch)
        fake, changed = g(z, label, keys, *given)
        return Shown(self.spec.to_float(batch["x"]), fake), changed

    def _mixed(self, key: Key[Array, ""], batch: Batch) -> tuple[Any, Any, Key[Array, " b"]]:
        """The second latents of a training batch, the layers from which on they count, and the
        keys of the noise."""
        other, chance, noise = (jax.random.fold_in(jax.random.clone(key), i) for i in (1, 2, 3))
        keys = example_keys(noise, batch["index"])
        if not self.mixing:
            return None, None, keys
        layers = style_layers(self.spec.height, self.spec.width)

        def crossing(key: Key[Array, ""]) -> Int[Array, ""]:
            key_mixes, key_layer = jax.random.split(key)
            layer = jax.random.randint(key_layer, (), 1, layers)
            return jnp.where(jax.random.uniform(key_mixes) < self.mixing, layer, layers)

        crossings = jax.vmap(crossing)(example_keys(chance, batch["index"]))
        return self.draws(other, batch), crossings, keys

    def demands(
        self, key: Key[Array, ""], g: Apply, batch: Batch, step: int | Int[Array, ""]
    ) -> tuple[dict[str, Array], Variables]:
        """Path-length regularization (equation 4), of latents of its own. Lengths are compared with
        their mean before this step, not after, so that the step needs no exchange for it."""
        if not self.path_length:
            return {}, {}
        mean, _ = g(method="path_length")

        def penalty() -> tuple[Array, Array]:
            parts = (jax.random.fold_in(jax.random.clone(key), i) for i in (4, 5, 6))
            key_z, key_y, key_noise = parts
            w, _ = g(self.draws(key_z, batch), batch.get("label"), method="styled")
            y = normal_like(key_y, batch["index"], self.spec.shape)
            keys = example_keys(key_noise, batch["index"])
            y = y / (self.spec.height * self.spec.width) ** 0.5
            lengths = path_lengths(lambda w: g(w, keys, method="draw")[0], w, y)
            value = self.path_length * self.path_every * ((lengths - mean) ** 2).mean()
            moved = mean + FOLLOWED * (lengths.mean() - mean)
            return value, jax.lax.stop_gradient(moved)

        value, moved = lazily(step, self.path_every, penalty, (jnp.float32(0.0), mean))
        return {"path_penalty": value}, {"path": {"mean": moved}}

    def decode(
        self,
        key: Key[Array, ""],
        state: GameState,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        """The averaged generator's output, with noise that follows from (key, start + i)."""
        return self._decoded(key, state, z, Request(label, 1.0, start))

    def sample(
        self, key: Key[Array, ""], state: GameState, num: int, request: Request = Request()
    ) -> Shaped[Array, "num h w c"]:
        """G(z) for z from the prior, its style moved towards the mean of styles, from which it
        keeps the temperature's share of its distance."""
        z = self.draw_latents(key, state, num, request.label, request.start)
        noise = jax.random.fold_in(jax.random.clone(key), 1)
        return self.spec.from_float(self._decoded(noise, state, z, request))

    def _decoded(
        self, key: Key[Array, ""], state: GameState, z: Float[Array, "b z"], request: Request
    ) -> Float[Array, "b h w c"]:
        label, psi, start = request
        label = labels_or_all(self.spec, label, len(z), start)
        keys = example_keys(key, start + jnp.arange(len(z)))
        network = self.generator(train=False)
        x: Any = network.apply(state.ema, z, label, keys, psi, method="truncated")
        return jnp.clip(x, -1.0, 1.0) if self.spec.levels else x

    def embed(self, state: GameState, batch: Batch) -> Float[Array, "b f"]:
        """What the discriminator sees of each example before it compares them, without a label: of
        one that takes it beside x, averaged over all classes."""

        def features(batch: Batch) -> Any:
            x, network = self.spec.to_float(batch["x"]), self.discriminator(train=False)
            return network.apply(state.d.variables, x, batch.get("label"), features=True)

        if self.condition_by == "concat":
            return without_label(features, self.spec, batch)
        return features({"x": batch["x"]})  # type: ignore[no-any-return]
