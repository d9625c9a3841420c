"""The smallest images there are: every network, with its usual kernels, on a few pixels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import ONE_ROW, SMALL
from tiny import some

from jaxgen.causal.samplers import draw_from
from jaxgen.models.autoregressive.chain import SAMPLERS
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.spec import DataSpec

SIZES = [(1, 1), (1, 3), (3, 1), (2, 2), (5, 2)]
WIDTHS = {"features": 4, "blocks": 1, "head": 4, "attention": 4, "skips": 4, "hidden": (9,)}
"""Only these are small: kernels, dilations and resolutions are those of the presets."""


@pytest.mark.parametrize("size", some(SIZES, [(1, 3)]), ids=str)
@pytest.mark.parametrize("name", some(SMALL, ["pixelcnn", "gated"]))  # those have kernels
def test_density_sums_to_one_and_samplers_agree(name, size, random_state):
    size = (1, size[0] * size[1]) if name in ONE_ROW else size
    cls, spec = SMALL[name][0], DataSpec(*size, 1, 2)
    fields = {name: value for name, value in WIDTHS.items() if hasattr(cls, name)}
    model = cls(spec, dropout=0.0, **fields)
    kinds = [n for n in SAMPLERS if n != "wavefront" or cls is PixelCNN]
    every = np.array(list(itertools.product(range(2), repeat=spec.dims)), np.uint8)
    every = every.reshape(-1, *spec.shape)

    @jax.jit
    def run(state):
        chain, known = model.chain(state.ema), jnp.zeros((4, *spec.shape), bool)
        draw = draw_from(chain.likelihood, jax.random.split(jax.random.key(0), 4), 3.0)
        drawn = [chain.fill(draw, known.astype(jnp.uint8), known, sampler=kind) for kind in kinds]
        return chain.log_prob(every).sum((1, 2, 3)), drawn

    log_p, (first, *others) = run(random_state(model))
    assert abs(np.exp(np.asarray(log_p, np.float64)).sum() - 1) < 1e-5
    for other in others:
        np.testing.assert_array_equal(other, first)
