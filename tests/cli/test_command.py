"""What commands take, without a run: their data, and flags that have no effect beside others."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxgen.cli.command import data_of, given_images
from jaxgen.cli.complete import Complete
from jaxgen.cli.compress import Compress
from jaxgen.cli.reconstruct import Reconstruct
from jaxgen.cli.sample import Sample
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.fields import mended
from jaxgen.spec import DataSpec


@pytest.mark.parametrize("kind", [Complete, Reconstruct, Compress])
@pytest.mark.parametrize("field, value", [("count", 3), ("split", "train"), ("data_dir", "x")])
def test_given_images_leave_no_effect_to_what_names_others(kind, field, value, tmp_path):
    if field not in kind.only:
        return
    command = kind(run=str(tmp_path), images=("a.png",), **{field: value})
    with pytest.raises(UserError) as error:
        command()
    mend = mended(field, getattr(kind(run="x"), field)).replace(f"`{field}`", f"--{field}")
    told = f"--{field}={value} has no effect beside --images: change that, or {mend}"
    assert str(error.value) == told


@pytest.mark.parametrize("field", ["num", "seed"])
def test_numbers_that_32_bits_do_not_hold_are_refused(field, tmp_path):
    with pytest.raises(UserError, match=f"^--{field}=2147483648 must be at most 2.31-1$"):
        Sample(run=str(tmp_path), **{field: 2**31})()


@pytest.fixture
def pics(tmp_path, monkeypatch):
    """A folder of pictures, given as a relative path, and a stand-in for a run on it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    for i, x in enumerate(np.random.default_rng(0).integers(0, 256, (12, 4, 4), np.uint8)):
        Image.fromarray(x).save(f"pics/{i}.png")
    config = DataConfig("folder", "pics", background="black")
    data = load(config)
    record = {"dataset": {"fingerprint": data.fingerprint, "protocol": data.protocol}}
    model = SimpleNamespace(spec=data.spec)
    return SimpleNamespace(run=SimpleNamespace(data=config), record=record, model=model), data


def test_a_relative_folder_is_found_from_elsewhere(pics, tmp_path, monkeypatch):
    saved, data = pics
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    batch = given_images("run", saved, (), 2, None)
    np.testing.assert_array_equal(jax.device_get(batch["x"]), data.splits["test"].x[:2])


def test_data_that_moved_or_changed(pics, tmp_path):
    saved, data = pics
    expected = np.array(data.splits["test"].x[:2])
    shutil.move("pics", "moved")
    with pytest.raises(UserError, match="pics is not a directory"):
        given_images("run", saved, (), 2, None)
    batch = given_images("run", saved, (), 2, "moved")
    np.testing.assert_array_equal(jax.device_get(batch["x"]), expected)
    (tmp_path / "moved" / "3.png").unlink()
    with pytest.raises(UserError) as error:
        data_of("run", saved, "moved")
    told = str(error.value)
    assert told.startswith("--run=run: the data have changed since it was trained, from\n")
    assert "train 8 (carved" not in told and "folder:moved: train 9" in told
    assert told.endswith("give the original with --data_dir")


def test_given_images_are_on_the_background_of_the_run(pics):
    saved, _ = pics
    saved.model.spec = DataSpec(4, 4, 1, 256)
    Image.fromarray(np.zeros((4, 4, 2), np.uint8) + np.array([99, 0], np.uint8)).save("ink.png")
    assert (given_images("run", saved, ("ink.png",), 2, None)["x"] == 0).all()
