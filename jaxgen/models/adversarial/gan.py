"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661) with MLP and DCGAN
networks (Radford, Metz & Chintala 2016, arXiv:1511.06434)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxgen.distributions.normal import interpolate, normal_like
from jaxgen.errors import UserError
from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES
from jaxgen.losses.penalties import gradient_penalty_r1
from jaxgen.model import Batch, Generates, Inspection, Metrics, Model, labels_or_all
from jaxgen.nn.layers import Conv, ConvTranspose, halvings
from jaxgen.nn.norm import Norm
from jaxgen.optim.net import Net, Params, Precision, apply_in, average, create, descend, variables
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.update import mean_over
from jaxgen.spec import ImageSpec

_INIT = nn.initializers.normal(0.02)
"""The DCGAN paper's initialization, section 4."""


class Generator(nn.Module):
    """Latents [b z] and labels to images in [-1, 1]."""

    model: "GAN"
    train: bool
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], label: Int[Array, " b"] | None
    ) -> Float[Array, "b h w c"]:
        m = self.model
        if label is not None:
            one_hot = jax.nn.one_hot(label, m.spec.num_classes, dtype=z.dtype)
            z = jnp.concatenate([z, one_hot], axis=-1)
        x = self._dcgan(z) if m.network == "dcgan" else self._mlp(z)
        return jnp.tanh(x) if m.output == "tanh" else x

    def _mlp(self, h: Array) -> Array:
        m = self.model
        for width in m.hidden:
            h = nn.Dense(width, use_bias=m.g_norm == "none")(h)
            h = jax.nn.relu(Norm(m.g_norm, self.train, self.axis_name)(h))
        return nn.Dense(m.spec.dims)(h).reshape(-1, *m.spec.shape)

    def _dcgan(self, h: Array) -> Array:
        m = self.model
        bias = m.g_norm == "none"
        sizes = halvings(m.spec.height, m.spec.width)[::-1]
        widths = [m.filters * 2**i for i in range(len(sizes) - 1)][::-1]
        # A transposed convolution of a 1x1 map to the smallest size is this matrix product.
        h = nn.Dense(sizes[0][0] * sizes[0][1] * widths[0], use_bias=bias, kernel_init=_INIT)(h)
        h = h.reshape(-1, *sizes[0], widths[0])
        for size, width in zip(sizes[1:], [*widths[1:], None], strict=True):
            h = jax.nn.relu(Norm(m.g_norm, self.train, self.axis_name)(h))
            last = width is None
            features = m.spec.channels if last else width
            h = ConvTranspose(features, 4, size, use_bias=bias or last, kernel_init=_INIT)(h)
        return h


class Discriminator(nn.Module):
    """Images in [-1, 1] and labels to the logit of being real, [b]."""

    model: "GAN"
    train: bool
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None
    ) -> Float[Array, " b"]:
        m = self.model
        if label is not None:
            one_hot = jax.nn.one_hot(label, m.spec.num_classes, dtype=x.dtype)
            maps = jnp.broadcast_to(one_hot[:, None, None], (*x.shape[:3], m.spec.num_classes))
            x = jnp.concatenate([x, maps], axis=-1)
        return self._dcgan(x) if m.network == "dcgan" else self._mlp(x)

    def _mlp(self, x: Array) -> Array:
        m = self.model
        h = x.reshape(x.shape[0], -1)
        for i, width in enumerate(m.hidden):
            norm = m.d_norm if i else "none"
            h = nn.Dense(width, use_bias=norm == "none")(h)
            h = jax.nn.leaky_relu(Norm(norm, self.train, self.axis_name)(h), 0.2)
        return nn.Dense(1)(h)[:, 0]

    def _dcgan(self, h: Array) -> Array:
        m = self.model
        for i in range(len(halvings(m.spec.height, m.spec.width)) - 1):
            # The paper leaves BatchNorm out of the discriminator's first layer.
            norm = m.d_norm if i else "none"
            conv = Conv(m.filters * 2**i, 4, stride=2, use_bias=norm == "none", kernel_init=_INIT)
            h = jax.nn.leaky_relu(Norm(norm, self.train, self.axis_name)(conv(h)), 0.2)
        # A convolution that covers the whole remaining map is this matrix product.
        return nn.Dense(1, kernel_init=_INIT)(h.reshape(h.shape[0], -1))[:, 0]


