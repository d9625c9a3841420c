"""Fields that have an effect only beside others are refused where they have none."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import batch_of, some

from jaxgen.cli.flags import spelled
from jaxgen.errors import UserError
from jaxgen.fields import Repeats, mended
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
from jaxgen.models.autoregressive.pixelsnail import PixelSNAIL
from jaxgen.models.latent.autoencoder import Autoencoder
from jaxgen.models.latent.iaf import IAF
from jaxgen.models.latent.ladder import Ladder
from jaxgen.models.latent.pixelvae import PixelVAE
from jaxgen.models.latent.pixelvae_maps import MapPixelVAE
from jaxgen.models.latent.vae import VAE
from jaxgen.models.latent.vqvae import VQVAE
from jaxgen.optim.optimizer import Optimizer
from jaxgen.registry import MODELS
from jaxgen.spec import DataSpec

TRANSLATORS = Pix2Pix, Pix2PixL1, CycleGAN
COLOURED = DataSpec(8, 8, 1, 5, source=DataSpec(8, 8, 3, 5))
PAIRS = DataSpec(8, 8, 1, 5, source=DataSpec(8, 8, 1, 5))
SPEC, BINARY, POINTS = DataSpec(8, 8, 1, 5), DataSpec(8, 8, 1, 2), DataSpec(1, 1, 2, 0)

IDLE = [
    (Autoencoder, SPEC, {"filters": 8}, {"architecture": "conv"}),
    (Autoencoder, SPEC, {"hidden": (8,)}, {"architecture": "linear"}),
    (Autoencoder, SPEC, {"activation": "elu"}, {"architecture": "linear"}),
    *(
        (kind, SPEC, *fields)
        for kind in (VAE, IAF, Ladder, PixelVAE)
        for fields in (
            ({"filters": 8}, {"architecture": "conv"}),
            ({"upsample": "transpose"}, {"architecture": "conv"}),
        )
    ),
    *(
        (kind, SPEC, *fields)
        for kind in (VAE, IAF, Ladder, PixelVAE, MapPixelVAE)
        for fields in (({"warmup": 9}, {"beta": 0.0}), ({"free_bits": 0.1}, {"k": 2}))
    ),
    *(
        (kind, BINARY, {"least_scale": 0.01}, {"likelihood": "gaussian"})
        for kind in (VAE, IAF, Ladder, VQVAE)
    ),
    (Ladder, SPEC, {"inference": "bottom_up"}, {"latents": (4,), "hidden": (8,)}),
    (PixelVAE, SPEC, {"inference": "bottom_up"}, {"latents": (4, 2), "hidden": (8, 6)}),
    (GAN, SPEC, {"hidden": (8,)}, {"architecture": "mlp"}),
    (GAN, SPEC, {"filters": 8}, {"architecture": "mlp"}),
    (GAN, POINTS, {"filters": 8}, {}),
    *(
        (kind, spec, *fields)
        for kind, spec in (
            (GAN, SPEC),
            (BiGAN, SPEC),
            (HALI, SPEC),
            (Pix2Pix, PAIRS),
            (ProGAN, SPEC),
        )
        for fields in (
            ({"penalty_every": 2}, {"r1": 1.0, **({} if kind is ProGAN else {"d_norm": "none"})}),
            ({"label_smoothing": 0.1}, {"loss": "hinge"}),
            ({"noise_steps": 9}, {"instance_noise": 0.1}),
        )
    ),
    *((kind, PAIRS, {"blocks": 3}, {"architecture": "resnet"}) for kind in TRANSLATORS),
    (CycleGAN, COLOURED, {"identity": 5.0}, {}),
    *(
        (kind, SPEC, *fields)
        for kind in (GAN, ProGAN)
        for fields in (
            ({"augment_target": 0.6}, {"augment": "translation"}),
            ({"augment_move": 0.1}, {"augment": "translation", "augment_target": 0.6}),
        )
    ),
    *(
        (kind, spec, {"condition_by": "auxiliary"}, {})
        for kind, spec in (
            (GAN, SPEC),
            (BiGAN, SPEC),
            (HALI, SPEC),
            (Pix2Pix, PAIRS),
            (ProGAN, SPEC),
            (StyleGAN2, SPEC),
        )
    ),
    (StyleGAN2, SPEC, {"penalty_every": 2}, {"r1": 1.0}),
    (StyleGAN2, SPEC, {"label_smoothing": 0.1}, {"loss": "hinge"}),
    (StyleGAN2, SPEC, {"noise_steps": 9}, {"instance_noise": 0.1}),
    (StyleGAN2, SPEC, {"path_every": 2}, {"path_length": 1.0}),
    (StyleGAN2, DataSpec(7, 7), {"upsample": "nearest"}, {}),
    *((kind, SPEC, {"filters": 8}, {"architecture": "conv"}) for kind in (BiGAN, HALI)),
    (ProGAN, SPEC, {"fade": 0.2}, {"stage_steps": 0}),
    (NADE, SPEC, {"order_seed": 3}, {"random_orders": 1}),
    (MADE, SPEC, {"order_seed": 3}, {"random_orders": 1}),
    (MADE, SPEC, {"order_seed": 3}, {"masks": 2}),
    (PixelCNN, SPEC, {"kernel": 5}, {"blocks": 0}),
    (PixelCNN, SPEC, {"remat": True}, {"blocks": 0}),
    (PixelCNN, SPEC, {"dropout": 0.1}, {"blocks": 0}),
    (PixelSNAIL, SPEC, {"kernel": 3}, {"layers": 0}),
    (GatedPixelCNN, SPEC, {"kernel": 5}, {"blocks": 0}),
    (PixelCNNPP, SPEC, {"components": 3}, {"output": "categorical"}),
    (PixelCNNPP, BINARY, {"components": 3}, {}),
    (Optimizer, None, {"b2": 0.9}, {"name": "sgd"}),
    (Optimizer, None, {"decay": "linear"}, {"decay_steps": 9}),
    (Optimizer, None, {"constant_steps": 9}, {"decay_steps": 9}),
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
            assert str(error).endswith(f": change that, or {mended(name, getattr(made(), name))}")
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
        "--vae.filters=64 has no effect without --vae.architecture=conv: change that, or give "
        "--vae.filters=32, its default"
    )
    assert mended("hidden", (500, 500)) == "give `hidden` 500 500, its default"
    for default in (None, "", (), False, Optimizer()):
        assert mended("field", default) == "leave `field` out"


def others(model, name, hint):
    """Other values of a field."""
    value = getattr(model, name)
    if typing.get_origin(hint) is typing.Literal:
        return [choice for choice in typing.get_args(hint) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 2, 2 * value] if value else [3]  # odd stays odd
    if isinstance(value, float):
        return [value / 2 + 0.1]
    return [tuple(n + 1 for n in value)] if isinstance(value, tuple) else []


WHATS = ("init", "eval_step", "train_step")
"""What a model does, the quickest to trace first."""


@functools.cache
def program(model, what):
    """A model's function as a digest of its jaxpr with its constants."""
    key, batch = jax.random.key(0), model.spec.example(4 * model.minibatches * model.multiple)
    given = (key, batch)
    if what != "init":
        given = (key, jax.eval_shape(model.init, key, batch), batch)
    more = (3,) if what == "train_step" else ()
    jaxpr = jax.make_jaxpr(lambda *given: getattr(model, what)(*given, *more))(*given)
    arrays = [c for c in jaxpr.consts if not jnp.issubdtype(c.dtype, jax.dtypes.prng_key)]
    text = "".join(map(str, [jaxpr, *map(np.asarray, arrays)]))
    return hashlib.sha256(text.encode()).digest()


