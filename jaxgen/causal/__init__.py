"""Networks that see only the past, and their samplers."""

from jaxgen.causal.check import CausalityReport, check_autoregressive
from jaxgen.causal.condition import Condition
from jaxgen.causal.masked import CausalConv, causal_mask
from jaxgen.causal.samplers import Draw, Stepper, sample_pixels_cached, sample_pixels_naive
from jaxgen.causal.streamed import StreamedNet
from jaxgen.causal.streamed_layers import DownConv, DownRightConv, RightConv
from jaxgen.causal.wavefront import sample_pixels_wavefront

__all__ = [
    "CausalConv",
    "CausalityReport",
    "Condition",
    "DownConv",
    "DownRightConv",
    "Draw",
    "RightConv",
    "Stepper",
    "StreamedNet",
    "causal_mask",
    "check_autoregressive",
    "sample_pixels_cached",
    "sample_pixels_naive",
    "sample_pixels_wavefront",
]
