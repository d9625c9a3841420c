"""Vector-quantized VAE (van den Oord et al. 2017, arXiv:1711.00937): discrete latents, and an
autoregressive prior over them."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped, UInt8

from jaxgen.abilities import Bounds, Embeds, Encodes, Samples
from jaxgen.errors import UserError
from jaxgen.fields import Repeats, refuse_huge, refuse_idle
from jaxgen.model import (
    Batch,
    Inspection,
    Metric,
    Metrics,
    Request,
    example_keys,
    labels_or_all,
)
from jaxgen.models.latent.observation import Observes
from jaxgen.models.latent.vqvae_net import CodePrior, Stages, VQVAENet, arrays_of, codebook_of
from jaxgen.nn.codebook import Codebook, straight_through
from jaxgen.nn.grids import GridDecoder, GridEncoder, grid_sizes
from jaxgen.optim.net import Net, NetState, Precision, Variables, apply_in, create, create_state
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import Loss, train_net
from jaxgen.spec import DataSpec

NATS = "nats per image"


@dataclass(frozen=True)
class VQVAE(Observes[Stages], Samples, Encodes, Embeds, Bounds):
    """A grid of codes from a codebook, and a Gated PixelCNN as their prior.

    First encoder, decoder and codebook are trained, then the prior on the codes of the data. Since
    x has one code, p(code) p(x | code) bounds p(x) from below.
    """

    codes: int = 64
    """K: how many vectors the codebook has, at most 256."""
    size: int = 8
    """Numbers of each of these vectors."""
    halvings: Repeats = 2
    """How often height and width are halved, down to the grid of codes."""
    filters: int = 32
    """Features of the encoder's and the decoder's layers."""
    residual_blocks: Repeats = 1
    """Residual blocks of each of the two, at the grid's size."""
    commitment: float = 0.25
    """Weight of the squared distance between what is encoded and its code (the paper's beta)."""
    decay: float = 0.99
    """Decay of the moving averages that the codes are."""
    prior_from: int = 1000
    """The step from which on the prior is trained, and no longer the autoencoder."""
    features: int = 32
    """Features of each of the prior's two stacks."""
    blocks: Repeats = 3
    """The prior's layers after the first, whose kernels have a side of 3."""
    dropout: float = 0.5
    """Dropout rate inside the prior."""
    sampler: Literal["cached", "naive"] = "cached"
    """cached: the cost of one forward pass; naive: the whole prior per code. The images are the
    same."""
    ema: float = 0.995
    """Decay of the parameters' moving average, which evaluation and sampling use, and whose codes
    the prior is trained on."""
    accumulate: int = 1
    """Parts that a device's batch is taken in, one after another, for memory; the step is the
    same to rounding."""
    precision: Precision = "float32"
    """What the networks compute in while training. Parameters, losses and statistics stay float32,
    and so do evaluation and sampling."""
    optimizer: Optimizer = Optimizer()
    """How both are trained."""

    clock: ClassVar = ("prior_from",)
    settled: ClassVar = True
    kind: ClassVar = "a bound, by the one code of x"
    monitor: ClassVar = "nll"
    metrics: ClassVar = {
        "nll": Metric("negative log-likelihood", NATS, "lower", likelihood=True),
        "reconstruction": Metric("reconstruction, -log p(x | codes)", NATS, "lower"),
        "code_nats": Metric("codes, -log p(codes)", NATS, "lower"),
        "commitment": Metric("squared distance to the codes", "per image", "lower"),
        "perplexity": Metric("perplexity of the codebook", "codes", "higher"),
    }

    def __post_init__(self) -> None:
        refuse_huge(self)
        if not 2 <= self.codes <= 256:
            raise UserError(f"`codes` must lie in 2..256; got {self.codes}")
        if min(self.size, self.filters, self.features, self.accumulate) < 1:
            raise UserError("`size`, `filters`, `features` and `accumulate` must be at least 1")
        least = min(self.halvings, self.residual_blocks, self.blocks, self.prior_from)
        if least < 0 or self.commitment < 0:
            raise UserError(
                "`halvings`, `residual_blocks`, `blocks`, `prior_from` and `commitment` must not "
                "be negative"
            )
        if max(self.halvings, self.residual_blocks, self.blocks) > 64:
            raise UserError("`halvings`, `residual_blocks` and `blocks` must be at most 64")
        for name in ("decay", "dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"`{name}` must lie in [0, 1); got {getattr(self, name)}")
        _ = self.observation  # refuses what does not fit x
        refuse_idle(self)

    @property
    def changes(self) -> tuple[int, ...]:
        return (self.prior_from,) if self.prior_from else ()

    def at(self, step: int) -> "VQVAE":
        """The second stage is a model whose prior is trained from the start."""
        return self if step < self.prior_from else dataclasses.replace(self, prior_from=0)

    @property
    def multiple(self) -> int:
        return self.accumulate

    @property
    def convolutional(self) -> bool:
        return True

    @property
    def grid(self) -> DataSpec:
        """What the codes of one x are: a picture of one channel, whose levels are names."""
        height, width = grid_sizes(self.spec.height, self.spec.width, self.halvings)[-1]
        return DataSpec(height, width, 1, self.codes)

    @property
    def groups(self) -> tuple[int, ...]:
        return (self.grid.dims * self.size,)

    @property
    def network(self) -> VQVAENet:
        same: dict[str, Any] = {
            "filters": self.filters,
            "halvings": self.halvings,
            "blocks": self.residual_blocks,
        }
        decoder = self.observation.network(GridDecoder, **same, num_classes=self.spec.num_classes)
        return VQVAENet(encoder=GridEncoder(size=self.size, **same), decoder=decoder)

    @property
    def prior(self) -> CodePrior:
        """p(codes)."""
        sizes = self.features, self.blocks, self.dropout
        return CodePrior(self.grid, *sizes, self.spec.num_classes)

    def encoded(
        self, variables: Variables, x: Array, precision: Precision = "float32"
    ) -> Float[Array, "b h2 w2 d"]:
        """What the encoder makes of x, before it is quantized."""
        x = self.spec.to_float(x)
        return apply_in(precision, self.network, arrays_of(variables), x, method="encode")

    def quantized(self, variables: Variables, x: Array) -> UInt8[Array, "b h2 w2 1"]:
        """The codes of x, by number."""
        nearest = codebook_of(variables).nearest(self.encoded(variables, x))
        return nearest[..., None].astype(jnp.uint8)

    def log_px(
        self,
        variables: Variables,
        z: Float[Array, "b h2 w2 d"],
        batch: Batch,
        precision: Precision = "float32",
    ) -> Float[Array, " b"]:
        """log p(x | z) in nats."""
        args = arrays_of(variables), z, batch.get("label")
        params = apply_in(precision, self.network, *args, method="decode")
        return self.observation.log_prob(params, batch["x"])

    def init(self, key: Key[Array, ""], batch: Batch) -> Stages:
        """The codebook is drawn from what the encoder makes of the first batch."""
        key_net, key_choice, key_noise, key_prior = jax.random.split(key, 4)
        x = self.spec.to_float(batch["x"])
        net = create(self.network, self.optimizer, key_net, x, batch.get("label"))
        vectors = self.encoded({**net.variables}, batch["x"]).reshape(-1, self.size)
        chosen = vectors[jax.random.choice(key_choice, len(vectors), (self.codes,))]
        # Apart, where the same vector was drawn twice.
        chosen += 0.01 * jax.random.normal(key_noise, chosen.shape)
        codebook = Codebook.of(chosen, self.grid.dims)
        net = Net({**net.variables, "codebook": codebook._asdict()}, net.opt_state)
        example = self.spec.example(1)
        laid = jnp.zeros((1, *self.grid.shape)), self.prior.condition(example.get("label"))
        prior = create(self.prior.network, self.optimizer, key_prior, *laid)
        return Stages(create_state(net), create_state(prior))

    def train_step(
        self,
        key: Key[Array, ""],
        state: Stages,
        batch: Batch,
        step: int | Int[Array, ""],
        axis_name: str | None = None,
    ) -> tuple[Stages, Metrics]:
        """One step of the stage that this is (see `at`); the other's arrays pass through."""

        def autoencode(variables: Variables, batch: Batch) -> Any:
            codebook = codebook_of(variables)
            e = self.encoded(variables, batch["x"], self.precision)
            nearest = codebook.nearest(e)
            z = codebook.vectors[nearest]
            far = ((e - jax.lax.stop_gradient(z)) ** 2).sum((1, 2, 3)).mean()
            nll = -self.log_px(variables, straight_through(e, z), batch, self.precision).mean()
            rows = jax.lax.stop_gradient(e).reshape(-1, self.size), nearest.reshape(-1)
            moved = codebook.moved(*rows, len(e), self.decay)
            changed, metrics = {"codebook": moved._asdict()}, {"perplexity": codebook.perplexity}
            metrics |= {"reconstruction": nll, "commitment": far}
            return nll + self.commitment * far, (metrics, changed)

        def predict(variables: Variables, batch: Batch) -> Any:
            codes = self.quantized(state.autoencoder.ema, batch["x"])
            told = batch.get("label"), example_keys(key, batch["index"]), self.precision
            nats = -self.prior.log_prob(variables, codes, *told).mean()
            return nats, ({"code_nats": nats}, {})

        def stage(state: NetState, loss: Loss) -> tuple[NetState, Metrics]:
            settings = self.optimizer, self.ema, state, loss
            return train_net(*settings, batch, step, axis_name, self.accumulate)

        if self.prior_from:
            net, metrics = stage(state.autoencoder, autoencode)
            return Stages(net, state.prior), metrics
        net, metrics = stage(state.prior, predict)
        return Stages(state.autoencoder, net), metrics

    def eval_step(
        self, key: Key[Array, ""], state: Stages, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        ours = state.autoencoder.ema
        e, codebook = self.encoded(ours, batch["x"]), codebook_of(ours)
        nearest = codebook.nearest(e)
        z, codes = codebook.vectors[nearest], nearest[..., None].astype(jnp.uint8)
        code_nats = -self.prior.log_prob(state.prior.ema, codes, batch.get("label"))
        reconstruction = -self.log_px(ours, z, batch)
        return {
            "nll": reconstruction + code_nats,
            "reconstruction": reconstruction,
            "code_nats": code_nats,
            "commitment": ((e - z) ** 2).sum((1, 2, 3)),
        }

    def log_weight(self, key: Key[Array, ""], state: Stages, batch: Batch) -> Float[Array, " b"]:
        return -self.eval_step(key, state, batch)["nll"]

    def sample(
        self, key: Key[Array, ""], state: Stages, num: int, request: Request = Request()
    ) -> Shaped[Array, "num h w c"]:
        """Codes from the prior and x from p(x | codes); temperature is that of both."""
        label, temperature, start = request
        label = labels_or_all(self.spec, label, num, start)
        key_z, key_x = jax.random.split(key)
        index = start + jnp.arange(num)
        given = state.prior.ema, label, temperature, self.sampler
        codes = self.prior.draw(example_keys(key_z, index), *given)
        params = self._decoded(state, self._vectors(state, codes), label)
        return self.observation.sample(example_keys(key_x, index), params, temperature)

    def _vectors(self, state: Stages, codes: UInt8[Array, "b h w 1"]) -> Float[Array, "b h w d"]:
        return codebook_of(state.autoencoder.ema).vectors[codes[..., 0]]

    def _decoded(self, state: Stages, z: Float[Array, "b h2 w2 d"], label: Any) -> Array:
        args = arrays_of(state.autoencoder.ema), z, label
        return apply_in("float32", self.network, *args, method="decode")

    def encode(self, key: Key[Array, ""], state: Stages, batch: Batch) -> Float[Array, "b z"]:
        """The vectors of the codes of x."""
        codes = self.quantized(state.autoencoder.ema, batch["x"])
        return self._vectors(state, codes).reshape(len(codes), -1)

    def embed(self, state: Stages, batch: Batch) -> Float[Array, "b z"]:
        """What the encoder makes of x, before it is quantized; labels do not enter."""
        return self.encoded(state.autoencoder.ema, batch["x"]).reshape(len(batch["x"]), -1)

    def decode(
        self,
        key: Key[Array, ""],
        state: Stages,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        start: int | Int[Array, ""] = 0,
    ) -> Float[Array, "b h w c"]:
        """The mean of p(x | z), of any vectors: they need not be codes."""
        label = labels_or_all(self.spec, label, len(z), start)
        vectors = z.reshape(len(z), *self.grid.shape[:2], self.size)
        return self.observation.mean(self._decoded(state, vectors, label))

    def inspect(self, key: Key[Array, ""], state: Stages, batch: Batch) -> Inspection:
        """How the codebook is used by the given data."""
        codes = self.quantized(state.autoencoder.ema, batch["x"])
        share = jax.nn.one_hot(codes.reshape(-1), self.codes).mean(0)
        numbers = {
            "codes in use": (share > 0).sum(),
            "codes": jnp.asarray(self.codes),
            "perplexity of the codebook": jnp.exp(jax.scipy.special.entr(share).sum()),
        }
        return Inspection(numbers, {}, {"share of each code": share[None, None, None]})

    def facts(self) -> dict[str, str]:
        height, width, _ = self.grid.shape
        codes = f"{height}x{width} codes of {self.codes}, each {self.size} numbers"
        return {"latents": f"{codes}; p(x | z) {type(self.observation.p).__name__}"}
