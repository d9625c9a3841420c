"""The models by name. A new model is one file in `models/` and one line here."""

from typing import NamedTuple

from jaxgen.data import DataConfig
from jaxgen.errors import UserError
from jaxgen.model import ImageSpec, Model
from jaxgen.models.gan import GAN
from jaxgen.models.gated import GatedPixelCNN
from jaxgen.models.made import MADE
from jaxgen.models.nade import NADE
from jaxgen.models.pixelcnn import PixelCNN
from jaxgen.models.pixelcnnpp import PixelCNNPP
from jaxgen.models.pixelrnn import DiagonalBiLSTM, RowLSTM
from jaxgen.models.pixelsnail import PixelSNAIL
from jaxgen.models.vae import VAE
from jaxgen.models.wavenet import WaveNet
from jaxgen.net import Optimizer
from jaxgen.run import TrainConfig


class Preset(NamedTuple):
    """What `--model=NAME` trains when no other flag is given."""

    model: Model
    data: DataConfig
    train: TrainConfig


_DIGITS = ImageSpec(8, 8, 1, 17)
_RNN_RATE = Optimizer(learning_rate=2e-3)
_TONES = ImageSpec(1, 1024, 1, 256, rate=4000)
_GAN_RATE = Optimizer(learning_rate=5e-4, b1=0.5)


def _on_digits(model: Model, steps: int) -> Preset:
    return Preset(model, DataConfig(), TrainConfig(steps=steps, batch_size=50))


MODELS: dict[str, Preset] = {
    "pixelcnn": _on_digits(PixelCNN(_DIGITS), 800),
    "gated": _on_digits(GatedPixelCNN(_DIGITS), 800),
    "pixelcnnpp": _on_digits(PixelCNNPP(_DIGITS), 1000),
    "rowlstm": _on_digits(RowLSTM(_DIGITS, optimizer=_RNN_RATE), 800),
    "diagonal": _on_digits(DiagonalBiLSTM(_DIGITS, optimizer=_RNN_RATE), 800),
    "pixelsnail": _on_digits(PixelSNAIL(_DIGITS), 800),
    "nade": _on_digits(NADE(_DIGITS), 800),
    "made": _on_digits(MADE(_DIGITS), 800),
    "wavenet": Preset(
        WaveNet(_TONES, ema=0.99, optimizer=Optimizer(learning_rate=4e-3)),
        DataConfig(dataset="tones"),
        TrainConfig(steps=500, batch_size=8, samples=200),
    ),
    "vae": Preset(VAE(_DIGITS), DataConfig(), TrainConfig(steps=3000)),
    "gan": Preset(
        GAN(_DIGITS, g_optimizer=_GAN_RATE, d_optimizer=_GAN_RATE),
        DataConfig(),
        TrainConfig(steps=3000, batch_size=64),
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name; raises UserError listing the names there are."""
    if name not in MODELS:
        raise UserError(f"--model={name} is unknown; choose from {', '.join(MODELS)}")
    return MODELS[name]
