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
from jaxgen.models.vae import VAE
from jaxgen.net import Optimizer
from jaxgen.run import TrainConfig


class Preset(NamedTuple):
    """What `--model=NAME` trains when no other flag is given."""

    model: Model
    data: DataConfig
    train: TrainConfig


_DIGITS = ImageSpec(8, 8, 1, 17)
_GAN_RATE = Optimizer(learning_rate=5e-4, b1=0.5)

MODELS: dict[str, Preset] = {
    "pixelcnn": Preset(PixelCNN(_DIGITS), DataConfig(), TrainConfig(steps=800, batch_size=50)),
    "gated": Preset(GatedPixelCNN(_DIGITS), DataConfig(), TrainConfig(steps=800, batch_size=50)),
    "nade": Preset(
        NADE(_DIGITS, features=300), DataConfig(), TrainConfig(steps=2000, batch_size=50)
    ),
    "made": Preset(
        MADE(_DIGITS, random_orders=8, dropout=0.3),
        DataConfig(),
        TrainConfig(steps=2500, batch_size=50),
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
