"""The embedded digits, and what is done to any images."""

import numpy as np
import pytest
from stored import SPLITS, all_images

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError

DIGITS_FINGERPRINT = "fad861703c2713a49a1b341cfb1a7c4fdd95d3015f4fb18e7a0e0972d1a3b55c"


def test_digits_are_scikit_learns_in_stored_order():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = load(DataConfig(conditional=True))
    assert [len(data.splits[name].x) for name in SPLITS] == [1000, 350, 447]
    np.testing.assert_array_equal(all_images(data)[..., 0], bunch.images)
    labels = np.concatenate([data.splits[name].label for name in SPLITS])
    np.testing.assert_array_equal(labels, bunch.target)
    assert data.spec.shape == (8, 8, 1) and data.spec.levels == 17 and data.spec.num_classes == 10
    assert data.fingerprint == DIGITS_FINGERPRINT
    assert load(DataConfig()).spec.num_classes == 0


@pytest.mark.parametrize("levels", [2, 3, 5, 16, 17])
def test_levels_are_floors(levels):
    stored, data = load(DataConfig()), load(DataConfig(levels=levels))
    exact = np.vectorize(lambda x: int(x) * levels // 17)(all_images(stored))
    np.testing.assert_array_equal(all_images(data), exact)
    assert data.spec.levels == levels
    assert (data.fingerprint == stored.fingerprint) == (levels == 17)


def test_resized_digits_stay_within_their_levels():
    data = load(DataConfig(size=13))
    assert data.spec.shape == (13, 13, 1) and data.spec.levels == 17
    assert all_images(data).max() == 16


@pytest.mark.parametrize(
    "fields, flag",
    [
        ({"size": -1}, "--size"),
        ({"levels": 1}, "--levels"),
        ({"levels": 257}, "--levels"),
        ({"levels": 18}, "--levels=18"),
        ({"levels": 2, "binarize": "static"}, "--binarize=static"),
        ({"binarize": "often"}, "binarize"),
        ({"binarize_seed": -1}, "--binarize_seed"),
        ({"fit": "stretch"}, "fit"),
        ({"fit": "crop"}, "--size"),
        ({"dataset": "folder"}, "--data_dir"),
    ],
)
def test_config_errors(fields, flag):
    # Where types are checked at run time, that check comes first.
    with pytest.raises((UserError, TypeError), match=flag):
        load(DataConfig(**fields))
