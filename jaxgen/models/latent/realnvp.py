"""RealNVP: a density by invertible layers (Dinh et al. 2017, arXiv:1605.08803)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxgen.abilities import Bounds, Embeds, Encodes, Generates
from jaxgen.distributions.normal import normal_like, normal_log_prob
from jaxgen.errors import UserError
from jaxgen.fields import Repeats
from jaxgen.model import (
    Batch,
    Metric,
    Metrics,
    Request,
    example_keys,
    labels_or_all,
    without_label,
)
from jaxgen.models.latent.descent import Descends
from jaxgen.nn.flow import MultiScaleFlow
from jaxgen.optim.net import NetState, Variables, create, create_state

EDGE = 0.05
"""How far from 0 and 1 the levels' interval is kept, where its logit is taken (section 4.1)."""


@dataclass(frozen=True)
class RealNVP(Descends, Generates, Encodes, Embeds, Bounds):
    """Data and noise, one made of the other by layers that can be undone.

    The density is that of the noise, standard normal, times how much the layers stretch. It is
    exact on real numbers; levels are made real by uniform noise in their bins, which bounds their
    log-likelihood from below.
    """

    architecture: Literal["auto", "mlp", "conv"] = "auto"
    """mlp: fully connected couplings on all of x at once; conv: convolutions, at several scales;
    auto: conv where x halves evenly so often."""
    scales: Repeats = 2
    """Sizes at which couplings work, each half of the one before; an mlp has as many couplings, all
    on x as it is."""
    couplings: Repeats = 3
    """Couplings of a scale before it is halved, and as many after; they take turns in what they
    change."""
    width: int = 32
    """Units of the couplings' layers, or features of their convolutions."""
    depth: Repeats = 2
    """Hidden layers of each coupling, or its residual blocks."""

    metrics: ClassVar = {
        "nll": Metric("negative log-likelihood", "nats per image", "lower", likelihood=True)
    }
    monitor: ClassVar = "nll"

    def checks(self) -> None:
        if min(self.scales, self.couplings, self.width, self.depth) < 1:
            raise UserError("`scales`, `couplings`, `width` and `depth` must be at least 1")
        if self.spec.dims < 2:
            raise UserError(
                "a coupling moves one part of x by what the other says, and x is one number: add a "
                "coordinate, or use a mixture"
            )
        if self.convolutional and not self._halves:
            raise UserError(
                f"`scales`={self.scales} halves x {self.scales - 1} times, and {self.spec.height}x"
                f"{self.spec.width} does not halve evenly so often: use fewer, or another --size"
            )

    @property
    def _halves(self) -> bool:
        """Whether both sides halve evenly as often as there are scales to go to."""
        by = 2 ** (self.scales - 1)
        return self.spec.height % by == 0 and self.spec.width % by == 0

    @property
    def convolutional(self) -> bool:
        if self.architecture == "auto":
            return self.spec.height * self.spec.width > 1 and self._halves
        return self.architecture == "conv"

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The shapes of the parts of the noise, the coarsest first."""
        if not self.convolutional:
            return (self.spec.shape,)
        (h, w, c) = self.spec.shape
        parts: list[tuple[int, int, int]] = []
        for _ in range(self.scales - 1):
            h, w, c = h // 2, w // 2, 2 * c
            parts.insert(0, (h, w, c))
        return ((h, w, c), *parts)

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def settled(self) -> bool:
        return not self.spec.levels

    @property
    def kind(self) -> str:
        return "exact" if self.settled else "a bound, by noise in the bins"

    @property
    def network(self) -> MultiScaleFlow:
        sizes: dict[str, Any] = {
            "width": self.width, "depth": self.depth, "num_classes": self.spec.num_classes
        }  # fmt: skip
        if self.convolutional:
            return MultiScaleFlow(
                kind="conv", scales=self.scales, couplings=self.couplings, **sizes
            )
        as_many = self.couplings * (2 * self.scales - 1)
        return MultiScaleFlow(kind="mlp", scales=1, couplings=as_many, **sizes)

    def to_real(
        self, x: Shaped[Array, "b h w c"], noise: Float[Array, "b h w c"] | float
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"]]:
        """Real numbers without bounds for x, and the log-determinant of the Jacobian; levels with
        `noise` in [0, 1) from the start of their bins, as logits (section 4.1)."""
        if not self.spec.levels:
            return x, jnp.zeros(len(x))
        inside = EDGE + (1 - 2 * EDGE) * (x.astype(jnp.float32) + noise) / self.spec.levels
        log_det = jnp.log((1 - 2 * EDGE) / self.spec.levels) - jnp.log(inside) - jnp.log1p(-inside)
        return jnp.log(inside) - jnp.log1p(-inside), log_det.sum((1, 2, 3))

    def from_real(self, y: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The inverse of `to_real`, in [0, 1] where x is levels: 0 is the start of the first bin,
        and 1 the end of the last."""
        return (jax.nn.sigmoid(y) - EDGE) / (1 - 2 * EDGE) if self.spec.levels else y

    def log_prob(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
    ) -> Float[Array, " b"]:
        """log p of real x; of levels, with noise in their bins: its mean is below log p."""
        keys = example_keys(key, batch["index"])
        noise = jax.vmap(lambda key: jax.random.uniform(key, self.spec.shape))(keys)
        y, by_logits = self.to_real(batch["x"], noise)
        found: Any = self.network.apply(variables, y, batch.get("label"))
        z, log_det = found
        return normal_log_prob(z, 0.0, 0.0).sum(-1) + log_det + by_logits

    def init(self, key: Key[Array, ""], batch: Batch) -> NetState:
        y, _ = self.to_real(batch["x"], 0.5)
        return create_state(create(self.network, self.optimizer, key, y, batch.get("label")))

    def loss(
        self,
        key: Key[Array, ""],
        variables: Variables,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None,
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        nll = -self.log_prob(key, variables, batch).mean()
        return nll, ({"nll": nll}, {})

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        return {"nll": -self.log_prob(key, state.ema, batch)}

    def log_weight(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Float[Array, " b"]:
        return self.log_prob(key, state.ema, batch)

    def draw_latents(
        self,
        key: Key[Array, ""],
        state: NetState,
        num: int,
        label: Int[Array, " num"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "num z"]:
        return normal_like(key, start + jnp.arange(num), (self.spec.dims,))

    def _inverted(self, state: NetState, z: Float[Array, "b z"], label: Any) -> Array:
        y: Any = self.network.apply(state.ema, z, label, self.shapes, method="invert")
        return self.from_real(y)

    def decode(
        self,
        key: Key[Array, ""],
        state: NetState,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        x = self._inverted(state, z, labels_or_all(self.spec, label, len(z), start))
        if not self.spec.levels:
            return x
        # The middle of a bin stands for its level.
        level = x * self.spec.levels - 0.5
        return jnp.clip(2 * level / (self.spec.levels - 1) - 1, -1.0, 1.0)

    def sample(
        self, key: Key[Array, ""], state: NetState, num: int, request: Request = Request()
    ) -> Shaped[Array, "num h w c"]:
        """See `Samples`; temperature multiplies the noise."""
        label, temperature, start = request
        z = temperature * self.draw_latents(key, state, num, label, start)
        x = self._inverted(state, z, labels_or_all(self.spec, label, num, start))
        if not self.spec.levels:
            return x
        levels = jnp.floor(x * self.spec.levels)
        return jnp.clip(levels, 0, self.spec.levels - 1).astype(jnp.uint8)

    def encode(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Float[Array, "b z"]:
        """The noise that x is, of levels the middle of each bin."""
        return self._encoded(state, batch)

    def embed(self, state: NetState, batch: Batch) -> Float[Array, "b z"]:
        """The noise, of a conditional model averaged over all classes."""
        return without_label(lambda batch: self._encoded(state, batch), self.spec, batch)

    def _encoded(self, state: NetState, batch: Batch) -> Float[Array, "b z"]:
        y, _ = self.to_real(batch["x"], 0.5)
        found: Any = self.network.apply(state.ema, y, batch.get("label"))
        return found[0]

    def facts(self) -> dict[str, str]:
        parts = " + ".join(map(str, self.groups))
        return {"latents": f"{parts} standard normal, as many as x has numbers: {self.kind}"}
