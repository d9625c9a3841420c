"""The codec: sizes against the NLL, and every damage and mistake."""

import dataclasses
import hashlib
import math
import tracemalloc
import zlib

import jax
import numpy as np
import pytest
from tiny import some

from jaxgen.compression import codec, file_format, rans
from jaxgen.errors import UserError
from jaxgen.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from jaxgen.models.autoregressive.made import MADE
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.models.autoregressive.pixelcnnpp import PixelCNNPP
from jaxgen.models.autoregressive.pixelrnn import DiagonalBiLSTM
from jaxgen.spec import DataSpec

SMALL = {"features": 4, "blocks": 1, "head": 4, "first_kernel": 3, "dropout": 0.0}
MODELS = {
    "pixelcnn": PixelCNN(DataSpec(8, 8, 1, 17), **SMALL),
    "gated, conditional, columns": GatedPixelCNN(
        DataSpec(4, 5, 1, 2, num_classes=10), **SMALL, order="columns"
    ),
    "pixelcnn, rgb": PixelCNN(DataSpec(4, 4, 3, 256), **SMALL),
    "gated, rgb, conditional": GatedPixelCNN(DataSpec(3, 4, 3, 8, num_classes=3), **SMALL),
    "diagonal": DiagonalBiLSTM(DataSpec(3, 4, 1, 5), **SMALL),
    "made, random order": MADE(DataSpec(3, 4, 1, 5), hidden=(20,), random_orders=1, order_seed=3),
    "pixelcnnpp, rgb, mixtures": PixelCNNPP(DataSpec(4, 3, 3, 9), features=4, components=2),
}

QUICK = [
    "pixelcnn",
    "gated, conditional, columns",
    "made, random order",
]


def changed(tree, how):
    """With every array changed in that way, float32."""
    return jax.tree.map(lambda x: np.float32(how(np.asarray(x))), tree)


@pytest.fixture(scope="module")
def case(random_state):
    """name -> model, random parameters, 150 random images, mostly dark, and labels; made once."""
    made = {}

    def case(name):
        if name not in made:
            model, rng = MODELS[name], np.random.default_rng(0)
            # Parameters that do not exclude any level.
            state = changed(random_state(model), lambda x: x * 0.5)
            state = state.replace(ema=state.net.variables)
            shape = (150, *model.spec.shape)
            images = rng.integers(model.spec.levels, size=shape, dtype=np.uint8)
            images = np.where(rng.random(shape) < 0.5, 0, images).astype(np.uint8)
            classes = model.spec.num_classes
            made[name] = model, state, images, rng.integers(classes, size=150) if classes else None
        return made[name]

    return case


def nll_in_bytes(model, state, images, label):
    batch = {"x": images, "index": np.arange(len(images))}
    batch |= {} if label is None else {"label": label}
    bits = np.asarray(-jax.jit(model.log_prob)(state.ema, batch), np.float64) / math.log(2)
    # No level has less than 1 of 2^20.
    return np.minimum(bits, 20).sum() / 8


@pytest.mark.parametrize("name", some(MODELS, QUICK))
def test_images_come_back_from_as_many_bits_as_the_nll(name, case):
    model, state, images, label = case(name)
    told = []
    data = codec.compress(model, state, images, label, told.append)
    assert told == [22, 64, 64]  # last in, first out
    back, labels = codec.decompress(model, state, data)
    np.testing.assert_array_equal(back, images)
    assert (labels is None) == (label is None)
    if label is not None:
        np.testing.assert_array_equal(labels, label)
    # One program in both directions: that is what makes the probabilities the same.
    assert codec._step(model, codec.CHUNK)._cache_size() == 1
    ideal = nll_in_bytes(model, state, images, label)
    ideal += len(images) * math.log2(model.spec.num_classes or 1) / 8
    header = codec.header_size(data)
    assert header < 180
    # At most a byte of each state is a matter of chance.
    assert 0.999 * ideal < len(data) - header < 1.001 * ideal + rans.LANES


@pytest.mark.parametrize("num", [1, 63, 64, 65])
def test_any_number_of_images(num, case):
    model, state, images, label = case("gated, conditional, columns")
    data = codec.compress(model, state, images[:num], label[:num])
    back, labels = codec.decompress(model, state, data)
    np.testing.assert_array_equal(back, images[:num])
    np.testing.assert_array_equal(labels, label[:num])


