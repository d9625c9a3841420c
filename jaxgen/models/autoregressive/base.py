"""What all autoregressive models share: likelihood, train step, samples, completions."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped, UInt8

from jaxgen.abilities import Completes, Embeds, Samples
from jaxgen.causal import orders
from jaxgen.causal.condition import Condition
from jaxgen.causal.samplers import draw_from
from jaxgen.distributions.likelihoods import Bernoulli, Categorical, Likelihood
from jaxgen.distributions.mixtures import LogisticMixture
from jaxgen.errors import UserError
from jaxgen.fields import refuse_huge, refuse_idle
from jaxgen.model import (
    Batch,
    Inspection,
    Metric,
    Metrics,
    Model,
    Request,
    example_keys,
    labels_or_all,
)
from jaxgen.models.autoregressive import ensemble
from jaxgen.models.autoregressive.chain import Chain
from jaxgen.models.autoregressive.nll_maps import nll_maps
from jaxgen.optim.net import NetState, Precision, Variables, create, create_state
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net
from jaxgen.spec import DataSpec


@dataclass(frozen=True)
class Autoregressive(Model[NetState], Samples, Completes, Embeds):
    """An explicit density by the chain rule over sub-pixels, or the mean of several such densities;
    trained by exact likelihood.

    A subclass gives `network`, and may give what stands below it up to `__post_init__`; the rest
    is final.
    """

    spec: DataSpec
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
    """Shares that a device's batch is taken in, one after another, for memory; the step is the
    same to rounding."""
    precision: Precision = "float32"
    """What the network computes in, in training. Parameters, losses and statistics are float32,
    and so are evaluation and sampling: the figures are exact, and samplers agree to the bit."""
    optimizer: Optimizer = Optimizer()
    """How the network is trained."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "nll": Metric("negative log-likelihood", "nats per image", "lower", likelihood=True)
    }

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """A module that is called with (x floats [b h w c] in [-1, 1], a `Condition`, keys [b] or
        None) and returns the parameters [b h w c p] of the likelihood of every sub-pixel given
        those before it (keys turn dropout on). It has a `stepper` (see
        `causal.samplers.Stepper`; `causal.streamed.StreamedNet` has one), and a method `features`
        of (x, condition), [b h w f] or [b f]."""

    def checks(self) -> None:
        """Raises UserError where the subclass's fields cannot be."""

    def network_facts(self) -> dict[str, str]:
        """What is to be told of the network: how far the prediction of a pixel reaches, …"""
        return {}

    @property
    def convolutional(self) -> bool:
        return True

    @property
    def mixture(self) -> int:
        """How many logistic densities the likelihood of a sub-pixel of more than two levels mixes;
        0: it has one logit per level."""
        return 0

    @property
    def num_components(self) -> int:
        """How many densities the model is the mean of."""
        return 1

    def pixel_order(self, component: int | Array) -> Int[Array, " h*w"] | None:
        """The order in which that component takes the pixels, where it is not `order`."""
        return None

    def of_component(self, variables: Variables, component: int | Array) -> Variables:
        """That component's variables, whose network takes pixels that are laid in its order."""
        return variables

    def step_component(self, key: Key[Array, ""]) -> tuple[Key[Array, ""], int | Array]:
        """A key for the dropout of a train step, and the component that the step trains."""
        return key, 0

    def __post_init__(self) -> None:
        if not self.spec.levels:
            raise UserError(
                "the model gives a probability to every level, and the data are real numbers: "
                "quantize them with --levels=N"
            )
        source = self.spec.source
        if source and (source.height, source.width) != (self.spec.height, self.spec.width):
            raise UserError(
                f"a source must be as large as x, which it is laid beside; they have "
                f"{source.height}x{source.width} and {self.spec.height}x{self.spec.width} places"
            )
        if not 0 <= self.ema < 1:
            raise UserError(f"`ema` must lie in [0, 1); got {self.ema}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"`dropout` must lie in [0, 1); got {self.dropout}")
        if self.accumulate < 1:
            raise UserError(f"`accumulate` must be at least 1; got {self.accumulate}")
        refuse_huge(self)
        self.checks()
        refuse_idle(self)

    @property
    def monitor(self) -> str:
        return "nll"

    @property
    def multiple(self) -> int:
        return self.accumulate

    @property
    def likelihood(self) -> Likelihood:
        """Bernoulli for two levels, else what `mixture` says."""
        levels = self.spec.levels
        if levels == 2:
            return Bernoulli()
        return LogisticMixture(levels, self.mixture) if self.mixture else Categorical(levels)

    @property
    def arranged(self) -> DataSpec:
        """What x is as the network takes it."""
        return orders.arranged(self.order, self.spec)

    def init(self, key: Key[Array, ""], batch: Batch) -> NetState:
        example, x = self.spec.example(1), jnp.zeros((1, *self.arranged.shape))
        condition = self.condition(example.get("label"), example.get("source"))
        laid = orders.arrange_condition(self.order, condition)
        return create_state(create(self.network, self.optimizer, key, x, laid))

    def condition(self, label: Array | None, source: Array | None) -> Condition:
        """What the network is given beside x: the label as a one-hot vector, the source as maps of
        floats in [-1, 1]."""
        vector = maps = None
        if self.spec.num_classes and label is not None:
            vector = jax.nn.one_hot(label, self.spec.num_classes, dtype=jnp.float32)
        if self.spec.source and source is not None:
            maps = self.spec.source.to_float(source)
        return Condition(vector, maps)

    def chain(self, variables: Variables, component: int | Array = 0) -> Chain:
        """The density of one component, with these variables of the network."""
        return Chain(
            self.spec,
            self.network,
            self.of_component(variables, component),
            self.likelihood,
            self.order,
            self.pixel_order(component),
        )

    def log_prob(
        self,
        variables: Variables,
        batch: Batch,
        keys: Key[Array, " b"] | None = None,
        precision: Precision = "float32",
        component: int | Array = 0,
    ) -> Float[Array, "b h w c"]:
        """log p of every sub-pixel given those before it, in nats, under one component; keys turn
        dropout on."""
        condition = self.condition(batch.get("label"), batch.get("source"))
        chain = self.chain(variables, component)
        return chain.log_prob(batch["x"], condition, keys, precision)

    def train_step(
        self,
        key: Key[Array, ""],
        state: NetState,
        batch: Batch,
        step: int | Array,
        axis_name: str | None = None,
    ) -> tuple[NetState, Metrics]:
        key, component = self.step_component(key)

        def loss(variables: Variables, batch: Batch) -> tuple[Array, tuple[Metrics, Variables]]:
            keys = example_keys(key, batch["index"])
            log_p = self.log_prob(variables, batch, keys, self.precision, component)
            nll = -log_p.sum((1, 2, 3)).mean()
            return nll, ({"nll": nll}, {})

        return train_net(
            self.optimizer, self.ema, state, loss, batch, step, axis_name, self.multiple
        )

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        def log_p(component: int | Array) -> Float[Array, " b"]:
            return self.log_prob(state.ema, batch, component=component).sum((1, 2, 3))

        return {"nll": -ensemble.log_mean(log_p, self.num_components)}

    def sample(
        self, key: Key[Array, ""], state: NetState, num: int, request: Request = Request()
    ) -> UInt8[Array, "num h w c"]:
        """See `Samples`; each x is of one component, which (key, its number) draws."""
        return self._drawn(key, state, num, request, None)

    def translate(
        self,
        key: Key[Array, ""],
        state: NetState,
        source: Shaped[Array, "b h w c"],
        label: Int[Array, " b"] | None = None,
        way: str = "forth",
        start: int | Int[Array, ""] = 0,
    ) -> UInt8[Array, "b h w c"]:
        """Draws x given each source. A model whose data always have one extends `Translates` too,
        of which this is the method."""
        if self.spec.source is None or way != "forth":
            raise UserError("this model makes x from no source: train it on pairs")
        return self._drawn(key, state, len(source), Request(label, start=start), source)

    def complete(
        self,
        key: Key[Array, ""],
        state: NetState,
        x: UInt8[Array, "b h w c"],
        known: Array,
        request: Request = Request(),
    ) -> UInt8[Array, "b h w c"]:
        """Draws the sub-pixels that are not known, in the order of the first component, R before G
        before B.

        Each is conditioned on those before it; known sub-pixels further on are kept but cannot
        influence the ones before them.
        """
        keys = example_keys(key, request.start + jnp.arange(x.shape[0]))
        return self._filled(keys, state, x, known, request, None, 0)

    def _drawn(
        self, key: Key[Array, ""], state: NetState, num: int, request: Request, source: Array | None
    ) -> UInt8[Array, "num h w c"]:
        x = jnp.zeros((num, *self.spec.shape), jnp.uint8)
        known, keys = jnp.zeros(x.shape, bool), example_keys(key, request.start + jnp.arange(num))

        def drawn(component: int | Array) -> Array:
            return self._filled(keys, state, x, known, request, source, component)

        # No sub-pixel has that number: its noise is that of the component.
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, self.spec.dims)
        return ensemble.each_of_one(own, drawn, self.num_components)

    def _filled(
        self,
        keys: Key[Array, " b"],
        state: NetState,
        x: UInt8[Array, "b h w c"],
        known: Array,
        request: Request,
        source: Array | None,
        component: int | Array,
    ) -> UInt8[Array, "b h w c"]:
        if self.spec.source and source is None:
            raise UserError("this model makes x from a source, and none is given: let it translate")
        label = labels_or_all(self.spec, request.label, x.shape[0], request.start)
        draw = draw_from(self.likelihood, keys, request.temperature)
        chain, condition = self.chain(state.ema, component), self.condition(label, source)
        return chain.fill(draw, x, known, condition, self.sampler)

    def embed(self, state: NetState, batch: Batch) -> Float[Array, "b f"]:
        """Returns the mean over places of the network's last features, under the first component.
        Labels are kept from it: a classifier would read them there."""
        condition = self.condition(None, batch.get("source"))
        return self.chain(state.ema).features(batch["x"], condition)

    def facts(self) -> dict[str, str]:
        sampling = f"{self.spec.dims} sub-pixels in turn, the cost of one forward pass"
        facts = {**self.network_facts(), "sampling": sampling}
        if self.num_components == 1:
            return facts
        return {
            **facts,
            "density": f"the mean of {self.num_components} densities, which share all parameters; "
            "one is trained a step, drawn at random; completions are of the first",
            "sampling": f"{sampling}, for each of the {self.num_components} components",
        }

    def inspect(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Inspection:
        """The NLL of every pixel, under the first component."""
        return nll_maps(-self.log_prob(state.ema, batch).sum(-1), batch["x"])