def same(model, other):
    """Whether two models are initialized, judged and trained alike. To trace a training step takes
    ten times as long as the others: only where they are the same."""
    return all(program(model, what) == program(other, what) for what in WHATS)


def sizes(model):
    """The fields of a network's sizes."""
    number = lambda f: type(f.default) is int or isinstance(f.default, tuple)  # noqa: E731
    return [f for f in dataclasses.fields(model) if number(f) and not follows_the_clock(model, f)]


def follows_the_clock(model, field):
    return any(field.name in vars(kind).get("clock", ()) for kind in type(model).__mro__)


@pytest.mark.parametrize("name", MODELS)
def test_no_size_is_beyond_any_memory(name):
    """Of a network, which would be built for ever; steps and seeds may be as large as any."""
    tiny = MODELS[name].tiny
    for field in dataclasses.fields(tiny):
        if follows_the_clock(tiny, field):
            with contextlib.suppress(UserError):  # of a field that has no effect here
                dataclasses.replace(tiny, **{field.name: 2**31 - 1})
    for field in sizes(tiny):
        most = 2**9 if field.type is Repeats else 2**16
        for value in (most + 1, 2**31):
            huge = (value,) if isinstance(field.default, tuple) else value
            with pytest.raises(UserError, match=f"`{field.name}`.* must be at most {most};"):
                dataclasses.replace(tiny, **{field.name: huge})


