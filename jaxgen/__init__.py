"""jaxgen: deep generative models in JAX. The public names."""

from jaxgen.causality import CausalityReport, check_autoregressive
from jaxgen.conv import conv, conv_adjoint, weight_gradient
from jaxgen.data import DataConfig, Dataset, Split, indices, load
from jaxgen.errors import UserError
from jaxgen.evaluate import mean_and_error, per_example
from jaxgen.layers import CausalConv, Conv, ConvTranspose, causal_mask, dropout
from jaxgen.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Gaussian,
    Likelihood,
)
from jaxgen.losses import (
    ADVERSARIAL_LOSSES,
    AdversarialLoss,
    bits_per_dim,
    gradient_penalty_r1,
    importance_weighted_bound,
    kl_standard_normal,
    normal_log_prob,
)
from jaxgen.model import (
    Batch,
    Completes,
    Generates,
    ImageSpec,
    Inspection,
    Metrics,
    Model,
    Reconstructs,
    example_keys,
    interpolate,
)
from jaxgen.models.autoregressive import Autoregressive
from jaxgen.models.gan import GAN, Discriminator, GANState, Generator
from jaxgen.models.gated import GatedPixelCNN, GatedPixelCNNNet
from jaxgen.models.pixelcnn import PixelCNN, PixelCNNNet
from jaxgen.models.vae import VAE, VAENet
from jaxgen.models.wavenet import WaveNet, WaveNetNet
from jaxgen.net import Net, NetState, Optimizer
from jaxgen.parallel import data_parallel, make_mesh
from jaxgen.registry import MODELS, Preset, preset
from jaxgen.run import Run, TrainConfig
from jaxgen.sampling import (
    Draw,
    Stepper,
    sample_pixels_cached,
    sample_pixels_naive,
    sample_pixels_wavefront,
)
from jaxgen.saved import SavedRun, load_run
from jaxgen.sound import mu_law_decode, mu_law_encode
from jaxgen.streams import DownConv, RightConv, StreamedNet

__version__ = "0.1.0"

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AdversarialLoss",
    "Autoregressive",
    "Batch",
    "Bernoulli",
    "Categorical",
    "CausalConv",
    "CausalityReport",
    "Completes",
    "Conv",
    "ConvTranspose",
    "DataConfig",
    "Dataset",
    "Discriminator",
    "DiscretizedLogistic",
    "DownConv",
    "Draw",
    "GAN",
    "GANState",
    "GatedPixelCNN",
    "GatedPixelCNNNet",
    "Gaussian",
    "Generates",
    "Generator",
    "ImageSpec",
    "Inspection",
    "LIKELIHOODS",
    "Likelihood",
    "MODELS",
    "Metrics",
    "Model",
    "Net",
    "NetState",
    "Optimizer",
    "PixelCNN",
    "PixelCNNNet",
    "Preset",
    "Reconstructs",
    "RightConv",
    "Run",
    "SavedRun",
    "Split",
    "Stepper",
    "StreamedNet",
    "TrainConfig",
    "UserError",
    "VAE",
    "VAENet",
    "WaveNet",
    "WaveNetNet",
    "bits_per_dim",
    "causal_mask",
    "check_autoregressive",
    "conv",
    "conv_adjoint",
    "data_parallel",
    "dropout",
    "example_keys",
    "gradient_penalty_r1",
    "importance_weighted_bound",
    "indices",
    "interpolate",
    "kl_standard_normal",
    "load",
    "load_run",
    "make_mesh",
    "mean_and_error",
    "mu_law_decode",
    "mu_law_encode",
    "normal_log_prob",
    "per_example",
    "preset",
    "sample_pixels_cached",
    "sample_pixels_naive",
    "sample_pixels_wavefront",
    "weight_gradient",
]
