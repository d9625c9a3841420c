"""Encoders and decoders, generators and discriminators, each alone."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import filled
from tiny import some

from jaxgen import nn
from jaxgen.errors import UserError
from jaxgen.models.latent.vae import VAE
from jaxgen.spec import DataSpec

SHAPE = (7, 6, 2)
TO_VECTOR = {
    "mlp encoder": (nn.Encoder(hidden=(5, 4), num_classes=3), (4,)),
    "conv encoder": (nn.Encoder(hidden=(4,), filters=2, num_classes=3, activation="elu"), (4,)),
    "mlp discriminator": (nn.MLPDiscriminator(hidden=(5, 4), num_classes=3), ()),
    "dcgan discriminator": (nn.DCGANDiscriminator(filters=2, num_classes=3), ()),
}
FROM_VECTOR = {
    "mlp decoder": nn.Decoder(shape=SHAPE, hidden=(4, 5), num_classes=3),
    "resizing decoder": nn.Decoder(shape=SHAPE, hidden=(4,), filters=2, num_classes=3),
    "transposing decoder": nn.Decoder(
        shape=SHAPE, hidden=(), filters=2, upsample="transpose", num_classes=3
    ),
    "mlp generator": nn.MLPGenerator(shape=SHAPE, hidden=(5, 4), num_classes=3),
    "dcgan generator": nn.DCGANGenerator(shape=SHAPE, filters=2, num_classes=3),
}


def _normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _every_number_counts(apply, x):
    """Whether each entry of x, and the label, moves the outputs of its own example alone."""
    label = np.array([0, 1, 2])

    @jax.jit
    def value_and_slopes(x, label):
        (_, value), slopes = jax.value_and_grad(summed, has_aux=True)(x, label)
        return value, slopes

    def summed(x, label):
        value = apply(x, label)
        return (value**2).sum(), value

    value, slopes = map(np.asarray, value_and_slopes(x, label))
    assert (np.abs(slopes) > 0).all()
    others = np.asarray(value_and_slopes(x, (label + 1) % 3)[0])
    assert (np.abs(others - value).reshape(3, -1).max(1) > 1e-5).all()
    second = np.arange(3).reshape(3, *(1,) * (x.ndim - 1)) == 1
    moved = np.asarray(value_and_slopes(x + second.astype(x.dtype), label)[0])
    np.testing.assert_allclose(moved[::2], value[::2], atol=1e-6)
    return value


@pytest.mark.parametrize("name", TO_VECTOR)
def test_networks_to_vectors(name):
    network, shape = TO_VECTOR[name]
    x, label = _normal(3, *SHAPE), np.zeros(3, np.int32)
    values = filled(network, x, label)
    value = _every_number_counts(lambda *x: network.apply(values, *x), x)
    assert value.shape == (3, *shape)


@pytest.mark.parametrize("name", some(FROM_VECTOR, ["resizing decoder", "mlp generator"]))
def test_networks_from_vectors(name):
    network = FROM_VECTOR[name]
    z, label = _normal(3, 9), np.zeros(3, np.int32)
    values = filled(network, z, label)  # biases are positive: no ReLU is dead for every z
    value = _every_number_counts(lambda *x: network.apply(values, *x), z)
    assert value.shape == (3, *SHAPE)
    assert (np.abs(value).max() < 1) or "decoder" in name  # tanh


def test_a_decoder_shares_no_noise_with_an_encoder_of_the_same_keys():
    z, size = np.ones((2, 400), np.float32), 400
    network = nn.Decoder(shape=(1, 1, size), hidden=(size,), dropout=0.5)
    layer = {"kernel": np.eye(size, dtype=np.float32), "bias": np.zeros(size, np.float32)}
    params = {"decoder_layers_0": layer, "out": layer}

    def kept(first):
        @jax.jit
        def apply(key):
            return network.apply({"params": params}, z, None, jax.random.split(key, 2), first)

        return np.asarray(apply(jax.random.key(0))) > 0

    assert 0.4 < kept(0).mean() < 0.6
    assert 0.3 < (kept(0) == kept(3)).mean() < 0.7
    np.testing.assert_array_equal(kept(3), kept(3))


def test_a_vae_is_its_encoder_and_its_decoder():
    """The networks alone have the VAE's parameters, and their initial values, by the same names."""
    model = VAE(DataSpec(7, 6, 2, 5, 3), architecture="conv", filters=2, hidden=(4,), latents=3)
    network, label = model.network, np.zeros(1, np.int32)

    @jax.jit
    def begin():
        """The VAE's parameters, and those of the two networks."""
        state = model.init(jax.random.key(0), model.spec.example(1))
        given = (network.encoder, np.zeros((1, *SHAPE))), (network.decoder, np.zeros((1, 3)))
        return state.net.params, [
            part.clone(parent=None).init(jax.random.key(0), np.float32(x), label)["params"]
            for part, x in given
        ]

    whole, parts = begin()
    for alone in parts:
        assert alone.keys() < whole.keys()
        for name, layer in alone.items():
            jax.tree.map(np.testing.assert_array_equal, layer, whole[name])


