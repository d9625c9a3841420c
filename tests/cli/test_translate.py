"""The command `translate`, on data of the split and on files, both ways."""

import jax
import numpy as np
import pytest
from compiled import shared_by_commands
from PIL import Image
from untrained import untrained

from jaxgen.cli import main
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.media.pictures import grid
from jaxgen.registry import load_run


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    with shared_by_commands():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two domains of other colours."""
    jax.config.update("jax_debug_key_reuse", False)
    where = str(tmp_path_factory.mktemp("runs") / "cycle")
    sizes = ["--cyclegan.filters=2", "--cyclegan.d_filters=2"]
    untrained("--model=cyclegan", "--pairing=tint", *sizes, "--devices=1", f"--run={where}")
    yield where
    jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def picture(path):
    shown = np.asarray(Image.open(path))
    return shown if shown.ndim == 3 else shown[..., None]


def expected(run, way, given):
    saved = load_run(run)
    translate = jax.jit(lambda *of: saved.model.translate(*of, way=way))
    return np.asarray(translate(jax.random.key(0), saved.state, given))


@pytest.mark.parametrize("way", ["forth", "back"])
def test_files_and_folders_become_files_of_the_same_names(run, way, tmp_path, capfd):
    test = load(DataConfig(pairing="tint")).splits["test"]
    given = test.columns["source" if way == "forth" else "x"][:3]
    (tmp_path / "in").mkdir()
    names = ["in/10.png", "in/2.b.png", "one.png"]
    for name, x in zip(names, given, strict=True):
        shown = np.round(x * (255 / 16)).astype(np.uint8)
        Image.fromarray(shown if x.shape[-1] == 3 else shown[..., 0]).save(name)
    main.main(["translate", f"--run={run}", f"--way={way}", "--images", "one.png", "in",
               "--out=made/here"])  # fmt: skip
    made = expected(run, way, given)
    for name, x in zip(("10", "2.b", "one"), made, strict=True):
        want = np.round(x * (255 / 16)).astype(np.uint8)
        np.testing.assert_array_equal(picture(f"made/here/{name}.png"), want)
    assert sorted(p.name for p in (tmp_path / "made/here").iterdir()) == [
        "10.png", "2.b.png", "one.png",
    ]  # fmt: skip
    assert "3 images written to" in capfd.readouterr().out


def test_test_data_become_one_picture(run):
    main.main(["translate", f"--run={run}", "--count=4"])
    test = load(DataConfig(pairing="tint")).splits["test"]
    made = expected(run, "forth", test.columns["source"][:4])
    # Colours and greys are not shown in one picture.
    np.testing.assert_array_equal(picture("translations.png"), grid(made[None], 17))
    main.main(["translate", f"--run={run}", "--count=2", "--out=each"])
    np.testing.assert_array_equal(
        picture("each/000001.png"), np.round(made[1] * (255 / 16)).astype(np.uint8)
    )


def test_every_mistake_is_one_message(run, tmp_path, capfd):
    for name, size in (("a.png", (8, 8)), ("large.png", (9, 8)), ("down/a.png", (8, 8))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("no image")
    for flags, told in (
        (["--way=up"], "--way=up: cyclegan has forth and back"),
        (["--count=0"], "--count=0 must be at least 1"),
        (["--images", "a.png", "--count=3"], "--count=3 has no effect beside --images"),
        (["--images", "missing.png"], "there is no such file"),
        (["--images", "note.txt"], "is not a readable image"),
        (["--images", "empty"], "is a folder without images in it"),
        (["--images", "large.png"], "is 9x8 pixels, and the model's images are 8x8"),
        (["--images", "a.png", "down"], "two files called a"),
        (["--out=a.jpg"], "--out="),
        (["--out=down"], "is not empty"),
    ):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main.main(["translate", f"--run={run}", *flags])
        out, err = capfd.readouterr()
        assert (stopped.value.code, out) == (2, "") and told in err and "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.png", "down", "empty", "large.png", "note.txt",
    ]  # fmt: skip
