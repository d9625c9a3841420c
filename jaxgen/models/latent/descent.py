"""What models of one network and one loss share: the fields of its training, and the train step."""

from abc import abstractmethod
from dataclasses import dataclass

import jax
from jaxtyping import Array, Int, Key

from jaxgen.errors import UserError
from jaxgen.fields import refuse_huge, refuse_idle
from jaxgen.model import Batch, Metrics, Model
from jaxgen.optim.net import NetState, Variables
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net


@dataclass(frozen=True)
class Descends(Model[NetState]):
    """A model of one network, which goes down one loss. A model gives the `loss`."""

    ema: float = 0.995
    """Decay of the parameters' moving average, which evaluation and sampling use."""
    accumulate: int = 1
    """Parts that a device's batch is taken in, one after another, for memory; the step is the
    same to rounding."""
    optimizer: Optimizer = Optimizer()
    """How the network is trained, all of it by one loss."""

    @abstractmethod
    def loss(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None,
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        """The mean over the batch of what training lowers, metrics, and the collections that the
        pass changed."""

    @abstractmethod
    def checks(self) -> None:
        """Raises UserError where the model's own fields cannot be."""

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise UserError(f"`ema` must lie in [0, 1); got {self.ema}")
        if self.accumulate < 1:
            raise UserError(f"`accumulate` must be at least 1; got {self.accumulate}")
        refuse_huge(self)
        self.checks()
        refuse_idle(self)

    @property
    def multiple(self) -> int:
        return self.accumulate

    def train_step(
        self,
        key: Key[Array, ""],
        state: NetState,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None = None,
    ) -> tuple[NetState, Metrics]:
        """One step down the loss."""

        def loss(variables: Variables, batch: Batch) -> tuple[Array, tuple[Metrics, Variables]]:
            # The parts share the key: the noise of an example follows from its index too.
            return self.loss(jax.random.clone(key), variables, batch, step, axis_name)

        settings = self.optimizer, self.ema, state
        return train_net(*settings, loss, batch, step, axis_name, self.accumulate)