def test_a_single_class_is_certain_and_costs_nothing(random_state):
    """Its frequency is 2^20, all there is; from 65 images on a file could not be read again."""
    fields = {**SMALL, "order": "raster"}
    model = GatedPixelCNN(DataSpec(3, 3, 1, 2, num_classes=1), **fields)
    state = random_state(model)
    images = np.random.default_rng(0).integers(2, size=(130, 3, 3, 1), dtype=np.uint8)
    label = np.zeros(130, np.int32)
    data = codec.compress(model, state, images, label)
    codec.verify(model, state, data, images, label)
    ideal = nll_in_bytes(model, state, images, label)
    assert len(data) - codec.header_size(data) < 1.001 * ideal + rans.LANES


def test_what_does_not_come_back_is_told(case):
    """A file of other images, and one that another network reads otherwise."""
    model, state, images, label = case("gated, conditional, columns")
    images, label = images[:9], label[:9]
    data = codec.compress(model, state, images, label)
    codec.verify(model, state, data, images, label)
    shifted = state.replace(ema=changed(state.ema, lambda x: x + 1e-3))
    for other in ((state, data, images[::-1], label), (state, data, images, label[::-1]),
                  (state, data[:-1], images, label), (shifted, data, images, label)):  # fmt: skip
        with pytest.raises(UserError, match="does not decode to the images"):
            codec.verify(model, *other)


def test_nothing_but_the_images_and_labels_decides(case):
    """Images that are not contiguous, labels of another type."""
    model, state, images, label = case("gated, conditional, columns")
    turned = np.asfortranarray(images)
    assert codec.compress(model, state, turned, label.astype(np.uint8)) == codec.compress(
        model, state, images, label
    )


def test_images_that_are_not_the_models_are_refused(case):
    model, state, images, label = case("pixelcnn")
    with pytest.raises(UserError, match="at least 1"):
        codec.compress(model, state, images[:0])
    with pytest.raises(UserError, match=r"\[n 8 8 1\].*\[150, 8, 7, 1\]"):
        codec.compress(model, state, images[:, :, :7])
    with pytest.raises(UserError, match="uint8"):
        codec.compress(model, state, images.astype(np.float32))
    with pytest.raises(UserError, match=r"0\.\.16; an image has 17"):
        codec.compress(model, state, np.where(np.arange(150)[:, None, None, None] == 99, 17, images)
                       .astype(np.uint8))  # fmt: skip
    with pytest.raises(UserError, match="takes no labels"):
        codec.compress(model, state, images, np.zeros(150, int))
    model, state, images, label = case("gated, rgb, conditional")
    with pytest.raises(UserError, match="needs the label"):
        codec.compress(model, state, images)
    for wrong in (label[:-1], label + 3, label - 3, label.astype(float)):
        with pytest.raises(UserError, match=r"150 integers in 0\.\.2"):
            codec.compress(model, state, images, wrong)


@pytest.fixture(scope="module")
def file(case):
    model, state, images, _ = case("pixelcnn")
    return codec.compress(model, state, images[:20])


def test_an_ensemble_is_refused(random_state):
    model = MADE(DataSpec(2, 2, 1, 2), hidden=(8,), random_orders=2)
    with pytest.raises(UserError, match="the mean of 2, and a file is coded by one"):
        codec.compress(model, random_state(model), np.zeros((3, 2, 2, 1), np.uint8))


def test_a_model_without_probabilities_of_sub_pixels_is_refused():
    with pytest.raises(UserError, match="a probability to every sub-pixel in turn"):
        codec.compress(object(), None, np.zeros((3, 2, 2, 1), np.uint8))


def refused(model, state, data):
    with pytest.raises(UserError) as caught:
        codec.decompress(model, state, data)
    return str(caught.value)


def test_every_changed_byte_is_found(file, case):
    model, state, *_ = case("pixelcnn")
    head = len(file_format.pack(file_format.unpack(file)[0], b""))
    places = [*range(head + 8), *range(head + 8, len(file), 37), len(file) - 1]
    for place in places:
        for bit in (0, 7):
            changed = bytearray(file)
            changed[place] ^= 1 << bit
            message = refused(model, state, bytes(changed))
            if place < 8:
                assert "is not a file that jaxgen compress wrote" in message
            elif place < 10:
                assert "this jaxgen reads format 1" in message
            elif place < 18:
                assert "where its header says" in message
            assert message.startswith("it ")


