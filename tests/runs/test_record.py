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
    record = {
        "model_name": name,
        "model": to_dict(run.model),
        "data": to_dict(run.data),
        "train": to_dict(run.train),
        "dataset": dict.fromkeys(("fingerprint", "protocol"), ""),
    }
    assert run_of(json.loads(json.dumps(record)), lambda n: type(preset(n).model)) == run
    for dataset in ({}, [], {"fingerprint": 7}):
        with pytest.raises(UserError, match="run.json"):
            run_of({**record, "dataset": dataset}, lambda n: type(preset(n).model))
    del record["train"]
    with pytest.raises(UserError, match="incomplete"):
        run_of(record, lambda n: type(preset(n).model))


@pytest.mark.parametrize(
    ("name", "field", "value", "wanted"),
    [
        ("pixelcnn", "sampler", "x", "one of "),
        ("pixelcnn", "sampler", ["cached"], "one of "),
        ("vae", "precision", "x", "one of float32, bfloat16"),
        ("vae", "precision", None, "one of float32, bfloat16"),
        ("vae", "latents", "8", "a whole number"),
        ("vae", "latents", 8.5, "a whole number"),
        ("vae", "latents", True, "a whole number"),
        ("vae", "beta", "1", "a number"),
        ("vae", "hidden", 8, "a list"),
        ("vae", "hidden", [8, "x"], "a whole number"),
        ("vae", "optimizer", [], "an object"),
        ("vae", "spec", None, "an object"),
    ],
)
def test_a_value_of_another_kind_is_named(name, field, value, wanted):
    """In the model as in what it holds."""
    model = preset(name).tiny
    with pytest.raises(UserError, match=f"run.json: `{field}` is .* and must be {wanted}"):
        from_dict(type(model), {**json.loads(json.dumps(to_dict(model))), field: value})
    values = {**to_dict(model.optimizer), "name": "x"}
    with pytest.raises(UserError, match='run.json: `name` is "x", and must be one of adam, sgd'):
        from_dict(type(model.optimizer), values)


def test_a_whole_number_is_a_number():
    vae = preset("vae").tiny
    values = {**json.loads(json.dumps(to_dict(vae))), "beta": 1}
    assert from_dict(type(vae), values) == vae


def test_a_field_of_another_version_is_named():
    values = to_dict(DataSpec(4, 4))
    with pytest.raises(UserError, match="depth"):
        from_dict(DataSpec, {**values, "depth": 3})
