"""jaxgen: deep generative models in JAX. The public names."""

from jaxgen.causality import CausalityReport, check_autoregressive
from jaxgen.codec import compress, decompress
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
from jaxgen.mixtures import LogisticMixture, couple, num_coupled_params
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
from jaxgen.models.made import MADE, MADENet
from jaxgen.models.nade import NADE, NADENet
from jaxgen.models.pixelcnn import PixelCNN, PixelCNNNet
from jaxgen.models.pixelcnnpp import PixelCNNPP, PixelCNNPPNet
from jaxgen.models.pixelrnn import DiagonalBiLSTM, PixelRNNNet, RowLSTM
from jaxgen.models.pixelsnail import PixelSNAIL, PixelSNAILNet
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
)
from jaxgen.saved import SavedRun, load_run
from jaxgen.sound import mu_law_decode, mu_law_encode
from jaxgen.stacks import sample_pixels_wavefront
from jaxgen.streams import DownConv, DownRightConv, RightConv, StreamedNet

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
    "DiagonalBiLSTM",
    "Discriminator",
    "DiscretizedLogistic",
    "DownConv",
    "DownRightConv",
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
    "MADE",
    "MADENet",
    "LogisticMixture",
    "MODELS",
    "Metrics",
    "Model",
    "NADE",
    "NADENet",
    "Net",
    "NetState",
    "Optimizer",
    "PixelCNN",
    "PixelCNNNet",
    "PixelSNAIL",
    "PixelSNAILNet",
    "PixelRNNNet",
    "PixelCNNPP",
    "PixelCNNPPNet",
    "Preset",
    "Reconstructs",
    "RightConv",
    "RowLSTM",
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
    "compress",
    "conv",
    "conv_adjoint",
    "couple",
    "data_parallel",
    "decompress",
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
    "num_coupled_params",
    "per_example",
    "preset",
    "sample_pixels_cached",
    "sample_pixels_naive",
    "sample_pixels_wavefront",
    "weight_gradient",
]