@pytest.mark.parametrize("name", ["Dense", "Conv"])
def test_discriminators_are_their_formula(name):
    """Leaky ReLUs of slope 0.2, and BatchNorm after every layer but the first (Radford et al. 2016,
    arXiv:1511.06434, section 3)."""
    x, dense = _normal(3, *SHAPE), name == "Dense"
    network = nn.MLPDiscriminator(hidden=(5, 4)) if dense else nn.DCGANDiscriminator(filters=2)
    variables = filled(network, x)
    params, stats = variables["params"], variables["batch_stats"]
    assert set(stats) == {"Norm_1"}

    def layer(i, h):
        p = params[f"{name}_{i}"]
        if dense:
            return h.reshape(3, -1) @ p["kernel"] + p.get("bias", 0.0)
        conv = nn.Conv(p["kernel"].shape[-1], 4, 2, use_bias="bias" in p)
        return np.asarray(jax.jit(conv.apply)({"params": p}, h))

    leaky = lambda h: np.where(h > 0, h, 0.2 * h)  # noqa: E731
    h = layer(1, leaky(layer(0, np.asarray(x))))
    known, own = stats["Norm_1"]["BatchNorm_0"], params["Norm_1"]["BatchNorm_0"]
    h = (h - known["mean"]) / np.sqrt(known["var"] + 1e-5) * own["scale"] + own["bias"]
    features = leaky(h).reshape(3, -1)
    apply = lambda x, **how: network.apply(variables, x, **how)  # noqa: E731
    found, judged = jax.jit(lambda x: (apply(x, features=True), apply(x)))(x)
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)
    last = params["Dense_2" if dense else "Dense_0"]
    logits = (features @ last["kernel"] + last["bias"])[:, 0]
    np.testing.assert_allclose(judged, logits, rtol=1e-4, atol=1e-4)


def test_a_dcgan_begins_as_in_its_paper():
    """Weights of deviation 0.02 (section 4)."""
    for network, x in ((nn.DCGANGenerator(shape=(8, 8, 1), filters=16), np.zeros((1, 40))),
                       (nn.DCGANDiscriminator(filters=16), np.zeros((1, 8, 8, 1)))):  # fmt: skip
        params = jax.jit(network.init)(jax.random.key(0), x)["params"]
        kernels = [
            np.asarray(layer["kernel"]) for name, layer in params.items() if "kernel" in layer
        ]
        assert len(kernels) == 3
        for kernel in kernels:
            assert abs(float(kernel.std()) / 0.02 - 1) < 4 / (2 * kernel.size) ** 0.5


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 20), (9, 2)])
def test_a_dcgan_refuses_what_it_cannot_halve(size):
    with pytest.raises(UserError, match="at least 3 pixels"):
        nn.DCGANGenerator(shape=(*size, 1), filters=2).init(jax.random.key(0), jnp.ones((1, 2)))
    with pytest.raises(UserError, match="at least 3 pixels"):
        nn.DCGANDiscriminator(filters=2).init(jax.random.key(0), jnp.ones((1, *size, 1)))


def test_one_hot_labels_are_features_at_every_place():
    x, label = _normal(2, 3, 4, 5), np.array([2, 0])
    whole = np.asarray(jax.jit(nn.with_label, static_argnums=2)(x, label, 3))
    np.testing.assert_array_equal(whole[..., :5], x)
    expected = np.broadcast_to(np.eye(3)[label][:, None, None], (2, 3, 4, 3))
    np.testing.assert_array_equal(whole[..., 5:], expected)
    assert nn.with_label(x, None, 0) is x


def test_networks_hold_numbers_and_no_model():
    for name in nn.__all__:
        thing = getattr(nn, name)
        if inspect.isclass(thing):
            assert "model" not in thing.__dataclass_fields__
