"""PSNR and SSIM of translations against their formulas, and beside what needs no model."""

import json
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from tiny import some
from toys import Translator

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.evaluation.encoding import finite, from_json, to_json
from jaxgen.evaluation.sections import About, shown
from jaxgen.evaluation.subject import Subject
from jaxgen.evaluation.translation import Translations, nearness, translations
from jaxgen.parallel.mesh import make_mesh
from jaxgen.runs.config import Run
from jaxgen.spec import DataSpec

SPEC = DataSpec(8, 8, 1, 17)
ABOUT = About("toy", 1, 1, "l1", 0, "digits", "made up", "0f", "test", 447, "image")


@dataclass(frozen=True)
class Identity(Translator):
    """Gives back what it is given."""

    ways: ClassVar = ("forth", "back")

    def translate(self, key, state, source, label=None, way="forth", start=0):
        return source


def measured(tmp_path, model=Identity, split="test", **data):
    dataset = load(DataConfig(**data))
    run = Run("toy", model(dataset.spec), DataConfig(), SimpleNamespace(seed=0, draws=1))
    return translations(Subject.of(run, dataset, make_mesh(1), {}, 1, tmp_path, split)), dataset


def images(spec, num=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(spec.levels, size=(num, *spec.shape)).astype(np.uint8)


def ssim(x, y, window, span):
    """Wang et al. 2004, equation 13, with the variances of a sample, over all whole windows."""
    found, (height, width, channels) = [], x.shape
    for c in range(channels):
        for i in range(height - window + 1):
            for j in range(width - window + 1):
                a, b = (
                    z[i : i + window, j : j + window, c].astype(np.float64).ravel() for z in (x, y)
                )
                cov = np.cov(a, b)
                c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
                top = (2 * a.mean() * b.mean() + c1) * (2 * cov[0, 1] + c2)
                bottom = (a.mean() ** 2 + b.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2)
                found.append(top / bottom)
    return np.mean(found)


@pytest.mark.parametrize(("spec", "window"), [
    (SPEC, 7), (DataSpec(6, 9, 3, 256), 5), (DataSpec(4, 4, 1, 5), 3),
])  # fmt: skip
def test_scores_are_their_formulas(spec, window):
    truth, made = images(spec), images(spec, seed=1)
    made[0] = truth[0]  # without error: its own ratio would be infinite
    found, span = nearness(truth, made, spec), spec.levels - 1
    difference = made.astype(float) - truth
    assert found.psnr == pytest.approx(10 * math.log10(span**2 / (difference**2).mean()))
    assert found.difference == pytest.approx(100 * np.abs(difference).mean() / span)
    each = [ssim(a, b, window, span) for a, b in zip(truth, made, strict=True)]
    assert each[0] == pytest.approx(1.0) and found.ssim == pytest.approx(np.mean(each), rel=1e-6)
    assert found.ssim_se == pytest.approx(np.std(each, ddof=1) / 3**0.5, rel=1e-6)


def test_real_numbers_have_a_range_of_two_and_specks_no_windows():
    real = DataSpec(2, 8, 1, 0)
    zero = np.zeros((2, 2, 8, 1), np.float32)
    found = nearness(zero, zero + 0.5, real)
    assert found.psnr == pytest.approx(10 * math.log10(4 / 0.25)) and found.ssim is None
    assert found.difference == pytest.approx(25.0)
    perfect = nearness(zero, zero, real)
    assert perfect.psnr is None and list(map(shown, perfect.cells())) == ["no error", "-", "0"]


@pytest.mark.parametrize("pairing", some(["invert", "rotate", "inpaint"], ["invert", "inpaint"]))
def test_an_identity_has_the_score_of_copying(tmp_path, pairing):
    found, dataset = measured(tmp_path, pairing=pairing, unpaired=pairing == "invert")
    assert found.exact == (pairing != "inpaint") and found.window == 7
    test = dataset.materialize("test")
    for way in ("forth", "back"):
        assert list(found.others[way]) == ["copying the source", "the mean train image"]
        assert found.model[way] == found.others[way]["copying the source"]
        assert found.model[way] == nearness(test.x, test.columns["source"], dataset.spec)
    # The mean of the half of the train split that x is of, in training apart.
    mean = np.round(dataset.splits["train"].x.mean(0, dtype=np.float64))
    rows = nearness(test.x, np.broadcast_to(mean, test.x.shape), dataset.spec)
    assert found.others["forth"]["the mean train image"] == rows
    known = dataset.materialize("train")
    sources = {**known.columns, **known.apart}["source"]
    mean = np.round(sources.mean(0, dtype=np.float64))
    rows = nearness(test.columns["source"], np.broadcast_to(mean, test.x.shape), dataset.spec)
    assert found.others["back"]["the mean train image"] == rows
    assert from_json(Translations, json.loads(json.dumps(to_json(finite(found))))) == finite(found)
    forth, back = found.tables(ABOUT)
    assert forth.rows[0][0] == "toy" and forth.ranked and "x from its source" in forth.title
    assert ("several answers" in back.note) == (pairing == "inpaint")
    best = max(x.psnr for x in found.others["forth"].values())
    assert f"{best:.2f}" in found.headlines(ABOUT)[0].label
    assert found.numbers()["back_psnr"].value == found.model["back"].psnr


@dataclass(frozen=True)
class Black(Translator):
    """Level 0 everywhere."""

    ways: ClassVar = ("forth",)

    def translate(self, key, state, source, label=None, way="forth", start=0):
        return np.zeros((len(source), *self.spec.shape), np.uint8)


def test_small_sources_are_enlarged(tmp_path):
    found, dataset = measured(tmp_path, Black, pairing="super2")
    rows = found.others["forth"]
    assert list(rows) == [
        "copying the source, nearest", "copying the source, bicubic", "the mean train image",
    ]  # fmt: skip
    test = dataset.materialize("test")
    nearest = test.columns["source"].repeat(2, 1).repeat(2, 2)
    assert rows["copying the source, nearest"] == nearness(test.x, nearest, dataset.spec)
    # Pillow has the same cubic, with a = -1/2, in floats, and cuts it off at the border likewise.
    large = [
        np.asarray(Image.fromarray(x[..., 0].astype(np.float32)).resize((8, 8), Image.BICUBIC))
        for x in test.columns["source"]
    ]
    cubic = np.clip(np.round(np.stack(large)[..., None]), 0, 16)
    expected = nearness(test.x, cubic, dataset.spec)
    assert rows["copying the source, bicubic"].psnr == pytest.approx(expected.psnr, abs=0.01)
    assert rows["copying the source, bicubic"].psnr > rows["copying the source, nearest"].psnr


def test_colours_are_copied_as_greys(tmp_path):
    found, dataset = measured(tmp_path, Black, pairing="tint")
    test = dataset.materialize("test")
    weights = np.array([0.299, 0.587, 0.114])
    luma = np.round((test.columns["source"] * weights).sum(-1, keepdims=True))
    rows = found.others["forth"]
    expected = nearness(test.x, luma, dataset.spec)
    assert rows["copying the source"].psnr == pytest.approx(expected.psnr, abs=0.05)


def test_no_truth_no_score(tmp_path):
    found, dataset = measured(tmp_path, pairing="invert", unpaired=True, split="train")
    assert found is None
    assert measured(tmp_path)[0] is None
    plain = replace(dataset.spec, source=None)
    assert translations(SimpleNamespace(model=Identity(plain), data=dataset.splits["test"])) is None


def test_a_measure_knows_the_model_only_by_its_ability(tmp_path):
    plain = SimpleNamespace(spec=replace(SPEC, source=SPEC))
    assert translations(SimpleNamespace(model=plain, data=None)) is None
