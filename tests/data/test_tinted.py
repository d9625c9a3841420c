"""Digits in colours."""

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.data.sources.tinted import LUMA, hues


def test_colours_differ_and_are_of_one_luma():
    colours = hues(10)
    assert colours.min() >= 0 and colours.max() <= 1
    np.testing.assert_allclose(colours @ LUMA, 0.5, atol=1e-12)
    apart = np.abs(colours[:, None] - colours[None]).max(-1) + np.eye(10)
    assert apart.min() > 0.1


def test_a_tinted_digit_is_the_digit_times_the_colour_of_its_class():
    plain, data = load(DataConfig()), load(DataConfig("tinted_digits"))
    assert data.spec.shape == (8, 8, 3) and data.spec.levels == 17
    assert [len(s.x) for s in data.splits.values()] == [len(s.x) for s in plain.splits.values()]
    colours = hues(10)
    for name, split in data.splits.items():
        digits = plain.splits[name]
        np.testing.assert_array_equal(split.label, digits.label)
        exact = digits.x.astype(float) * colours[digits.label][:, None, None]
        assert np.abs(split.x - exact).max() <= 0.5
    # A grey copy tells the shade, and not the class.
    grey = load(DataConfig("tinted_digits", grey=True)).splits["test"].x
    assert np.abs(grey - plain.splits["test"].x / 2).max() <= 1
