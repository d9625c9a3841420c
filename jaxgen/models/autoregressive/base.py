"""What all autoregressive models share: likelihood, train step, samples, completions."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxgen.causal import orders
from jaxgen.causal.samplers import Draw, sample_pixels_cached, sample_pixels_naive
from jaxgen.distributions.likelihoods import Bernoulli, Categorical, Likelihood
from jaxgen.errors import UserError
from jaxgen.model import Batch, Completes, Inspection, Metrics, Model, example_keys, labels_or_all
from jaxgen.optim.net import NetState, Params, Precision, apply_in, create, create_state
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net
from jaxgen.spec import ImageSpec


@dataclass(frozen=True)
class Autoregressive(Model[NetState], Completes):
    """An explicit density by the chain rule over sub-pixels; trained by exact likelihood.

    A subclass gives `network`: a module that is called with (x floats [b h w c] in [-1, 1], label
    int [b] or None, keys [b] or None) and returns the parameters [b h w c p] of the likelihood of
    every sub-pixel given those before it (keys turn dropout on), and that has a `stepper` (see
    `sampling.Stepper`; `streams.StreamedNet` has one).
    """

    spec: ImageSpec
    order: orders.Order = "raster"
    """The order of the pixels; completions follow it too."""
    dropout: float = 0.5
    """Dropout rate inside the network, in training."""
    ema: float = 0.995
    """Decay of the parameters' moving average, which evaluation and sampling use."""
    sampler: Literal["cached", "naive"] = "cached"
    """cached: the cost of one forward pass; naive: the whole net per sub-pixel. The images are
    the same."""
    accumulate: int = 1
    """Parts that a device's batch is taken in, one after another, for memory; the step is the
    same to rounding."""
    precision: Precision = "float32"
    """Of the network in training. Parameters, losses and statistics are float32, and so are
    evaluation and sampling: the figures are exact, and samplers agree to the bit."""
    optimizer: Optimizer = Optimizer()
    """Of the whole network."""

    monitor: ClassVar[str] = "nll"

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise UserError(f"--…ema must lie in [0, 1); got {self.ema}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--…dropout must lie in [0, 1); got {self.dropout}")
        if self.accumulate < 1:
            raise UserError(f"--…accumulate must be at least 1; got {self.accumulate}")

    @property
    def network(self) -> nn.Module:
        """See the class."""
        raise NotImplementedError

    @property
    def parts(self) -> int:
        return self.accumulate

    @property
    def convolutional(self) -> bool:
        return True

    @property
    def likelihood(self) -> Likelihood:
        """Bernoulli for two levels, else one logit per level."""
        return Bernoulli() if self.spec.levels == 2 else Categorical(self.spec.levels)

    @property
    def samplers(self) -> dict[str, Callable[..., Array]]:
        """The functions that `sampler` names."""
        return {"cached": sample_pixels_cached, "naive": sample_pixels_naive}

    @property
    def one_order(self) -> bool:
        """Whether every image has its pixels in one known order, as a codec needs."""
        return True

    @property
    def arranged(self) -> ImageSpec:
        """The images as the network takes them."""
        if self.order != "columns":
            return self.spec
        return dataclasses.replace(self.spec, height=self.spec.width, width=self.spec.height)

    def arrange(self, image: Array) -> Array:
        """Images [b h w …] as the network takes them, or back again."""
        return orders.arrange(self.order, image)

    def init(self, key: Key[Array, ""]) -> NetState:
        image = jnp.zeros((1, *self.arranged.shape))
        label = jnp.zeros((1,), jnp.int32) if self.spec.num_classes else None
        return create_state(create(self.network, self.optimizer, key, image, label))

    def log_prob(
        self,
        params: Params,
        batch: Batch,
        keys: Key[Array, " b"] | None = None,
        precision: Precision = "float32",
    ) -> Float[Array, "b h w c"]:
        """log p of every sub-pixel given those before it, in nats; keys turn dropout on."""
        image = self.arrange(batch["image"])
        inputs = self.spec.to_float(image), batch.get("label"), keys
        values = apply_in(precision, self.network, {"params": params}, *inputs)
        return self.arrange(self.likelihood.log_prob(values, image))

    def train_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch, axis_name: str | None = None
    ) -> tuple[NetState, Metrics]:
        def loss(params: Params, batch: Batch) -> tuple[Array, Metrics]:
            nll = -self.training_log_prob(key, params, batch).sum((1, 2, 3)).mean()
            return nll, {"nll": nll}

        return train_net(self.optimizer, self.ema, state, loss, batch, axis_name, self.parts)

    def training_log_prob(
        self, key: Key[Array, ""], params: Params, batch: Batch
    ) -> Float[Array, "b h w c"]:
        """What a step raises: `log_prob` with dropout."""
        keys = example_keys(key, batch["index"])
        return self.log_prob(params, batch, keys, self.precision)

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        return {"nll": -self.log_prob(state.ema, batch).sum((1, 2, 3))}

    def sample(
        self,
        key: Key[Array, ""],
        state: NetState,
        num: int,
        label: Int[Array, " num"] | None = None,
        temperature: float | Array = 1.0,
        start: int | Array = 0,
    ) -> UInt8[Array, "num h w c"]:
        image = jnp.zeros((num, *self.spec.shape), jnp.uint8)
        known = jnp.zeros(image.shape, bool)
        return self.complete(key, state, image, known, label, temperature, start)

    def complete(
        self,
        key: Key[Array, ""],
        state: NetState,
        image: UInt8[Array, "b h w c"],
        known: Array,
        label: Int[Array, " b"] | None = None,
        temperature: float | Array = 1.0,
        start: int | Array = 0,
    ) -> UInt8[Array, "b h w c"]:
        """Draws the sub-pixels that are not known, in the model's order, R before G before B.

        Each is conditioned on those before it; known sub-pixels further on are kept but cannot
        influence the ones before them.
        """
        num = image.shape[0]
        label = labels_or_all(self.spec, label, num, start)
        draw = self.draw(example_keys(key, start + jnp.arange(num)), temperature)
        given, known = self.arrange(image), self.arrange(known)
        method = self.samplers[self.sampler]
        drawn = method(self.bind(state), self.arranged, draw, given, known, label)
        return self.arrange(drawn)

    def draw(self, keys: Key[Array, " b"], temperature: float | Array = 1.0) -> Draw:
        """How the samplers draw: sub-pixel d of an image from (its key, d) alone."""

        def noise(positions: Array) -> Array:
            at = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))(keys, positions)
            return jax.vmap(jax.vmap(self.likelihood.noise))(at)

        def pick(state: Any, noise: Array, params: Array) -> tuple[Any, Array, Any]:
            return state, self.likelihood.pick(noise, params, temperature), ()

        return Draw(noise, pick)

    def bind(self, state: NetState) -> Any:
        """The network with the averaged parameters, as the samplers take it."""
        return self.network.bind({"params": state.ema})

    def facts(self) -> dict[str, str]:
        return {"sampling": f"{self.spec.dims} sub-pixels in turn, the cost of one forward pass"}

    def inspect(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Inspection:
        """The per-pixel NLL: its mean over the batch, and for the first images."""
        nats = -self.log_prob(state.ema, batch).sum(-1)
        maps = {
            "NLL per pixel (nats)": nats[None, :16],
            "mean NLL per pixel (nats)": nats.mean(0)[None, None],
        }
        return Inspection({}, {"images of the NLL maps below": batch["image"][None, :16]}, maps)
