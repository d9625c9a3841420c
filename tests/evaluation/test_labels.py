"""What samples of each class are worth, by classifiers of real data and of samples."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.evaluation.encoding import from_json, to_json
from jaxgen.evaluation.labels import Labels, labels


@pytest.fixture(scope="module")
def data():
    return load(DataConfig(conditional=True))


def in_turn(data, split, num=500):
    """Real images, of every class in turn."""
    part = data.splits[split]
    by_class = [np.flatnonzero(part.label == i) for i in range(10)]
    return part.x[[by_class[i % 10][i // 10 % len(by_class[i % 10])] for i in range(num)]]


@pytest.fixture(scope="module")
def measured(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")

    def measured(samples, split="test", dataset=data):
        run = SimpleNamespace(train=SimpleNamespace(samples=len(samples)))
        part = dataset.materialize(split)
        return labels(
            SimpleNamespace(
                dataset=dataset, samples=samples, run=run, data=part, split=split,
                directory=directory,
            )
        )  # fmt: skip

    return measured


def test_real_images_are_what_they_claim_to_be(data, measured):
    found = measured(in_turn(data, "train"))
    assert found.samples == 500
    assert found.model.test > 0.99 and abs(found.model.train - found.real.train) < 0.03
    assert 0.9 < found.real.test < 0.97 and 0.88 < found.real.train < 0.97
    assert from_json(Labels, to_json(found)) == found


def test_images_of_the_next_class_are_not(data, measured):
    found = measured(np.roll(in_turn(data, "train"), 1, axis=0))
    assert found.model.test < 0.02 and found.model.train < 0.05


def test_one_image_a_class_teaches_little(data, measured):
    found = measured(np.resize(in_turn(data, "train", 10), (500, 8, 8, 1)))
    assert found.model.test > 0.99 and found.model.train < 0.8


def test_two_samples_a_class_are_too_few_to_learn_from(data, measured):
    found = measured(in_turn(data, "train", 20))
    assert found.model.test > 0.9 and found.model.train is None


def test_as_many_samples_as_there_are_real_ones_are_learnt_from_and_finite_ones_alone(
    data, measured
):
    """Floats, of which the first are not finite and those beyond the size of the train split are
    of another class than they say."""
    good, bad = in_turn(data, "train", 1003), np.roll(in_turn(data, "train", 900), 3, axis=0)
    samples = np.concatenate([good, bad]).astype(np.float32) / 8 - 1
    samples[:3] = np.nan
    found = measured(samples)
    assert found.samples == 1000 and found.model.train > 0.85
    assert abs(found.model.test - 1000 / 1900) < 0.02


def test_not_of_a_model_that_is_told_no_label(data, measured):
    assert measured(in_turn(data, "train"), dataset=load(DataConfig())) is None
    assert measured(in_turn(data, "train"), split="train") is None
