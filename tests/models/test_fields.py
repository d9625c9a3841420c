"""Fields that have an effect only beside others are refused where they have none."""

import dataclasses

import pytest

from jaxgen.cli.flags import spelled
from jaxgen.errors import UserError
from jaxgen.models.adversarial.gan import GAN
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from jaxgen.models.autoregressive.made import MADE
from jaxgen.models.autoregressive.nade import NADE
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.models.autoregressive.pixelcnnpp import PixelCNNPP
from jaxgen.models.latent.autoencoder import Autoencoder
from jaxgen.models.latent.vae import VAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.registry import MODELS
from jaxgen.spec import DataSpec

SPEC, BINARY, POINTS = DataSpec(8, 8, 1, 5), DataSpec(8, 8, 1, 2), DataSpec(1, 1, 2, 0)

IDLE = [
    (Autoencoder, SPEC, {"filters": 8}, {"architecture": "conv"}),
    (Autoencoder, SPEC, {"hidden": (8,)}, {"architecture": "linear"}),
    (Autoencoder, SPEC, {"activation": "elu"}, {"architecture": "linear"}),
    (VAE, SPEC, {"filters": 8}, {"architecture": "conv"}),
    (VAE, SPEC, {"upsample": "transpose"}, {"architecture": "conv"}),
    (VAE, SPEC, {"warmup": 9}, {"beta": 0.0}),
    (GAN, SPEC, {"hidden": (8,)}, {"architecture": "mlp"}),
    (GAN, SPEC, {"filters": 8}, {"architecture": "mlp"}),
    (GAN, POINTS, {"filters": 8}, {}),
    (GAN, SPEC, {"noise_steps": 9}, {"instance_noise": 0.1}),
    (NADE, SPEC, {"order_seed": 3}, {"random_orders": 1}),
    (MADE, SPEC, {"order_seed": 3}, {"random_orders": 1}),
    (MADE, SPEC, {"order_seed": 3}, {"masks": 2}),
    (PixelCNN, SPEC, {"kernel": 5}, {"blocks": 0}),
    (PixelCNN, SPEC, {"remat": True}, {"blocks": 0}),
    (GatedPixelCNN, SPEC, {"kernel": 5}, {"blocks": 0}),
    (PixelCNNPP, SPEC, {"components": 3}, {"output": "categorical"}),
    (PixelCNNPP, BINARY, {"components": 3}, {}),
    (Optimizer, None, {"b2": 0.9}, {"name": "sgd"}),
]
"""(class, spec, a field, what decides whether it has an effect)."""


@pytest.mark.parametrize("kind, spec, field, switch", IDLE)
def test_a_field_without_effect_is_refused(kind, spec, field, switch):
    def made(**fields):
        return kind(**fields) if spec is None else kind(spec, **fields)

    [(name, value)] = field.items()
    refused = 0
    for other in (switch, {}):
        try:
            made(**field, **other)
        except UserError as error:
            assert str(error).startswith(f"`{name}`={value} has no effect without ")
            assert str(error).endswith(f": change that, or leave `{name}` out")
            refused += 1
        # What is at its default was not set.
        made(**{name: getattr(made(), name)}, **other)
    assert refused == (1 if switch else 2)


def test_every_declared_field_is_one_and_is_tried():
    kinds = {type(preset.model) for preset in MODELS.values()} | {Optimizer}
    declared = {
        (kind, name)
        for kind in kinds
        for base in kind.__mro__
        for name in vars(base).get("only", {})
    }
    assert all(name in {f.name for f in dataclasses.fields(kind)} for kind, name in declared)
    assert declared == {(kind, *field) for kind, _, field, _ in IDLE}


def test_the_command_line_spells_it():
    with pytest.raises(UserError) as error:
        VAE(SPEC, filters=64)
    flags = ["vae.filters", "vae.architecture", "vae.hidden"]
    assert spelled(str(error.value), flags, ()) == (
        "--vae.filters=64 has no effect without --vae.architecture=conv: change that, or leave "
        "--vae.filters out"
    )
