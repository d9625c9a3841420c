"""Stacked digits, and the combinations that samples of them reach."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.data.sources import stacked as source
from jaxgen.errors import UserError
from jaxgen.evaluation.encoding import from_json, to_json
from jaxgen.evaluation.stacked import Stacked, stacked


@pytest.fixture(scope="module")
def data():
    return load(DataConfig(dataset="stacked_digits"))


def measured(data, samples):
    run = SimpleNamespace(train=SimpleNamespace(samples=len(samples)))
    test = data.materialize("test")
    return stacked(SimpleNamespace(dataset=data, samples=samples, run=run, data=test))


def test_every_channel_is_a_digit_of_its_class(data):
    assert data.spec.shape == (8, 8, 3) and data.spec.levels == 17
    digits = load(DataConfig())
    for name, split in data.splits.items():
        assert len(split) == source.SIZES[name]
        known = {
            (x.tobytes(), int(label))
            for x, label in zip(digits.splits[name].x, digits.splits[name].label, strict=True)
        }
        for x, label in zip(split.x[:300], split.label[:300], strict=True):
            classes = label // 100, label // 10 % 10, label % 10
            for channel, of in enumerate(classes):
                assert (np.ascontiguousarray(x[..., channel]).tobytes(), int(of)) in known
    # Drawn by themselves: the channels of one image tell nothing of each other.
    first, second = data.splits["train"].label // 100, data.splits["train"].label // 10 % 10
    joint = np.bincount(10 * first + second, minlength=100).reshape(10, 10) / len(first)
    # 81 degrees of freedom: the G statistic's mean is 81, its deviation 13.
    g = 2 * len(first) * (joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))).sum()
    assert 81 - 5 * 13 < g < 81 + 5 * 13
    assert data.class_names[345] == "345"


def test_real_images_reach_what_chance_leaves_them(data):
    found = measured(data, data.splits["train"].x[5000:8000])
    # 3,000 draws of 1,000 combinations miss e^-3 of them, 50 with a deviation of 6.
    for spread in (found.model, found.floor):
        assert abs(spread.reached - 950) < 35
        # The mean of a histogram's KL: half its degrees of freedom over the draws.
        assert abs(spread.histogram_kl - 999 / 2 / 3000) < 0.03
    assert found.modes == 1000 and found.samples == 3000
    assert 0.85 < found.accuracy < 0.97, "of what it was not fitted on"
    assert from_json(Stacked, to_json(found)) == found


def test_a_collapse_is_counted(data):
    x = data.splits["train"].x
    grey = np.repeat(x[:3000, :, :, :1], 3, -1)  # all three channels alike: ten combinations
    found = measured(data, grey).model
    assert found.reached == 10
    assert abs(found.histogram_kl - np.log(100)) < 0.02
    one = measured(data, np.repeat(x[:1], 500, 0)).model
    assert one.reached == 1 and 6.5 < one.histogram_kl < 7.3  # log 1000 = 6.9


def test_only_where_channels_have_classes(data):
    assert measured(dataclasses.replace(data, channel_classes=0), data.splits["train"].x) is None


def test_flags_that_would_mix_channels_are_refused():
    with pytest.raises(UserError, match="--grey=True means nothing to --dataset=stacked_digits"):
        load(DataConfig(dataset="stacked_digits", grey=True))