@flax.struct.dataclass
class GANState:
    """The two players, and the generator's average, which is used."""

    g: Net
    d: Net
    ema: dict[str, Params]
    """Moving average of the generator's parameters and BatchNorm statistics."""
    step: Array


@dataclass(frozen=True)
class GAN(Model[GANState], Generates):
    """Implicit density: a generator against a discriminator, two optimizers in one step."""

    spec: ImageSpec
    network: Literal["dcgan", "mlp"] = "dcgan"
    """dcgan: strided and transposed convolutions; mlp: fully connected layers."""
    latents: int = 64
    """Dimensions of z, standard normal."""
    filters: int = 32
    """dcgan: the discriminator's features after its first layer, doubled at every halving."""
    hidden: tuple[int, ...] = (256, 256)
    """mlp: widths of the hidden layers of both players."""
    output: Literal["tanh", "linear"] = "tanh"
    """The generator's last activation; images lie in [-1, 1]."""
    g_norm: Literal["batch", "none"] = "batch"
    """BatchNorm in the generator, or no normalization."""
    d_norm: Literal["batch", "none"] = "batch"
    """BatchNorm in the discriminator after its first layer, or no normalization."""
    loss: Literal["minimax", "nonsaturating", "lsgan", "hinge"] = "nonsaturating"
    """minimax, nonsaturating: the original paper's two; lsgan: least squares; hinge: margins."""
    order: Literal["alternating", "simultaneous"] = "alternating"
    """alternating: the generator meets the updated discriminator; simultaneous: the old one."""
    d_steps: int = 1
    """Discriminator steps per generator step, each on a batch of its own."""
    r1: float = 0.0
    """gamma of the penalty gamma/2 |grad D|^2 on real examples; needs --gan.d_norm=none."""
    instance_noise: float = 0.0
    """Standard deviation of the noise on the discriminator's inputs, which lie in [-1, 1]."""
    noise_steps: int = 0
    """The instance noise falls linearly to zero over this many steps; 0 = it stays."""
    ema: float = 0.999
    """Decay of the generator's moving average, which sampling uses."""
    precision: Precision = "float32"
    """Of the networks in training. Parameters, losses and statistics are float32, and so are
    evaluation and sampling: the figures are exact, and samplers agree to the bit."""
    g_optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """Of the generator."""
    d_optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """Of the discriminator."""

    monitor: ClassVar[str] = "frechet"

    def __post_init__(self) -> None:
        if self.r1 > 0 and self.d_norm == "batch":
            raise UserError(
                "--gan.r1 takes the gradient example by example, which BatchNorm in the "
                "discriminator mixes: add --gan.d_norm=none"
            )
        if min((self.filters, *self.hidden)) < 1 or not 0 <= self.ema < 1:
            raise UserError("--gan.filters and --gan.hidden must be positive; --gan.ema in [0, 1)")
        if self.d_steps < 1 or self.latents < 1:
            raise UserError("--gan.d_steps and --gan.latents must be at least 1")
        if min(self.r1, self.instance_noise, self.noise_steps) < 0:
            raise UserError(
                "--gan.r1, --gan.instance_noise, --gan.noise_steps must not be negative"
            )

    @property
    def minibatches(self) -> int:
        return self.d_steps

    @property
    def convolutional(self) -> bool:
        return self.network == "dcgan"

    def init(self, key: Key[Array, ""]) -> GANState:
        key_g, key_d = jax.random.split(key)
        label = jnp.zeros((1,), jnp.int32) if self.spec.num_classes else None
        z, x = jnp.zeros((1, self.latents)), jnp.zeros((1, *self.spec.shape))
        g = create(Generator(self, train=False), self.g_optimizer, key_g, z, label)
        d = create(Discriminator(self, train=False), self.d_optimizer, key_d, x, label)
        ema = jax.tree.map(jnp.copy, g.variables)
        return GANState(g, d, ema, jnp.zeros((), jnp.int32))

    def generator(
        self, g: Net, params: Params, z: Array, label: Array | None, axis_name: str | None
    ) -> tuple[Array, Params]:
        """Images in training mode, and the BatchNorm statistics after them."""
        module = Generator(self, train=True, axis_name=axis_name)
        values = variables(params, g.stats)
        x, new = apply_in(self.precision, module, values, z, label, mutable=["batch_stats"])
        return x, new.get("batch_stats", {})

    def discriminator(
        self, d: Net, params: Params, x: Array, label: Array | None, axis_name: str | None
    ) -> tuple[Array, Params]:
        """Logits in training mode, and the BatchNorm statistics after them."""
        module = Discriminator(self, train=True, axis_name=axis_name)
        values = variables(params, d.stats)
        logits, new = apply_in(self.precision, module, values, x, label, mutable=["batch_stats"])
        return logits, new.get("batch_stats", {})

    def train_step(
        self, key: Key[Array, ""], state: GANState, batch: Batch, axis_name: str | None = None
    ) -> tuple[GANState, Metrics]:
        """Algorithm 1 of the paper: d_steps updates of D, then one of G.

        The last update of D and the update of G share one forward pass of G: its vjp is kept and
        given the gradient that the judging D sends back. G's statistics move with that pass alone,
        D's with its passes over real examples. BatchNorm's statistics are those of the whole batch,
        so it is not taken in parts.
        """
        key_z, key_real, key_fake = jax.random.split(key, 3)
        # Example i goes to discriminator step i % d_steps, however the batch is split over devices.
        groups = [
            {name: value[i :: self.d_steps] for name, value in batch.items()}
            for i in range(self.d_steps)
        ]
        noise = self._noise_scale(state.step)
        loss = ADVERSARIAL_LOSSES[self.loss]

        def fakes(params: Params, group: Batch) -> tuple[Array, Params]:
            z = normal_like(key_z, group["index"], (self.latents,))
            return self.generator(state.g, params, z, group.get("label"), axis_name)

        def blur(key: Key[Array, ""], x: Array, group: Batch) -> Array:
            if self.instance_noise == 0:
                return x
            return x + noise * normal_like(key, group["index"], self.spec.shape)

        def d_loss(params: Params, d: Net, fake: Array, group: Batch) -> tuple[Array, Any]:
            see: Callable[[Array], tuple[Array, Params]] = lambda x: self.discriminator(  # noqa: E731
                d, params, x, group.get("label"), axis_name
            )
            real = blur(key_real, self.spec.to_float(group["image"]), group)
            real_logits, stats = see(real)
            fake_logits, _ = see(blur(key_fake, fake, group))
            value = loss.real(real_logits).mean() + loss.fake(fake_logits).mean()
            metrics = {
                "d_loss": value,
                "d_real": jax.nn.sigmoid(real_logits).mean(),
                "d_fake": jax.nn.sigmoid(fake_logits).mean(),
            }
            if self.r1 > 0:
                penalty = gradient_penalty_r1(lambda x: see(x)[0], real).mean()
                value, metrics["r1"] = value + 0.5 * self.r1 * penalty, penalty
            return value, (metrics, stats)

        def d_update(d: Net, fake: Array, group: Batch) -> tuple[Net, Metrics]:
            grads, (metrics, stats) = jax.grad(d_loss, has_aux=True)(d.params, d, fake, group)
            grads, metrics, stats = mean_over(axis_name, (grads, metrics, stats))
            metrics["d_grad_norm"] = optax.tree.norm(grads)
            return descend(self.d_optimizer, d, grads, stats), metrics

        d = state.d
        for group in groups[:-1]:
            d, _ = d_update(d, fakes(state.g.params, group)[0], group)
        last = groups[-1]
        fake, pull_back, g_stats = jax.vjp(lambda p: fakes(p, last), state.g.params, has_aux=True)
        old_d = d
        d, metrics = d_update(d, fake, last)
        judge = d if self.order == "alternating" else old_d

        def g_loss(fake: Array) -> Array:
            x = blur(key_fake, fake, last)
            logits, _ = self.discriminator(judge, judge.params, x, last.get("label"), axis_name)
            return loss.generator(logits).mean()

        value, towards_real = jax.value_and_grad(g_loss)(fake)
        (grads,) = pull_back(towards_real)
        grads, value, g_stats = mean_over(axis_name, (grads, value, g_stats))
        g = descend(self.g_optimizer, state.g, grads, g_stats)
        metrics |= {"g_loss": value, "g_grad_norm": optax.tree.norm(grads)}
        ema = average(state.ema, g.variables, self.ema, state.step)
        return GANState(g, d, ema, state.step + 1), metrics

    def _noise_scale(self, step: Array) -> Array | float:
        if not self.noise_steps:
            return self.instance_noise
        return self.instance_noise * jnp.maximum(0.0, 1.0 - step / self.noise_steps)

    def eval_step(
        self, key: Key[Array, ""], state: GANState, batch: Batch
    ) -> dict[str, Float[Array, " b"]]:
        """D(x) of the given images and D(G(z)) of as many generated ones, as probabilities."""
        label = batch.get("label")
        see = Discriminator(self, train=False)
        z = normal_like(key, batch["index"], (self.latents,))
        fake: Any = Generator(self, train=False).apply(state.ema, z, label)
        real = self.spec.to_float(batch["image"])

        def prob(x: Array) -> Array:
            logits: Any = see.apply(state.d.variables, x, label)
            return jax.nn.sigmoid(logits)

        return {"d_real": prob(real), "d_fake": prob(fake)}

    def draw_latents(
        self, key: Key[Array, ""], num: int, start: int | Array = 0
    ) -> Float[Array, "num z"]:
        """Of the generator's prior: standard normal, those of image i from (key, i) alone."""
        return normal_like(key, start + jnp.arange(num), (self.latents,))

    def generate(
        self, state: GANState, z: Float[Array, "b z"], label: Int[Array, " b"] | None = None
    ) -> UInt8[Array, "b h w c"]:
        """The averaged generator's images; without a label, every class in turn."""
        label = labels_or_all(self.spec, label, z.shape[0])
        x: Any = Generator(self, train=False).apply(state.ema, z, label)
        return self.spec.to_levels(x)

    def sample(
        self,
        key: Key[Array, ""],
        state: GANState,
        num: int,
        label: Int[Array, " num"] | None = None,
        temperature: float | Array = 1.0,
        start: int | Array = 0,
    ) -> UInt8[Array, "num h w c"]:
        """G(z) for z from the prior scaled by `temperature` (the truncation of Brock et al. 2019,
        without its resampling); an image does not depend on the others in its batch."""
        z = temperature * self.draw_latents(key, num, start)
        return self.generate(state, z, labels_or_all(self.spec, label, num, start))

    def facts(self) -> dict[str, str]:
        return {"latents": f"{self.latents} standard normal"}

    def inspect(self, key: Key[Array, ""], state: GANState, batch: Batch) -> Inspection:
        """Interpolations on great circles between pairs of latents."""
        ends = self.draw_latents(key, 16)
        path = interpolate(ends[:8], ends[8:], 11)
        label = batch["label"][:8].repeat(11) if "label" in batch else None
        images = self.generate(state, path.reshape(-1, self.latents), label)
        name = "interpolations between pairs of latents (left and right)"
        return Inspection({}, {name: images.reshape(8, 11, *self.spec.shape)}, {})
