"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114)."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxgen.distributions.likelihoods import LIKELIHOODS, Likelihood, LocationScale
from jaxgen.distributions.normal import kl_standard_normal, normal_like, normal_log_prob
from jaxgen.errors import UserError
from jaxgen.losses.bounds import importance_weighted_bound
from jaxgen.model import (
    Batch,
    Generates,
    Inspection,
    Metrics,
    Model,
    Reconstructs,
    example_keys,
    labels_or_all,
)
from jaxgen.nn.layers import (
    ACTIVATIONS,
    Activation,
    Conv,
    ConvTranspose,
    dropout,
    fold_keys,
    halvings,
    upsample,
)
from jaxgen.optim.net import NetState, Params, Precision, apply_in, create, create_state
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import train_net
from jaxgen.spec import ImageSpec

LOGVAR_RANGE = (-15.0, 15.0)


class VAENet(nn.Module):
    """Encoder x -> (mean, logvar) of q(z | x), and decoder z -> parameters of p(x | z)."""

    model: "VAE"

    def setup(self) -> None:
        m = self.model
        self.encoder_layers = [nn.Dense(n) for n in m.hidden]
        self.posterior = nn.Dense(2 * m.latents)
        self.decoder_layers = [nn.Dense(n) for n in reversed(m.hidden)]
        if m.network == "conv":
            self._setup_conv()
        else:
            self.out = nn.Dense(m.spec.dims * m.outputs)
        if m.scale == "shared":
            self.log_scale = self.param("log_scale", nn.initializers.zeros, ())

    def _setup_conv(self) -> None:
        m = self.model
        sizes = halvings(m.spec.height, m.spec.width)
        widths = [m.filters * 2**i for i in range(len(sizes))]
        self.conv_in = Conv(widths[0], 3)
        self.convs = [Conv(n, 4, stride=2) for n in widths[1:]]
        self.base = (*sizes[-1], widths[-1])
        self.unflatten = nn.Dense(sizes[-1][0] * sizes[-1][1] * widths[-1])
        self.sizes = sizes[-2::-1]
        self.deconvs = [
            ConvTranspose(n, 4, size=size) if m.upsample == "transpose" else Conv(n, 3)
            for n, size in zip(widths[-2::-1], self.sizes, strict=True)
        ]
        self.conv_out = Conv(m.spec.channels * m.outputs, 3)

    def encode(
        self, x: Float[Array, "b h w c"], label: Array | None, keys: Key[Array, " b"] | None
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        m = self.model
        act = ACTIVATIONS[m.activation]
        h = x
        if m.network == "conv":
            h = act(self.conv_in(h))
            for conv in self.convs:
                h = act(conv(h))
        h = h.reshape(h.shape[0], -1)
        h = dropout(keys, self._with_label(h, label), m.dropout)
        for i, layer in enumerate(self.encoder_layers):
            h = dropout(fold_keys(keys, i + 1), act(layer(h)), m.dropout)
        mean, logvar = jnp.split(self.posterior(h), 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def decode(
        self, z: Float[Array, "b z"], label: Array | None, keys: Key[Array, " b"] | None
    ) -> Float[Array, "b h w c p"]:
        m = self.model
        act = ACTIVATIONS[m.activation]
        h = self._with_label(z, label)
        for i, layer in enumerate(self.decoder_layers):
            h = dropout(fold_keys(keys, len(m.hidden) + 1 + i), act(layer(h)), m.dropout)
        h = self._decode_conv(h) if m.network == "conv" else self.out(h)
        params = h.reshape(h.shape[0], *m.spec.shape, m.outputs)
        if m.scale == "shared":
            log_scale = jnp.broadcast_to(self.log_scale, params.shape)
            params = jnp.concatenate([params, log_scale], axis=-1)
        return params

    def _decode_conv(self, h: Array) -> Array:
        act = ACTIVATIONS[self.model.activation]
        h = act(self.unflatten(h)).reshape(-1, *self.base)
        for layer, size in zip(self.deconvs, self.sizes, strict=True):
            if self.model.upsample == "resize":
                h = upsample(h, size)
            h = act(layer(h))
        return self.conv_out(h)

    def _with_label(self, h: Array, label: Array | None) -> Array:
        if label is None:
            return h
        one_hot = jax.nn.one_hot(label, self.model.spec.num_classes, dtype=h.dtype)
        return jnp.concatenate([h, one_hot], axis=-1)

    def __call__(
        self, x: Array, label: Array | None
    ) -> tuple[tuple[Array, Array], Float[Array, "b h w c p"]]:
        mean, logvar = self.encode(x, label, None)
        return (mean, logvar), self.decode(mean, label, None)


@dataclass(frozen=True)
class VAE(Model[NetState], Generates, Reconstructs):
    """Explicit density through a lower bound; Gaussian prior and diagonal Gaussian posterior."""

    spec: ImageSpec
    network: Literal["mlp", "conv"] = "mlp"
    """mlp: fully connected layers alone; conv: strided convolutions around them."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the encoder's fully connected layers; the decoder mirrors them."""
    filters: int = 32
    """conv: features at full resolution, doubled at every halving."""
    upsample: Literal["resize", "transpose"] = "resize"
    """conv: double the pixels and convolve, or transposed convolutions."""
    activation: Activation = "relu"
    """Between the layers of both networks."""
    latents: int = 16
    """Dimensions of z."""
    likelihood: Literal["auto", "bernoulli", "categorical", "gaussian", "logistic"] = "auto"
    """p(x | z) per sub-pixel; auto: bernoulli for two levels, else logistic."""
    scale: Literal["pixel", "shared"] = "pixel"
    """gaussian, logistic: a scale per sub-pixel from the decoder, or one for all, learned."""
    beta: float = 1.0
    """Weight of the KL in the training loss (Higgins et al. 2017); evaluation ignores it."""
    warmup: int = 0
    """Steps over which beta rises linearly to its value, so that fewer latents are given up
    early (Sønderby et al. 2016, arXiv:1602.02282); 0 = none."""
    dropout: float = 0.05
    """Dropout rate after every hidden layer, and on what enters the first."""
    ema: float = 0.995
    """Decay of the parameters' moving average, which evaluation and sampling use."""
    k: int = 1
    """Samples of the bound that validation uses: 1 = the ELBO, more = importance-weighted."""
    final_k: int = 500
    """Samples of the importance-weighted bound in the final report."""
    accumulate: int = 1
    """Parts that a device's batch is taken in, one after another, for memory; the step is the
    same to rounding."""
    precision: Precision = "float32"
    """Of the networks in training. Parameters, losses and statistics are float32, and so are
    evaluation and sampling: the figures are exact, and samplers agree to the bit."""
    optimizer: Optimizer = Optimizer()
    """Of both networks, which share one loss."""

    monitor: ClassVar[str] = "nll"

    def __post_init__(self) -> None:
        fits_scale = isinstance(self.p, LocationScale)  # refuses levels that p cannot represent
        if self.scale == "shared" and not fits_scale:
            raise UserError(
                f"--vae.scale=shared needs --vae.likelihood=gaussian or logistic; "
                f"it is {self.likelihood}"
            )
        if self.warmup < 0 or self.beta < 0:
            raise UserError("--vae.warmup and --vae.beta must not be negative")
        if min(self.latents, self.k, self.final_k) < 1:
            raise UserError("--vae.latents, --vae.k and --vae.final_k must be at least 1")
        if min((self.filters, *self.hidden)) < 1 or not 0 <= self.ema < 1:
            raise UserError("--vae.filters and --vae.hidden must be positive; --vae.ema in [0, 1)")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--vae.dropout must lie in [0, 1); got {self.dropout}")
        if self.accumulate < 1:
            raise UserError(f"--vae.accumulate must be at least 1; got {self.accumulate}")

    @property
    def parts(self) -> int:
        return self.accumulate

    @property
    def p(self) -> Likelihood:
        """p(x | z) of one sub-pixel."""
        name = self.likelihood
        if name == "auto":
            name = "bernoulli" if self.spec.levels == 2 else "logistic"
        return LIKELIHOODS[name](self.spec.levels)

    @property
    def outputs(self) -> int:
        """Numbers that the decoder's network gives per sub-pixel."""
        return 1 if self.scale == "shared" else self.p.num_params

    @property
    def net(self) -> VAENet:
        return VAENet(self)

    @property
    def likelihood_kind(self) -> str:
        return "the ELBO" if self.k == 1 else f"importance-weighted bound, k = {self.k}"

    def thorough(self) -> Self:
        return dataclasses.replace(self, k=self.final_k)

    @property
    def convolutional(self) -> bool:
        return self.network == "conv"

    def init(self, key: Key[Array, ""]) -> NetState:
        label = jnp.zeros((1,), jnp.int32) if self.spec.num_classes else None
        image = jnp.zeros((1, *self.spec.shape))
        return create_state(create(self.net, self.optimizer, key, image, label))

    def encode(
        self,
        params: Params,
        batch: Batch,
        keys: Key[Array, " b"] | None = None,
        precision: Precision = "float32",
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Mean and log variance of q(z | x); keys turn dropout on."""
        x = (1.0 + self.spec.to_float(batch["image"])) / 2
        inputs = x, batch.get("label"), keys
        return apply_in(precision, self.net, {"params": params}, *inputs, method="encode")

    def decode(
        self,
        params: Params,
        z: Float[Array, "b z"],
        label: Int[Array, " b"] | None = None,
        keys: Key[Array, " b"] | None = None,
        precision: Precision = "float32",
    ) -> Float[Array, "b h w c p"]:
        """Parameters of p(x | z); keys turn dropout on."""
        inputs = z, label, keys
        return apply_in(precision, self.net, {"params": params}, *inputs, method="decode")

    def elbo(
        self, key: Key[Array, ""], params: Params, batch: Batch, train: bool = False
    ) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """(log p(x | z), KL) per example in nats; the ELBO is their difference.

        One z per example, by reparameterization; the KL in closed form.
        """
        key_z, key_dropout = jax.random.split(key)
        keys = example_keys(key_dropout, batch["index"]) if train else None
        precision = self.precision if train else "float32"
        mean, logvar = self.encode(params, batch, keys, precision)
        noise = normal_like(key_z, batch["index"], (self.latents,))
        z = mean + jnp.exp(0.5 * logvar) * noise
        decoded = self.decode(params, z, batch.get("label"), keys, precision)
        log_px = self.p.log_prob(decoded, batch["image"]).sum((1, 2, 3))
        return log_px, kl_standard_normal(mean, logvar).sum(-1)

    def importance_weighted(
        self, key: Key[Array, ""], params: Params, batch: Batch, k: int
    ) -> Float[Array, " b"]:
        """L_k per example in nats: a lower bound of log p(x) that rises with k."""
        mean, logvar = self.encode(params, batch)

        def log_weight(key: Key[Array, ""]) -> Float[Array, " b"]:
            z = mean + jnp.exp(0.5 * logvar) * normal_like(key, batch["index"], (self.latents,))
            decoded = self.decode(params, z, batch.get("label"))
            log_px = self.p.log_prob(decoded, batch["image"]).sum((1, 2, 3))
            ratio = normal_log_prob(z, 0.0, 0.0) - normal_log_prob(z, mean, logvar)
            return log_px + ratio.sum(-1)

        return importance_weighted_bound(log_weight, key, k)

    def train_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch, axis_name: str | None = None
    ) -> tuple[NetState, Metrics]:
        beta = self.beta * jnp.minimum(1.0, (state.step + 1) / max(self.warmup, 1))

        def loss(params: Params, batch: Batch) -> tuple[Array, Metrics]:
            # The parts share the key: the noise of an example follows from its index too.
            elbo = self.elbo(jax.random.clone(key), params, batch, train=True)
            log_px, kl = (v.mean() for v in elbo)
            metrics = {"elbo": log_px - kl, "reconstruction": -log_px, "kl": kl}
            return beta * kl - log_px, metrics

        return train_net(self.optimizer, self.ema, state, loss, batch, axis_name, self.parts)

    def eval_step(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        key_elbo, key_bound = jax.random.split(key)
        log_px, kl = self.elbo(key_elbo, state.ema, batch)
        nll = kl - log_px
        if self.k > 1:
            nll = -self.importance_weighted(key_bound, state.ema, batch, self.k)
        return {"nll": nll, "elbo": log_px - kl, "reconstruction": -log_px, "kl": kl}

    def draw_latents(self, key: Key[Array, ""], num: int, start: int | Array = 0) -> Array:
        return normal_like(key, start + jnp.arange(num), (self.latents,))

    def sample(
        self,
        key: Key[Array, ""],
        state: NetState,
        num: int,
        label: Int[Array, " num"] | None = None,
        temperature: float | Array = 1.0,
        start: int | Array = 0,
    ) -> UInt8[Array, "num h w c"]:
        """z from the prior and x from p(x | z); temperature scales the noise of both."""
        key_z, key_x = jax.random.split(key)
        index = start + jnp.arange(num)
        z = temperature * normal_like(key_z, index, (self.latents,))
        params = self.decode(state.ema, z, labels_or_all(self.spec, label, num, start))
        draw = lambda k, p: self.p.sample(k, p, temperature)  # noqa: E731
        return jax.vmap(draw)(example_keys(key_x, index), params).astype(jnp.uint8)

    def generate(
        self, state: NetState, z: Float[Array, "b z"], label: Int[Array, " b"] | None = None
    ) -> UInt8[Array, "b h w c"]:
        label = labels_or_all(self.spec, label, z.shape[0])
        mean = self.p.mean(self.decode(state.ema, z, label))
        return jnp.round(mean).astype(jnp.uint8)

    def reconstruct(
        self, key: Key[Array, ""], state: NetState, batch: Batch
    ) -> UInt8[Array, "b h w c"]:
        mean, _ = self.encode(state.ema, batch)
        return self.generate(state, mean, batch.get("label"))

    def facts(self) -> dict[str, str]:
        return {"latents": f"{self.latents} standard normal; p(x | z) {type(self.p).__name__}"}

    def inspect(self, key: Key[Array, ""], state: NetState, batch: Batch) -> Inspection:
        """Active units, reconstructions, a traversal of each latent, and the 2-D manifold."""
        mean, logvar = self.encode(state.ema, batch)
        kl = kl_standard_normal(mean, logvar).mean(0)
        # Burda et al. 2016, section 5.2: a unit is active if Var_x(E[z | x]) > 0.01.
        numbers = {"active units": (mean.var(0) > 1e-2).sum(), "latents": jnp.asarray(self.latents)}
        some = {name: value[:16] for name, value in batch.items()}
        pair = jnp.stack([some["image"], self.reconstruct(key, state, some)])
        grids = {"images (above) and reconstructions (below)": pair}
        label = batch["label"][0] if "label" in batch else None
        # The latents with the largest KL say the most.
        busiest = jnp.argsort(-kl)[: min(8, self.latents)]
        values = jnp.linspace(-2.5, 2.5, 11)
        z = jnp.broadcast_to(mean[0], (len(busiest), len(values), self.latents))
        z = jax.vmap(lambda row, unit: row.at[:, unit].set(values))(z, busiest)
        grids["one latent at a time, -2.5 to 2.5, from the first image"] = self._grid(
            state, z, label
        )
        if self.latents == 2:
            quantiles = jax.scipy.stats.norm.ppf(jnp.linspace(0.02, 0.98, 16))
            z = jnp.stack(jnp.meshgrid(quantiles, -quantiles), axis=-1)
            grids["manifold at the prior's quantiles"] = self._grid(state, z, label)
        return Inspection(numbers, grids, {})

    def _grid(self, state: NetState, z: Array, label: Array | None) -> Array:
        flat = z.reshape(-1, self.latents)
        labels = None if label is None else jnp.full(len(flat), label)
        images = self.generate(state, flat, labels)
        return images.reshape(*z.shape[:2], *self.spec.shape)
