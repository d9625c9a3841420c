"""Active units, over a whole split."""

from types import SimpleNamespace

import numpy as np
from linear import Linear

from jaxgen.data.splits import Split
from jaxgen.evaluation.active import Active, active
from jaxgen.evaluation.encoding import from_json, to_json
from jaxgen.evaluation.sections import About
from jaxgen.spec import DataSpec


def test_active_units_are_those_whose_codes_vary():
    rng, num = np.random.default_rng(0), 2000
    spread = np.array([0.0, 0.05, 0.5, 2.0, 0.2])  # variances 0, 0.0025, 0.25, 4, 0.04
    codes = (3.0 + spread * rng.normal(size=(num, 5))).astype(np.float32)
    model = Linear(DataSpec(2, 2, levels=5), latents=5)
    asked = []

    def able(what, count, given):
        asked.append((what, count, len(given["x"])))
        return codes

    data = Split({"x": np.zeros((num, 2, 2, 1), np.uint8)})
    found = active(SimpleNamespace(model=model, data=data, able=able))
    assert asked == [("encode", num, num)]  # all of them
    assert found == Active(5, 3, (3,), (5,))
    assert from_json(Active, to_json(found)) == found
    two = Active(5, 3, (1, 2), (2, 3))
    about = About("toy", 1, 4, "nll", 3, "random", "made up", "0f", "test", num, "image")
    [table] = two.tables(about)
    assert [row[0] for row in table.rows] == ["all", "layer 2", "layer 1"]
    assert [row[1:] for row in table.rows] == [(3.0, 5.0), (1.0, 2.0), (2.0, 3.0)]
