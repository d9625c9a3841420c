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
    "data_dir": "/PICTURES", "conditional": True, "size": 4, "rate": 8000, "fit": "crop",
    "grey": True, "levels": 2, "binarize": "static", "binarize_seed": 1,
    "pairing": "invert", "unpaired": True, "cache_dir": "/CACHE", "background": "black",
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
    also = {"fit": {"size": 4}, "binarize_seed": {"binarize": "static"}}.get(field, {})
    with pytest.raises(UserError) as error:
        load(DataConfig(dataset=name, **{**also, field: OTHER[field]}))
    text = str(error.value)
    assert f"--dataset={name}" in text and "name such a --dataset" in text
    # Of two that mean nothing, the first is told.
    told = [
        f"--{name}={value} means nothing" for name, value in {**also, field: OTHER[field]}.items()
    ]
    assert any(line in text for line in told)


def test_the_message_names_the_mend():
    with pytest.raises(UserError) as error:
        load(DataConfig(data_dir="/PICTURES"))
    assert str(error.value).startswith(
        "--data_dir=/PICTURES means nothing to --dataset=digits, but to folder, folders, wav, "
    )
    assert "or any of TFDS: name such a --dataset, or leave --data_dir out" in str(error.value)
    for name, mend in (("binarize", "--binarize=none"), ("unpaired", "--no_unpaired")):
        with pytest.raises(UserError, match=f"or give {mend}$"):  # a preset may have it
            load(DataConfig(dataset="moons", **{name: OTHER[name]}))
    with pytest.raises(UserError, match="means nothing to --dataset=mnist, but to tones or wav:"):
        load(DataConfig(dataset="mnist", rate=8000))


@pytest.mark.parametrize("name", [name for name, entry in SOURCES.items() if entry.needs])
def test_what_a_data_set_needs_is_told(name):
    with pytest.raises(UserError) as error:
        load(DataConfig(dataset=name))
    for field, what in SOURCES[name].needs.items():
        assert f"--{field}={what}" in str(error.value)
    assert f"--dataset={name} needs" in str(error.value)


def test_paths_are_found_from_anywhere(tmp_path, monkeypatch):
    """What a user writes is relative to where it is written, and is recorded as a whole."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = DataConfig("folder", "pics", cache_dir="~/c")
    assert (config.data_dir, config.cache_dir) == (f"{tmp_path}/pics", f"{tmp_path}/home/c")
    assert DataConfig("folders", "a, ~/b").data_dir == f"{tmp_path}/a,{tmp_path}/home/b"
    assert DataConfig("folder", "a,b").data_dir == f"{tmp_path}/a,b"
    assert DataConfig(**dataclasses.asdict(config)) == config
    for data_dir in ("", "x" * 300):
        with pytest.raises(UserError, match="^--data_dir=.* cannot be used as a path"):
            DataConfig("folder", data_dir)


@pytest.mark.parametrize("name", ["pics", "./pics", "../x/pics"])
def test_a_path_is_no_name_of_a_data_set(tmp_path, monkeypatch, name):
    (tmp_path / "x" / "pics").mkdir(parents=True)
    (tmp_path / "x" / "pics.npz").touch()
    monkeypatch.chdir(tmp_path / "x")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    told = f"--dataset={name} is a path: give --data_dir={name} and --dataset=folder, which is of"
    with pytest.raises(UserError, match=told):
        load(DataConfig(name))
    with pytest.raises(UserError, match=r"--data_dir=\./pics.npz and --dataset=arrays"):
        load(DataConfig("./pics.npz"))
    with pytest.raises(UserError, match="a path is for --data_dir, beside --dataset=folder"):
        load(DataConfig("./nowhere"))


def test_a_seed_of_draws_needs_draws():
    with pytest.raises(UserError, match="--binarize_seed=3 seeds draws, and --binarize=threshold"):
        DataConfig(binarize="threshold", binarize_seed=3)


@pytest.mark.parametrize("name", ["digits", "tones"])
def test_what_no_memory_holds_is_refused_at_once(name, monkeypatch):
    monkeypatch.setattr(loading, "_memory", lambda: 2.0**20)
    with pytest.raises(UserError, match=f"--size=2000: train_images of {name} take"):
        load(DataConfig(name, size=2000))
    with pytest.raises(UserError, match="lie in 1..16777216; got 4294967296"):
        DataConfig(name, size=2**32)
    with pytest.raises(UserError, match="lie in 1..1000000; got 4294967296"):
        DataConfig(name, rate=2**32)
