"""jaxgen: deep generative models in JAX. The public names."""

from jaxgen.causal.check import CausalityReport, check_autoregressive
from jaxgen.causal.masked import CausalConv, causal_mask
from jaxgen.causal.samplers import Draw, Stepper, sample_pixels_cached, sample_pixels_naive
from jaxgen.causal.streamed import StreamedNet
from jaxgen.causal.streamed_layers import DownConv, DownRightConv, RightConv
from jaxgen.causal.wavefront import sample_pixels_wavefront
from jaxgen.compression.codec import compress, decompress
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import load
from jaxgen.data.shuffle import indices
from jaxgen.data.splits import Split
from jaxgen.distributions.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Gaussian,
    Likelihood,
)
from jaxgen.distributions.mixtures import LogisticMixture, couple, num_coupled_params
from jaxgen.distributions.normal import interpolate, kl_standard_normal, normal_log_prob
from jaxgen.errors import UserError
from jaxgen.losses.adversarial import ADVERSARIAL_LOSSES, AdversarialLoss
from jaxgen.losses.bounds import importance_weighted_bound
from jaxgen.losses.penalties import gradient_penalty_r1
from jaxgen.media.sound import mu_law_decode, mu_law_encode
from jaxgen.model import (
    Batch,
    Completes,
    Generates,
    Inspection,
    Metrics,
    Model,
    Reconstructs,
    example_keys,
)
from jaxgen.models.adversarial.gan import GAN, Discriminator, GANState, Generator
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNNet
from jaxgen.models.autoregressive.made import MADE, MADENet
from jaxgen.models.autoregressive.nade import NADE, NADENet
from jaxgen.models.autoregressive.pixelcnn import PixelCNN, PixelCNNNet
from jaxgen.models.autoregressive.pixelcnnpp import PixelCNNPP, PixelCNNPPNet
from jaxgen.models.autoregressive.pixelrnn import DiagonalBiLSTM, PixelRNNNet, RowLSTM
from jaxgen.models.autoregressive.pixelsnail import PixelSNAIL, PixelSNAILNet
from jaxgen.models.autoregressive.wavenet import WaveNet, WaveNetNet
from jaxgen.models.latent.vae import VAE, VAENet
from jaxgen.nn.conv import conv, conv_adjoint, weight_gradient
from jaxgen.nn.layers import Conv, ConvTranspose, dropout
from jaxgen.optim.net import Net, NetState
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.inference import mean_and_error, per_example
from jaxgen.parallel.mesh import data_parallel, make_mesh
from jaxgen.registry import MODELS, Preset, load_run, preset
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.saved import SavedRun
from jaxgen.spec import ImageSpec, bits_per_dim

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
