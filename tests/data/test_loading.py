"""The table of the data sets, and flags that a data set does not heed."""

import dataclasses
import inspect

import pytest

from jaxgen.data import loading
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import SOURCES, load
from jaxgen.errors import UserError

FIELDS = {field.name: field.default for field in dataclasses.fields(DataConfig)}
OTHER = {
    "data_dir": "PICTURES", "conditional": True, "size": 4, "rate": 8000, "fit": "crop",
    "grey": True, "levels": 2, "binarize": "static", "binarize_seed": 1,
    "pairing": "invert", "unpaired": True, "cache_dir": "CACHE",
}  # fmt: skip
"""A value of each field that is not its default."""


def test_the_table_is_of_fields():
    heeded = {name for entry in SOURCES.values() for name in entry.takes}
    assert heeded | {"cache_dir", "dataset"} == FIELDS.keys() == OTHER.keys() | {"dataset"}
    for entry in (*SOURCES.values(), loading._OTHERS):
        assert entry.needs.keys() <= set(entry.takes)
        assert len(set(entry.takes)) == len(entry.takes) and "cache_dir" not in entry.takes


def test_the_help_names_every_data_set():
    source = inspect.getsource(DataConfig)
    described = source.split('dataset: str = "digits"')[1].split('"""')[1]
    assert [name for name in SOURCES if name not in described] == []


@pytest.mark.parametrize("name", [*SOURCES, "mnist"])
@pytest.mark.parametrize("field", OTHER)
def test_a_flag_that_means_nothing_is_refused(name, field):
    entry = SOURCES.get(name, loading._OTHERS)
    if field in entry.takes or (field == "cache_dir" and entry.cached):
        return
    also = {"size": 4} if field == "fit" else {}
    with pytest.raises(UserError) as error:
        load(DataConfig(dataset=name, **{**also, field: OTHER[field]}))
    text = str(error.value)
    assert f"--dataset={name}" in text and "name such a --dataset" in text
    # Of two that mean nothing, the first is told.
    assert f"--{field}={OTHER[field]} means nothing" in text or "--size=4 means nothing" in text


def test_the_message_names_the_mend():
    with pytest.raises(UserError) as error:
        load(DataConfig(data_dir="PICTURES"))
    assert str(error.value).startswith(
        "--data_dir=PICTURES means nothing to --dataset=digits, but to folder, folders, wav, "
    )
    assert "or any of TFDS: name such a --dataset, or leave --data_dir out" in str(error.value)
    with pytest.raises(UserError, match="means nothing to --dataset=mnist, but to tones or wav:"):
        load(DataConfig(dataset="mnist", rate=8000))


@pytest.mark.parametrize("name", [name for name, entry in SOURCES.items() if entry.needs])
def test_what_a_data_set_needs_is_told(name):
    with pytest.raises(UserError) as error:
        load(DataConfig(dataset=name))
    for field, what in SOURCES[name].needs.items():
        assert f"--{field}={what}" in str(error.value)
    assert f"--dataset={name} needs" in str(error.value)
