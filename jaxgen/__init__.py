"""jaxgen: deep generative models in JAX. The public names; layers, losses, distributions and
causal networks are in the namespaces `jaxgen.nn`, `.losses`, `.distributions` and `.causal`, and
every model beside these three in its file of `jaxgen.models`, and by name in `MODELS`."""

from jaxgen import causal, distributions, losses, nn
from jaxgen.causal.check import check_autoregressive
from jaxgen.compression.codec import compress, decompress
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import from_arrays, load
from jaxgen.data.shuffle import indices
from jaxgen.data.splits import Split
from jaxgen.errors import UserError
from jaxgen.model import Batch, Metric, Model, Request, example_keys
from jaxgen.models.adversarial.gan import GAN
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.models.latent.vae import VAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.inference import per_example
from jaxgen.registry import MODELS, load_run, preset
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.spec import DataSpec, bits_per_dim
from jaxgen.training.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "DataConfig",
    "DataSpec",
    "Dataset",
    "GAN",
    "MODELS",
    "Metric",
    "Model",
    "Optimizer",
    "PixelCNN",
    "Request",
    "Run",
    "Split",
    "TrainConfig",
    "Trainer",
    "UserError",
    "VAE",
    "bits_per_dim",
    "causal",
    "check_autoregressive",
    "compress",
    "decompress",
    "distributions",
    "example_keys",
    "from_arrays",
    "indices",
    "load",
    "load_run",
    "losses",
    "nn",
    "per_example",
    "preset",
]
