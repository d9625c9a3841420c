"""Layers and networks for any family of models."""

from jaxgen.nn.discriminators import DCGANDiscriminator, MLPDiscriminator
from jaxgen.nn.encoders import DCGANGenerator, Decoder, Encoder, MLPGenerator
from jaxgen.nn.labels import with_label
from jaxgen.nn.layers import (
    ACTIVATIONS,
    Conv,
    ConvTranspose,
    concat_elu,
    dropout,
    fold_keys,
    gate,
    halvings,
    upsample,
)
from jaxgen.nn.norm import Norm
from jaxgen.nn.resnet import ResNetDiscriminator, ResNetGenerator

__all__ = [
    "ACTIVATIONS",
    "Conv",
    "ConvTranspose",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "Decoder",
    "Encoder",
    "MLPDiscriminator",
    "MLPGenerator",
    "Norm",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "concat_elu",
    "dropout",
    "fold_keys",
    "gate",
    "halvings",
    "upsample",
    "with_label",
]
