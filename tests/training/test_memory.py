"""A model that outgrows memory: a batch in parts takes less of it, and so do blocks that are
computed again; the step is the same."""

import dataclasses

import jax
import pytest
from tiny import TINY, batch_of, close

from jaxgen import DataSpec, PixelCNN
from jaxgen.errors import UserError

CASES = {
    "vae in parts": ("vae", {"accumulate": 4}),
    "in parts": ("pixelcnn", {"accumulate": 4}),
    "remat": ("pixelcnn", {"blocks": 3, "remat": True}),
    "both": ("pixelcnn", {"block": "plain", "blocks": 2, "remat": True, "accumulate": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_step_is_the_same(case, random_state):
    """Dropout and the VAE's noise included: they follow from an example's index."""
    name, fields = CASES[case]
    saving, batch = dataclasses.replace(TINY[name], **fields), batch_of(8)
    whole = dataclasses.replace(saving, accumulate=1)
    if name == "pixelcnn":
        whole = dataclasses.replace(whole, remat=False)
    assert saving.dropout > 0
    state = random_state(whole)
    results = [jax.jit(m.train_step)(jax.random.key(1), state, batch, 0) for m in (whole, saving)]
    close(results[1], results[0])


def test_parts_are_at_least_one():
    for name in ("pixelcnn", "vae"):
        with pytest.raises(UserError, match="`accumulate` must be at least 1"):
            dataclasses.replace(TINY[name], accumulate=0)


def _temporary_bytes(**fields):
    """What a step on 64 images of 28x28 needs beside its arguments and results, by XLA's count."""
    model = PixelCNN(DataSpec(28, 28, 1, 2), blocks=4, **fields)
    batch = model.spec.shapes(64)
    state = jax.eval_shape(model.init, jax.random.key(0), batch)
    compiled = jax.jit(model.train_step).lower(jax.random.key(0), state, batch, 0).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_falls():
    whole = _temporary_bytes()
    for fields, share in (({"accumulate": 8}, 0.2), ({"remat": True}, 0.5)):
        assert _temporary_bytes(**fields) < share * whole
