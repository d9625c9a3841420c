"""Large requests run in chunks of bounded size over all devices, and the images are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.model import Request
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.parallel import inference
from jaxgen.parallel.mesh import WHOLE, make_mesh, put
from jaxgen.spec import DataSpec

NUM = 11


@pytest.fixture(scope="module")
def model():
    sizes = {"features": 4, "blocks": 1, "head": 4, "first_kernel": 3, "dropout": 0.0}
    return PixelCNN(DataSpec(3, 4, 1, 3, num_classes=3), **sizes)


@pytest.mark.parametrize("devices", [1, 4])
def test_chunks_change_no_image(devices, model, random_state, monkeypatch):
    monkeypatch.setattr(inference, "CHUNK", 2)
    mesh, state = make_mesh(devices), random_state(model)
    spread, key = put(mesh, WHOLE, state), jax.random.key(3)
    rng = np.random.default_rng(0)
    label = rng.integers(3, size=NUM).astype(np.int32)
    whole = jax.jit(lambda label: model.sample(key, state, NUM, Request(label, 0.9)))(
        jnp.asarray(label)
    )
    chunks = list(inference.mapped(model, "sample", mesh, key, spread, NUM, {"label": label}, 0.9))
    # No device holds more than two images at a time.
    assert max(len(chunk) for chunk in chunks) == 2 * devices
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    assert len(np.unique(whole, axis=0)) > NUM / 2

    image = rng.integers(3, size=(NUM, *model.spec.shape)).astype(np.uint8)
    known = rng.random(image.shape) < 0.5
    given = {"x": image, "known": known, "label": label}
    fill = jax.jit(lambda label: model.complete(key, state, image, known, Request(label, 0.9)))
    chunks = list(inference.mapped(model, "complete", mesh, key, spread, NUM, given, 0.9))
    assert max(len(chunk) for chunk in chunks) == 2 * devices
    np.testing.assert_array_equal(np.concatenate(chunks), fill(jnp.asarray(label)))