def operations(jaxpr):
    """How many a program has, those of its inner programs among them."""
    inner = [
        getattr(leaf, "jaxpr", leaf)
        for equation in jaxpr.eqns
        for leaf in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns"))
    ]
    return len(jaxpr.eqns) + sum(operations(each) for each in inner if hasattr(each, "eqns"))


GROUPS = 2 * 3 * 4 * 5
"""Examples that parts and groups of any few divide."""


def length(model):
    """Operations of a train step, and arrays of its state."""
    batch = batch_of(GROUPS * model.minibatches, model.spec)
    state = jax.eval_shape(model.init, jax.random.key(0), batch)
    step = functools.partial(model.train_step, batch=batch, step=0)
    program = jax.make_jaxpr(step)(jax.random.key(0), state).jaxpr
    return operations(program) + len(jax.tree.leaves(state))


@pytest.mark.parametrize("name", some(MODELS, ("vae", "nade", "wavenet")))
def test_what_makes_a_program_longer_is_declared(name):
    """As `Repeats`, of which there may be fewer."""
    tiny = MODELS[name].tiny
    for field in dataclasses.fields(tiny):
        if type(field.default) is not int:
            continue
        lengths = [length(tiny)]
        with contextlib.suppress(UserError):
            for more in (1, 2, 4):
                value = getattr(tiny, field.name) + more
                lengths.append(length(dataclasses.replace(tiny, **{field.name: value})))
        longer = all(a < b for a, b in itertools.pairwise(lengths))
        if len(lengths) == 4:
            assert longer == (field.type is Repeats), f"{field.name}: {lengths}"


def test_models_have_sizes():
    assert sum(len(sizes(preset.tiny)) for preset in MODELS.values()) > 2 * len(MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_field_changes_something_or_is_refused(name):
    """Beside every choice, and beside every whole number that is zero; samplers aside, which are
    chosen for their speed."""
    tiny = MODELS[name].tiny
    hints = typing.get_type_hints(type(tiny))
    fields = [f.name for f in dataclasses.fields(tiny) if f.name not in ("spec", "sampler")]
    bases = [tiny]
    for field in fields:
        zero = [0] if type(getattr(tiny, field)) is int and getattr(tiny, field) else []
        choice = typing.get_origin(hints[field]) is typing.Literal
        for value in others(tiny, field, hints[field]) if choice else zero:
            with contextlib.suppress(UserError):
                bases.append(dataclasses.replace(tiny, **{field: value}))
    idle = set()
    for base in bases:
        for field in fields:
            values = others(base, field, hints[field])
            with contextlib.suppress(UserError):  # a refusal is told
                models = (dataclasses.replace(base, **{field: value}) for value in values)
                if values and all(same(model, base) for model in models):
                    idle.add(field)
    program.cache_clear()
    # At four pixels a side D has one layer, which is not normalized.
    assert idle == ({"d_norm"} if name == "gan" else set())