def test_a_file_cut_short_or_lengthened_is_refused(file, case):
    model, state, *_ = case("pixelcnn")
    for length in range(len(file)):
        message = refused(model, state, file[:length])
        assert ("cut short" if length else "not a file that jaxgen") in message, length
    assert "after its end" in refused(model, state, file + b"\0")
    assert "after its end" in refused(model, state, file + file)
    assert "not a file that jaxgen" in refused(model, state, b"GIF89a" + file)


def test_another_model_is_refused(file, case):
    model, state, *_ = case("pixelcnn")
    shifted = state.replace(ema=changed(state.ema, lambda x: x + 1e-7))
    assert "other parameters" in refused(model, shifted, file)
    # Only the averaged parameters count, on whatever devices they are.
    other = state.replace(net=state.net.replace(variables=shifted.ema))
    assert len(codec.decompress(model, jax.device_put(other, jax.devices()[1]), file)[0]) == 20
    turned = dataclasses.replace(model, order="columns")
    assert "another model (PixelCNN" in refused(turned, state, file)
    other_model, other_state, *_ = case("pixelcnn, rgb")
    assert "another model" in refused(other_model, other_state, file)


def test_another_random_order_is_another_model(case):
    model, state, images, _ = case("made, random order")
    data = codec.compress(model, state, images[:5])
    other = dataclasses.replace(model, order_seed=4)
    assert "another model (MADE" in refused(other, state, data)


def test_other_arithmetic_is_found_and_told_from_damage(file, case):
    """A decoder whose probabilities differ, in a file whose every checksum is right."""
    model, state, *_ = case("pixelcnn")
    shifted = state.replace(ema=changed(state.ema, lambda x: x + 1e-4))
    header, payload = file_format.unpack(file)
    disguised = header._replace(fingerprint=codec.fingerprint(model, shifted), made_by="Elsewhere")
    message = refused(model, shifted, file_format.pack(disguised, payload))
    assert "rounds differently" in message and "written by Elsewhere" in message


def test_a_payload_that_leads_astray_is_refused(file, case):
    """Whatever the payload says, decoding ends and its images are not given out."""
    model, state, *_ = case("pixelcnn")
    header, payload = file_format.unpack(file)
    rng = np.random.default_rng(0)
    for wrong in (payload[:64], payload[:64] + bytes(len(payload)), rng.bytes(len(payload))):
        assert "other images" in refused(model, state, file_format.pack(header, wrong))


def test_a_forged_header_takes_no_memory(file, case):
    """Whatever it says under a right checksum: sizes are bounded by the file."""
    model, state, *_ = case("pixelcnn")
    header, payload = file_format.unpack(file)

    def told(payload=payload, **changed):
        return refused(model, state, file_format.pack(header._replace(**changed), payload))

    for chunk in (0, 7, 63, 2048, 2**16 - 16):
        assert f"it has {chunk} images at a time" in told(chunk=chunk)
    tracemalloc.start()
    for num in (0, 2**24, 2**32 - 1):
        assert f"it has {num:,} images in {len(payload):,} bytes" in told(num=num)
    for wrong in (b"", b"x", payload[:63], bytes(64), b"\xff" * 61):
        assert "that begins with no states" in told(payload=wrong, num=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
    # More images than there are, within what the bytes could hold: it stops where the bytes end.
    counted = []
    data = file_format.pack(header._replace(num=50_000), payload)
    with pytest.raises(UserError, match="other images"):
        codec.decompress(model, state, data, counted.append)
    assert sum(counted) < 1000
    assert "other images" in told(payload + b"\0")


def test_the_first_states_are_the_digest_of_the_images(file, case):
    """The file's layout, read without the code that reads it."""
    model, _, images, _ = case("pixelcnn")
    assert file[:10] == b"\x93jaxgen\n\x01\0"
    assert int.from_bytes(file[-4:], "little") == zlib.crc32(file[:-4])
    sha = hashlib.sha256(images[:20].tobytes() + bytes(4 * 20)).digest()
    lanes = codec._first_lanes(sha)
    assert (lanes >> 24 == 1).all()
    assert b"".join(int(x).to_bytes(4, "little")[:2] for x in lanes) == sha


def test_a_network_without_sense_is_still_lossless(case):
    """Parameters that are not numbers: every level is equally likely, and comes back."""
    model, state, images, _ = case("pixelcnn")
    state = changed(state, lambda x: np.full(x.shape, np.nan))
    data = codec.compress(model, state, images[:40])
    np.testing.assert_array_equal(codec.decompress(model, state, data)[0], images[:40])
    assert len(data) == pytest.approx(40 * 64 * math.log2(17) / 8 + 140, rel=0.02)
