"""run.json holds a configuration, and gives back the same one."""

import json

import pytest

from jaxgen.data.config import DataConfig
from jaxgen.errors import UserError
from jaxgen.registry import MODELS, preset
from jaxgen.runs.config import Run
from jaxgen.runs.record import from_dict, run_of, to_dict
from jaxgen.spec import DataSpec

POINTS = DataSpec(1, 1, 2, levels=0, ranges=((-1.5, 2.0), (0.0, 4.0)))
PAIRS = DataSpec(8, 8, 3, 256, source=DataSpec(8, 8, 1, 17, source=None))


@pytest.mark.parametrize("spec", [DataSpec(4, 4), POINTS, PAIRS])
def test_specs_come_back(spec):
    """Tuples in tuples are tuples again, and what may be absent is, or is of its own type."""
    back = from_dict(DataSpec, json.loads(json.dumps(to_dict(spec))))
    assert back == spec and hash(back) == hash(spec)


@pytest.mark.parametrize("name", MODELS)
def test_runs_come_back(name):
    chosen = preset(name)
    run = Run(name, chosen.tiny, DataConfig(data_dir=None), chosen.train)
    record = {"model_name": name, "model": to_dict(run.model), "data": to_dict(run.data),
              "train": to_dict(run.train)}  # fmt: skip
    assert run_of(json.loads(json.dumps(record)), lambda n: type(preset(n).model)) == run
    del record["train"]
    with pytest.raises(UserError, match="incomplete"):
        run_of(record, lambda n: type(preset(n).model))


def test_a_field_of_another_version_is_named():
    values = to_dict(DataSpec(4, 4))
    with pytest.raises(UserError, match="depth"):
        from_dict(DataSpec, {**values, "depth": 3})
