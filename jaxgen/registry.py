"""The models by name. A new model is one file in `models/` and one line here."""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

from jaxgen.data.config import DataConfig
from jaxgen.errors import UserError
from jaxgen.model import Model
from jaxgen.models.adversarial.bigan import BiGAN
from jaxgen.models.adversarial.cyclegan import CycleGAN
from jaxgen.models.adversarial.gan import GAN
from jaxgen.models.adversarial.hali import HALI
from jaxgen.models.adversarial.pix2pix import Pix2Pix, Pix2PixL1
from jaxgen.models.adversarial.progan import ProGAN
from jaxgen.models.adversarial.stylegan2 import StyleGAN2
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from jaxgen.models.autoregressive.made import MADE
from jaxgen.models.autoregressive.nade import NADE
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.models.autoregressive.pixelcnnpp import PixelCNNPP
from jaxgen.models.autoregressive.pixelrnn import DiagonalBiLSTM, RowLSTM
from jaxgen.models.autoregressive.pixelsnail import PixelSNAIL
from jaxgen.models.autoregressive.wavenet import WaveNet
from jaxgen.models.latent.autoencoder import Autoencoder
from jaxgen.models.latent.gmm import GMM
from jaxgen.models.latent.iaf import IAF
from jaxgen.models.latent.ladder import Ladder
from jaxgen.models.latent.pixelvae import PixelVAE
from jaxgen.models.latent.pixelvae_maps import MapPixelVAE
from jaxgen.models.latent.rbm import RBM
from jaxgen.models.latent.realnvp import RealNVP
from jaxgen.models.latent.vae import VAE
from jaxgen.models.latent.vqvae import VQVAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.runs import saved
from jaxgen.runs.config import TrainConfig
from jaxgen.spec import DataSpec


class Preset(NamedTuple):
    """What `--model=NAME` trains when no other flag is given."""

    model: Model
    data: DataConfig
    train: TrainConfig
    tiny: Model
    """The same model with as little as it can have of everything, for tests."""


_DIGITS = DataSpec(8, 8, 1, 17)
_BINARY_DIGITS = DataSpec(8, 8, 1, 2)
_TONES = DataSpec(1, 1024, 1, 256, rate=4000)
_TINY = DataSpec(4, 4, 1, 5, num_classes=3)
_POINTS = DataSpec(1, 1, 2, 0, ranges=((-1.0, 1.0),) * 2)
_TINY_SOUND = DataSpec(1, 16, 1, 5, num_classes=3)
_PAIRS = DataSpec(8, 8, 1, 17, source=DataSpec(8, 8, 1, 17))
_TINY_PAIRS = DataSpec(4, 4, 1, 5, num_classes=3, source=DataSpec(2, 2, 3, 5))
_TINY_DOMAINS = DataSpec(4, 4, 1, 5, source=DataSpec(4, 4, 3, 5))
_RNN_RATE = Optimizer(learning_rate=2e-3)
_GAN_RATE = Optimizer(learning_rate=5e-4, b1=0.5)
_BIGAN_RATE = Optimizer(learning_rate=1e-3, b1=0.0, b2=0.99)
_QUICK_RATE = Optimizer(learning_rate=5e-3, b1=0.0, b2=0.99)
_SNGAN_RATE = Optimizer(learning_rate=1e-3, b1=0.5)
_PROGAN_RATE = Optimizer(learning_rate=1e-2, b1=0.0, b2=0.99)
_STYLE_RATE = Optimizer(learning_rate=2e-2, b1=0.0, b2=0.99)
_WGAN_RATE = Optimizer(learning_rate=3e-3, b1=0.0, b2=0.99)
_FALLING_RATE = Optimizer(
    learning_rate=1e-3, b1=0.5, decay="linear", constant_steps=750, decay_steps=750
)


