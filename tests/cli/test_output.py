"""What commands write, and under which names: arrays, sounds, classes; and where they cannot."""

import dataclasses
import wave
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.abilities import Completes
from jaxgen.cli.command import label_of
from jaxgen.cli.complete import Complete
from jaxgen.cli.output import grid_path, images_path, listed, write_grid, write_images
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.media.points import in_units
from jaxgen.media.sound import load_sound, mu_law_decode, save_wav
from jaxgen.model import Model
from jaxgen.spec import DataSpec

GREY = DataSpec(8, 6, 1, 17, num_classes=3)
SOUND = DataSpec(1, 40, 1, 256, rate=8000)


def saved(spec, *names, model=None):
    """A run whose classes have these names."""
    return SimpleNamespace(
        model=model or SimpleNamespace(spec=spec),
        run=SimpleNamespace(name="toy", data=DataConfig()),
        state={},
        step=3,
        record={"dataset": {"class_names": list(names)}},
    )


def drawn(spec, num):
    return np.random.default_rng(0).integers(spec.levels, size=(num, *spec.shape), dtype=np.uint8)


def clips(path) -> np.ndarray:
    """The waves of a .wav file of `SOUND`s, one after another: [n t]."""
    with wave.open(str(path)) as opened:
        played = np.frombuffer(opened.readframes(opened.getnframes()), "<i2")
    return np.pad(played, (0, 800)).reshape(-1, 840)[:, :40]


def played(x) -> np.ndarray:
    return np.round(mu_law_decode(x.reshape(-1, 40)) * 32767)


def test_an_npz_has_the_bytes_that_tools_expect_beside_the_levels(tmp_path, capsys):
    x, label = drawn(GREY, 30), np.arange(30) % 3
    write_images(tmp_path / "x.npz", x, label, saved(GREY, "cat", "dog", "emu"))
    told = capsys.readouterr().out
    assert "30 images written to" in told and "; classes 0 = cat, 1 = dog, 2 = emu\n" in told
    with np.load(tmp_path / "x.npz") as file:
        held = dict(file)
    assert set(held) == {"arr_0", "x", "levels", "label", "class_names"}
    # As Inception takes it: uint8, three channels, the whole range.
    assert held["arr_0"].dtype == np.uint8 and held["arr_0"].shape == (30, 8, 6, 3)
    np.testing.assert_array_equal(
        held["arr_0"], np.round(x / 16 * 255).astype(np.uint8).repeat(3, -1)
    )
    assert (held["arr_0"].min(), held["arr_0"].max(), int(held["levels"])) == (0, 255, 17)
    np.testing.assert_array_equal(held["x"], x)
    np.testing.assert_array_equal(held["label"], label)
    # And it is a data set.
    config = DataConfig(dataset="arrays", data_dir=str(tmp_path / "x.npz"), conditional=True)
    data = load(config)
    assert data.spec == GREY and data.class_names == ("cat", "dog", "emu")
    assert sum(len(split) for split in data.splits.values()) == 30


def test_colours_and_real_numbers_have_bytes_too(tmp_path):
    colour, real = DataSpec(3, 4, 3, 256), DataSpec(2, 2, 1, 0)
    x = drawn(colour, 5)
    write_images(tmp_path / "x.npz", x, None, saved(colour))
    with np.load(tmp_path / "x.npz") as file:
        np.testing.assert_array_equal(file["arr_0"], x)
        assert set(file) == {"arr_0", "x", "levels"}
    x = np.float32([-1.0, 1.0, 0.2, 3.0]).reshape(1, 2, 2, 1)
    write_images(tmp_path / "r.npz", x, None, saved(real))
    with np.load(tmp_path / "r.npz") as file:
        np.testing.assert_array_equal(file["arr_0"][0, ..., 2].ravel(), [0, 255, 153, 255])
        assert set(file) == {"arr_0", "x"} and file["x"].dtype == np.float32


def test_sounds_and_points_are_called_what_they_are(tmp_path, capsys):
    x = drawn(SOUND, 3)
    write_images(tmp_path / "x.npz", x, None, saved(SOUND))
    assert "3 clips written to" in capsys.readouterr().out
    with np.load(tmp_path / "x.npz") as file:
        assert {n: int(file[n]) for n in ("levels", "rate")} == {"levels": 256, "rate": 8000}
        np.testing.assert_array_equal(file["x"], x)
        assert "arr_0" not in file
    plane = DataSpec(1, 1, 2, 0, ranges=((-4.0, 4.0), (0.0, 1.0)))
    x = np.float32(np.random.default_rng(0).uniform(-1, 1, (20, 1, 1, 2)))
    write_images(tmp_path / "p.npz", x, None, saved(plane))
    assert "20 points written to" in capsys.readouterr().out
    with np.load(tmp_path / "p.npz") as file:
        np.testing.assert_array_equal(file["x"], in_units(x, plane))
    assert load(DataConfig(dataset="points", data_dir=str(tmp_path / "p.npz"))).spec.channels == 2


