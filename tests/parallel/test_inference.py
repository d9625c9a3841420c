"""Large requests run in chunks of bounded size over all devices, and the images are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data.splits import Split
from jaxgen.model import Request
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.parallel import inference
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.spec import DataSpec

NUM = 11


class Numbers:
    """A stand-in for a model: whatever it is asked for, it answers with the numbers of the
    examples, by which their noise is named."""

    convolutional, multiple = False, 1

    def __init__(self, spec):
        self.spec = spec

    def eval_step(self, key, state, batch):
        return {"number": batch["index"].astype(jnp.float32)}

    def sample(self, key, state, num, request):
        return request.start + jnp.arange(num)

    def complete(self, key, state, x, known, request):
        return request.start + jnp.arange(len(x))

    def draw_latents(self, key, state, num, label, start):
        return start + jnp.arange(num)

    def decode(self, key, state, z, label, start):
        return start + jnp.arange(len(z))

    def translate(self, key, state, source, label, way, start):
        return start + jnp.arange(len(source))

    def encode(self, key, state, batch):
        return batch["index"]

    def log_weight(self, key, state, batch):
        return batch["index"]


@pytest.mark.parametrize("devices", [1, 4])
def test_examples_are_numbered_by_their_place_in_the_whole(devices, monkeypatch):
    """Not within a chunk, a batch or a device: else noise would depend on how they are cut."""
    monkeypatch.setattr(inference, "CHUNK", 2)
    spec, mesh, key = DataSpec(2, 2, 1, 3), make_mesh(devices), jax.random.key(0)
    model, x = Numbers(spec), np.zeros((NUM, 2, 2, 1), np.uint8)
    given = {"x": x, "known": x > 0, "z": x[:, 0, 0], "source": x}
    for what in ("sample", "complete", "draw_latents", "decode", "translate", "encode",
                 "log_weight"):  # fmt: skip
        found = inference.joined(model, what, mesh, key, {}, NUM, given)
        np.testing.assert_array_equal(found, np.arange(NUM))
    for size in (3, 8, 100):
        found = inference.per_example(model, mesh, key, {}, Split.of(x), size)["number"]
        np.testing.assert_array_equal(found, np.arange(NUM))


class Trios(Numbers):
    """Takes each three together, as some discriminators do."""

    multiple = 3

    def eval_step(self, key, state, batch):
        return {"number": batch["index"].reshape(-1, 3).max(1).repeat(3)}


@pytest.mark.parametrize("devices", [1, 4])
def test_examples_that_are_judged_together_stay_together(devices):
    """The last ones with the first, however batches are cut."""
    model, x = Trios(DataSpec(2, 2, 1, 3)), np.zeros((NUM, 2, 2, 1), np.uint8)
    for size in (3, 8, 100):
        found = inference.per_example(
            model, make_mesh(devices), jax.random.key(0), {}, Split.of(x), size
        )["number"]
        np.testing.assert_array_equal(found, [2, 2, 2, 5, 5, 5, 8, 8, 8, 10, 10])


@pytest.fixture(scope="module")
def model():
    sizes = {"features": 4, "blocks": 1, "head": 4, "first_kernel": 3, "dropout": 0.0}
    return PixelCNN(DataSpec(3, 4, 1, 3, num_classes=3), **sizes)


@pytest.fixture(scope="module")
def direct(model, random_state):
    """Labels, images and what is known of them; and what the model makes of all at once."""
    rng, key, state = np.random.default_rng(0), jax.random.key(3), random_state(model)
    label = rng.integers(3, size=NUM).astype(np.int32)
    image = rng.integers(3, size=(NUM, *model.spec.shape)).astype(np.uint8)
    given = {"x": image, "known": rng.random(image.shape) < 0.5, "label": label}

    @jax.jit
    def run(x, known, label):
        request = Request(label, 0.9)
        sampled = model.sample(key, state, NUM, request)
        return sampled, model.complete(key, state, x, known, request)

    return given, jax.device_get(run(**given))


@pytest.mark.parametrize("devices", [1, 4])
def test_chunks_change_no_image(devices, model, direct, random_state, monkeypatch):
    monkeypatch.setattr(inference, "CHUNK", 2)
    mesh, (given, (whole, filled)) = make_mesh(devices), direct
    spread, key = put(mesh, WHOLE, random_state(model)), jax.random.key(3)
    label = {"label": given["label"]}
    chunks = list(inference.mapped(model, "sample", mesh, key, spread, NUM, label, 0.9))
    # No device holds more than two images at a time.
    assert max(len(chunk) for chunk in chunks) == 2 * devices
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    assert len(np.unique(whole, axis=0)) > NUM / 2
    chunks = list(inference.mapped(model, "complete", mesh, key, spread, NUM, given, 0.9))
    assert max(len(chunk) for chunk in chunks) == 2 * devices
    np.testing.assert_array_equal(np.concatenate(chunks), filled)
