"""Modes that samples reach, on clusters whose every point is known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from jaxgen.data.splits import Split
from jaxgen.evaluation.encoding import from_json, to_json
from jaxgen.evaluation.modes import Modes, modes
from jaxgen.evaluation.sections import About
from jaxgen.spec import DataSpec

SPEC = DataSpec(1, 1, 2, levels=0, ranges=((-4.0, 4.0), (-4.0, 4.0)))
CENTRES = np.array([[-2.0, -2], [-2, 2], [2, -2], [2, 2]])
ABOUT = About("toy", 1, 1, "nll", 0, "four", "made up", "0f", "test", 4000, "point")


def clusters(counts, seed=0, deviation=0.1):
    """So many points about each centre, and some between all of them."""
    rng = np.random.default_rng(seed)
    centres = np.concatenate([CENTRES.repeat(counts[:4], 0), np.zeros((sum(counts[4:]), 2))])
    points = centres + rng.normal(0, deviation, centres.shape)
    return (points / 4).astype(np.float32)[:, None, None]


def measured(samples):
    dataset = SimpleNamespace(
        modes=CENTRES, spec=SPEC, materialize=lambda split: Split.of(clusters([1000] * 4, seed=1))
    )
    run = SimpleNamespace(train=SimpleNamespace(samples=1000))
    return modes(
        SimpleNamespace(
            dataset=dataset, samples=samples, run=run, data=Split.of(clusters([1000] * 4, seed=2))
        )
    )


def test_all_modes_are_reached():
    found = measured(clusters([250] * 4))
    assert (found.modes, found.samples, found.model.reached) == (4, 1000, 4)
    assert found.model.near > 0.99 and found.model.histogram_kl < 1e-4
    # The train split is in the order of its clusters, and is drawn from, not begun with.
    assert found.floor.reached == 4 and found.floor.histogram_kl < 0.01
    # 99.9 % of a normal in the plane lie within 3.72 deviations.
    assert found.radius == pytest.approx(0.372, abs=0.03)


def test_lost_modes_and_stray_samples_are_told():
    # One mode is lost, one has a tenth of its share, and a fifth lies between all of them.
    found = measured(clusters([400, 375, 25, 0, 200]))
    assert found.model.reached == 2 and found.model.near == pytest.approx(0.8, abs=0.01)
    shares = np.array([400, 375, 25]) / 800
    expected = (shares * np.log(shares / 0.25)).sum()
    assert found.model.histogram_kl == pytest.approx(expected, rel=0.02)
    far = measured(clusters([0, 0, 0, 0, 50])).model
    assert (far.reached, far.near, far.histogram_kl) == (0, 0.0, None)


def test_samples_that_are_not_finite_are_left_out_and_who_knows_no_modes_says_nothing():
    samples = clusters([250] * 4)
    samples[::2] = np.nan
    assert measured(samples).samples == 500
    assert measured(None) is None and measured(samples[::2]) is None


def test_a_table_and_json():
    found = measured(clusters([250] * 4))
    assert from_json(Modes, json.loads(json.dumps(to_json(found)))) == found
    [table] = found.tables(ABOUT)
    assert table.rows[0][:2] == ("modes reached", 4)
    assert table.title == "1000 samples about the 4 modes of the true density"
    assert found.headlines(ABOUT)[0].value == "4 of 4"
    assert set(found.numbers()) == {"reached", "near", "histogram_kl"}