def test_an_array_without_a_name_is_x(tmp_path):
    """What `np.savez(path, x)` writes, and what other tools call samples."""
    x = drawn(DataSpec(4, 4, 3, 256), 12)
    np.savez(tmp_path / "x.npz", x)
    data = load(DataConfig(dataset="arrays", data_dir=str(tmp_path / "x.npz")))
    assert data.spec == DataSpec(4, 4, 3, 256)


def test_a_class_is_named_or_numbered():
    named = saved(GREY, "cat", "dog", "emu")
    assert [label_of(x, named) for x in ("dog", "1", "emu", "0")] == [1, 1, 2, 0]
    # Of names that are numbers the name is meant.
    assert [label_of(x, saved(GREY, "1", "2", "5")) for x in ("1", "5", "0")] == [0, 2, 0]
    for wrong in ("3", "-1", "cow", "1.0", ""):
        with pytest.raises(UserError, match="classes are 0 = cat, 1 = dog, 2 = emu"):
            label_of(wrong, named)
    with pytest.raises(UserError, match=r"classes are 0\.\.2"):
        label_of("3", saved(GREY, *"012"))
    with pytest.raises(UserError, match="none: the run is not --conditional"):
        label_of("1", saved(SOUND, "a", "b"))
    many = listed([f"n{i}" for i in range(1000)])
    assert many.startswith("0 = n0, 1 = n1, ") and many.endswith(", 29 = n29, … 999")


@dataclasses.dataclass(frozen=True)
class Fill(Model, Completes):
    """Fills in the number of the example."""

    monitor = "none"

    def init(self, key, batch):
        return {}

    def train_step(self, key, state, batch, step, axis_name=None):
        return state, {}

    def eval_step(self, key, state, batch):
        return {}

    def complete(self, key, state, x, known, request=None):
        numbers = (request.start + jnp.arange(len(x))).astype(x.dtype)
        return jnp.where(known, x, numbers[:, None, None, None])


def test_completed_sounds_are_heard(tmp_path, capsys):
    x = drawn(SOUND, 2)
    paths = [str(tmp_path / f"{i}.wav") for i in range(2)]
    for path, sound in zip(paths, x, strict=True):
        save_wav(path, sound[None], SOUND)
    given = np.stack([load_sound(Path(path), SOUND) for path in paths])
    command = {"run": "", "images": tuple(paths), "mask": "right", "num": 3}
    complete = Complete(**command, out=str(tmp_path / "out" / "c.wav"))
    complete.act(saved(SOUND, model=Fill(SOUND)))
    rows = np.stack([given] * 5, 1)
    rows[:, 1, ..., 20:, :] = 128  # what is missing is silent, and not the lowest level
    rows[:, 2:, ..., 20:, :] = np.arange(6).reshape(2, 3, 1, 1, 1)
    np.testing.assert_array_equal(clips(tmp_path / "out" / "c.wav"), played(rows))
    assert abs(clips(tmp_path / "out" / "c.wav")[1, 20:]).max() < 50
    # Their picture, as before; and no other ending, told before anything is done.
    Complete(**command, out=str(tmp_path / "c.png")).act(saved(SOUND, model=Fill(SOUND)))
    with pytest.raises(UserError, match=r"ends in \.png or \.wav"):
        Complete(**command, out="c.npz").act(saved(SOUND, model=Fill(SOUND)))
    with pytest.raises(UserError, match=r"ends in \.png$"):
        Complete(run="", out="c.wav").act(saved(GREY, model=Fill(GREY)))


def test_floats_of_sounds_are_heard(tmp_path):
    """Decoded means of two rows."""
    x = np.zeros((2, 3, *SOUND.shape), np.float32)
    write_grid(tmp_path / "x.wav", x, saved(SOUND))
    assert clips(tmp_path / "x.wav").shape == (6, 40)


def test_where_nothing_can_be_written_is_told_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("full/inner").mkdir(parents=True)
    Path("folder.png").mkdir()
    Path("file").write_text("")
    for out, told in {
        "full": "/full is not empty; choose a new name",
        "file": "/file is a file",
        "folder.png": "/folder.png is a folder",
        "file/x.png": "/file/x.png cannot be written",
        "/dev/null/x": "--out=/dev/null/x cannot be written",
        "x.jpg": r"ends in \.png or \.npz, or a folder",
    }.items():
        with pytest.raises(UserError, match=told):
            images_path(out, GREY)
    assert images_path("new/x.npz", GREY) == Path.cwd() / "new/x.npz" and not Path("new").exists()
    assert images_path("full/inner", GREY) == Path.cwd() / "full/inner"
    with pytest.raises(UserError, match=r"ends in \.png$"):
        grid_path("x", GREY)
    write_images(Path("new/deep"), drawn(GREY, 2), None, saved(GREY, *"012"))
    assert sorted(p.name for p in Path("new/deep").iterdir()) == ["000000.png", "000001.png"]
