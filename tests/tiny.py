"""Tiny models and data that many tests share."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import load
from jaxgen.data.splits import Split
from jaxgen.optim.optimizer import Optimizer
from jaxgen.registry import MODELS
from jaxgen.spec import DataSpec

SPEC = DataSpec(4, 4, 1, 5, 3)
BATCH = 8


data_of = functools.cache(load)
"""(config) -> the data set, loaded once for all tests, which leave it as it is."""


def some(values, quick):
    """Parameters of a test, of which those that are not `quick` are slow tests."""
    return [pytest.param(v, marks=() if v in quick else pytest.mark.slow) for v in values]


def with_sgd(model, rate=0.02):
    """The model with SGD of momentum in place of each of its optimizers: Adam divides by gradients
    that may be rounding alone."""
    fields = [f.name for f in dataclasses.fields(model)]
    own = {
        n: Optimizer("sgd", rate, b1=0.9) for n in fields if type(getattr(model, n)) is Optimizer
    }
    return dataclasses.replace(model, **own)


# These have large gradients where their parameters are random.
RATES = {
    "pixelcnnpp": 0.0005, "iaf": 0.002, "ladder": 0.0005, "pixelvae2": 0.0005, "vqvae": 0.005,
}  # fmt: skip
TINY = {name: with_sgd(preset.tiny, RATES.get(name, 0.02)) for name, preset in MODELS.items()}
"""The tiny model of every preset, trained by SGD."""


def dataset_of(spec=SPEC, num=40):
    """A data set of random data and labels, the same in each split."""
    rng = np.random.default_rng(0)
    if spec.levels:
        x = rng.integers(spec.levels, size=(num, *spec.shape)).astype(np.uint8)
    else:
        x = rng.uniform(-1, 1, (num, *spec.shape)).astype(np.float32)
    label = rng.integers(spec.num_classes or 3, size=num).astype(np.int32)
    more = {}
    if spec.source is not None:
        size = (num, *spec.source.shape)
        more["source"] = rng.integers(spec.source.levels, size=size).astype(np.uint8)
    splits = dict.fromkeys(("train", "validation", "test"), Split.of(x, label, **more))
    return Dataset("random", spec, splits, tuple("abc"), "", "random data")


def batch_of(num, spec=SPEC):
    """The first examples of that data set."""
    columns = dataset_of(spec, max(num, 40)).splits["train"].columns
    first = {name: x[:num] for name, x in columns.items()}
    # jnp.asarray would compile a program for every new shape.
    return jax.device_put({**first, "index": np.arange(num, dtype=np.int32)})


def close(a, b, atol=1e-5):
    """To rounding: an entry that is a difference of large ones carries their last bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)

    def check(a, b):
        largest = float(np.abs(np.asarray(b, np.float64)).max())
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol + 2.0**-23 * largest)

    jax.tree.map(check, a, b)