def _on_digits(model: Model, steps: int, tiny: Model, batch_size: int = 50) -> Preset:
    return Preset(model, DataConfig(), TrainConfig(steps=steps, batch_size=batch_size), tiny)


MODELS: dict[str, Preset] = {
    "pixelcnn": _on_digits(
        PixelCNN(_DIGITS), 800, PixelCNN(_TINY, features=4, blocks=1, head=4, first_kernel=3)
    ),
    "gated": _on_digits(
        GatedPixelCNN(_DIGITS), 800,
        GatedPixelCNN(_TINY, features=4, blocks=1, head=4, first_kernel=3),
    ),
    "pixelcnnpp": _on_digits(
        PixelCNNPP(_DIGITS), 1000,
        # Random mixtures have scales of a thousandth, which magnify the rounding of gradients.
        PixelCNNPP(_TINY, features=4, blocks=1, scales=1, output="categorical"),
    ),
    "rowlstm": _on_digits(
        RowLSTM(_DIGITS, optimizer=_RNN_RATE), 800,
        RowLSTM(_TINY, features=4, blocks=1, head=4, first_kernel=3),
    ),
    "diagonal": _on_digits(
        DiagonalBiLSTM(_DIGITS, optimizer=_RNN_RATE), 800,
        DiagonalBiLSTM(_TINY, features=4, blocks=1, head=4, first_kernel=3),
    ),
    "pixelsnail": _on_digits(
        PixelSNAIL(_DIGITS), 1000,
        PixelSNAIL(_TINY, features=4, blocks=1, layers=1, head=4, first_kernel=3),
    ),
    "nade": _on_digits(NADE(_DIGITS, features=300), 2000, NADE(_TINY, features=4)),
    "made": _on_digits(
        MADE(_DIGITS, random_orders=8, dropout=0.3), 2500,
        MADE(_TINY, hidden=(8, 8), random_orders=8, dropout=0.3),
    ),
    "wavenet": Preset(
        WaveNet(_TONES, ema=0.99, optimizer=Optimizer(learning_rate=4e-3)),
        DataConfig(dataset="tones"),
        TrainConfig(steps=500, batch_size=8, samples=200),
        WaveNet(_TINY_SOUND, features=4, skips=4, layers=2, head=4),
    ),
    "autoencoder": _on_digits(
        Autoencoder(_DIGITS), 3000, Autoencoder(_TINY, hidden=(8,), latents=3), 100
    ),
    "vae": _on_digits(VAE(_DIGITS), 3000, VAE(_TINY, hidden=(8, 8), latents=3), 100),
    "iwae": _on_digits(
        VAE(_DIGITS, k=5, estimator="dreg"), 3000,
        VAE(_TINY, hidden=(8,), latents=3, k=3, estimator="dreg"), 100,
    ),
    "betavae": _on_digits(
        VAE(_DIGITS, beta=4.0), 3000, VAE(_TINY, hidden=(8,), latents=3, beta=4.0), 100
    ),
    "iaf": _on_digits(
        IAF(_DIGITS), 3000, IAF(_TINY, hidden=(8,), latents=3, flow_hidden=(8,), context=4), 100
    ),
    "ladder": _on_digits(
        Ladder(_DIGITS, warmup=1000), 3000,
        # Random layers of rectifiers would magnify the rounding of gradients.
        Ladder(_TINY, hidden=(8, 6), latents=(3, 2), activation="tanh"), 100,
    ),
    "pixelvae": _on_digits(
        PixelVAE(_DIGITS, warmup=500), 1500,
        PixelVAE(_TINY, hidden=(6,), latents=(3,), maps=3, features=3, blocks=1, first_kernel=3,
                 head=3, activation="tanh"),
        100,
    ),
    "pixelvae2": _on_digits(
        # Without free bits, the vector on top is given up in these steps.
        MapPixelVAE(_DIGITS, warmup=500, free_bits=0.25), 1500,
        # Few layers and a small weight of the KL: random Gaussians would magnify rounding.
        MapPixelVAE(_TINY, beta=0.01, latents=2, size=1, filters=3, residual_blocks=0,
                    hidden=(4,), prior_features=3, prior_blocks=0, maps=3, features=3, blocks=1,
                    first_kernel=3, head=3),
        100,
    ),
    "vqvae": _on_digits(
        VQVAE(_DIGITS, optimizer=Optimizer(weight_decay=1.0)), 1500,
        VQVAE(_TINY, codes=6, size=2, halvings=1, filters=3, features=3, blocks=1,
              likelihood="categorical"), 100,
    ),
    "realnvp": _on_digits(
        RealNVP(_DIGITS, optimizer=Optimizer(learning_rate=2e-3)), 1000,
        RealNVP(_TINY, architecture="mlp", scales=1, couplings=2, width=6, depth=1), 100,
    ),
    "rbm": Preset(
        RBM(_BINARY_DIGITS, optimizer=Optimizer(learning_rate=2e-3, decay_steps=4000)),
        DataConfig(binarize="threshold"), TrainConfig(steps=4000, batch_size=100),
        RBM(DataSpec(4, 4, 1, 2), hidden=5, chains=8, sweeps=3, ais_steps=5),
    ),
    "gmm": Preset(
        GMM(_POINTS), DataConfig(dataset="moons"), TrainConfig(steps=3000, batch_size=200),
        GMM(DataSpec(1, 1, 3, 0, ranges=((-1.0, 1.0),) * 3), components=3),
    ),
    "gan": _on_digits(
        GAN(_DIGITS, d_norm="none", deviation_group=8, r1=0.1, penalty_every=4, ema=0.995,
            g_optimizer=_QUICK_RATE, d_optimizer=_QUICK_RATE), 4500,
        GAN(_TINY, filters=2, latents=3), 64,
    ),
    "progan": _on_digits(
        ProGAN(_DIGITS, filters=16, stage_steps=400, deviation_group=8, r1=0.1, penalty_every=4,
               ema=0.995, g_optimizer=_PROGAN_RATE, d_optimizer=_PROGAN_RATE), 3600,
        ProGAN(DataSpec(8, 8, 1, 5, num_classes=3), filters=2, latents=3, deviation_group=2,
               stage_steps=3, fade=1.0), 64,
    ),
    "bigan": _on_digits(
        BiGAN(_DIGITS, r1=0.03, penalty_every=4, ema=0.995, g_optimizer=_BIGAN_RATE,
              d_optimizer=_BIGAN_RATE), 8000,
        BiGAN(_TINY, hidden=(6,), latents=3), 64,
    ),
    "ali": _on_digits(
        BiGAN(_DIGITS, encoder="stochastic", r1=0.03, penalty_every=4, ema=0.995,
              g_optimizer=_BIGAN_RATE, d_optimizer=_BIGAN_RATE), 4500,
        BiGAN(_TINY, encoder="stochastic", hidden=(6,), latents=3), 64,
    ),
    "hali": _on_digits(
        HALI(_DIGITS, latents=(16, 8), r1=0.03, ema=0.995, g_optimizer=_BIGAN_RATE,
             d_optimizer=_BIGAN_RATE), 4000,
        HALI(_TINY, hidden=(6,), latents=(3, 2), middle=(4,)), 64,
    ),
    "gan2014": _on_digits(
        GAN(_DIGITS, architecture="mlp", g_norm="none", d_norm="none", g_optimizer=_GAN_RATE,
            d_optimizer=_GAN_RATE), 6000,
        GAN(_TINY, architecture="mlp", hidden=(6,), latents=3, g_norm="none", d_norm="none"), 64,
    ),
    "lsgan": _on_digits(
        GAN(_DIGITS, loss="least_squares", d_norm="none", deviation_group=8, r1=0.1,
            penalty_every=4, ema=0.995, g_optimizer=_QUICK_RATE, d_optimizer=_QUICK_RATE), 3000,
        GAN(_TINY, loss="least_squares", filters=2, latents=3), 64,
    ),
    "wgan": _on_digits(
        GAN(_DIGITS, loss="wasserstein", slope_penalty=1.0, penalty_every=2, d_norm="none",
            d_steps=2, deviation_group=8, ema=0.995, g_optimizer=_WGAN_RATE,
            d_optimizer=_WGAN_RATE), 2000,
        GAN(_TINY, loss="wasserstein", slope_penalty=1.0, d_norm="none", d_steps=2, filters=2,
            latents=3), 64,
    ),
    "sngan": _on_digits(
        GAN(_DIGITS, loss="hinge", d_norm="spectral", deviation_group=8, ema=0.995,
            g_optimizer=_QUICK_RATE, d_optimizer=_QUICK_RATE), 3000,
        GAN(_TINY, loss="hinge", d_norm="spectral", filters=2, latents=3), 64,
    ),
    "pix2pix": Preset(
        Pix2Pix(_PAIRS, filters=16, norm="none", ema=0.99, d_filters=16, d_halvings=1,
                g_optimizer=_SNGAN_RATE, d_optimizer=_SNGAN_RATE),
        DataConfig(pairing="inpaint"), TrainConfig(steps=2000, batch_size=50),
        Pix2Pix(_TINY_PAIRS, filters=2, halvings=1, d_filters=2, d_halvings=1),
    ),
    "pix2pix_l1": Preset(
        Pix2PixL1(_PAIRS, filters=16, norm="none", ema=0.99, optimizer=_SNGAN_RATE),
        DataConfig(pairing="inpaint"), TrainConfig(steps=2000, batch_size=50),
        Pix2PixL1(_TINY_PAIRS, filters=2, halvings=1),
    ),
    "cyclegan": Preset(
        # Small networks without halvings see few pixels around each, and so leave each image what
        # it shows: larger ones turn digits into others, and back.
        # Weaker discriminators, or generators without tanh, end at other maps with some seeds.
        CycleGAN(_PAIRS, architecture="resnet", filters=8, halvings=0, blocks=1, norm="none",
                 output="tanh", cycle=3.0, ema=0.99, d_filters=32, d_halvings=0, d_norm="none",
                 g_optimizer=_FALLING_RATE,
                 d_optimizer=dataclasses.replace(_FALLING_RATE, learning_rate=2e-3)),
        DataConfig(pairing="invert", unpaired=True), TrainConfig(steps=1500, batch_size=50),
        CycleGAN(_TINY_DOMAINS, filters=2, halvings=1, pool=12, d_filters=2, d_halvings=1),
    ),
    "stylegan2": _on_digits(
        # Mixing and path lengths are of use to long training: in a minute they hold it up.
        StyleGAN2(_DIGITS, mapping=2, filters=16, mixing=0.0, deviation_group=8, r1=0.1,
                  penalty_every=4, ema=0.995, g_optimizer=_STYLE_RATE, d_optimizer=_STYLE_RATE),
        3500,
        StyleGAN2(DataSpec(8, 8, 1, 5, num_classes=3), latents=3, styles=4, mapping=1, filters=2,
                  deviation_group=2, r1=0.5, path_length=0.5), 64,
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """The preset of that name; raises UserError listing the names there are."""
    if name not in MODELS:
        raise UserError(f"--model={name} is unknown; choose from {', '.join(MODELS)}")
    return MODELS[name]


def load_run(
    directory: str | Path, checkpoint: Literal["best", "latest"] | int = "best"
) -> saved.SavedRun:
    """Returns the trained model of a run directory, and changes nothing in it.

    `checkpoint` is "best" (by validation), "latest" or a step. Raises UserError if the directory
    is not a run, has no usable checkpoint, or does not fit this version.
    """
    return saved.load_run(directory, checkpoint, lambda name: type(preset(name).model))
