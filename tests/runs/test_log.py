"""Logs and pictures: strict rows, resumes without doubles, and exact pixels."""

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
from events import events, shown
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.media import kinds, pictures
from jaxgen.runs.log import Log, read_metrics
from jaxgen.spec import DataSpec


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_rows_are_strict_json(tmp_path):
    with Log(tmp_path, 10, stream=io.StringIO()) as log:
        log.write(1, "train", {"loss": jnp.float32(0.5), "bad": float("nan"), "n": np.int32(3)})
        log.write(2, "validation", {"nll": float("inf")})
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()  # on disk before close

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    assert [json.loads(line, parse_constant=refuse) for line in lines] == [
        {"step": 1, "split": "train", "loss": 0.5, "bad": None, "n": 3},
        {"step": 2, "split": "validation", "nll": None},
    ]


def test_resume_drops_later_rows_and_a_torn_line(tmp_path):
    with Log(tmp_path, 40, stream=io.StringIO()) as log:
        for step in (10, 20, 30):
            log.write(step, "train", {"loss": 1 / step})
    path = tmp_path / "metrics.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"step": 40, "sp')
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30]
    with Log(tmp_path, 40, start=20, stream=io.StringIO()) as log:
        assert [row["step"] for row in read_metrics(path)] == [10, 20]
        log.write(25, "train", {"loss": 0.0})
    assert [row["step"] for row in map(json.loads, path.read_text().splitlines())] == [10, 20, 25]

    purges = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert purges == [1, 21]
    scalars = [(e.step, v.tag) for e in events(tmp_path) for v in e.summary.value]
    assert scalars == [(step, "train/loss") for step in (10, 20, 30, 25)]
    assert [point[:2] for point in shown(tmp_path)] == [(s, "train/loss") for s in (10, 20, 25)]


def test_an_attempt_that_saved_nothing_leaves_nothing_to_see(tmp_path):
    """Not even where there was no step to resume from."""
    for loss in (0.5, 0.25):
        with Log(tmp_path, 40, stream=io.StringIO()) as log:
            log.write(10, "train", {"loss": loss})
    assert shown(tmp_path) == [(10, "train/loss", 0.25)]
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0.25]


@pytest.mark.parametrize("line", [
    b'{"step": "x", "split": "train", "loss": 1.0}',
    b'{"step": 20, "split": ["train"], "loss": 1.0}',
    b'{"step": true, "split": "train"}',
    b'{"step": 20, "loss": 1.0}',
    b'{"step": 20, "split": "train", "loss": "low"}',
    b'{"step": 20, "split": "train", "loss": 1' + b"0" * 400 + b"}",
    b"[" * 100_000,
    b"[]", b"7", b"\xff", b"loss: 1.0",
])  # fmt: skip
def test_damaged_rows_are_left_out_and_counted(tmp_path, line):
    good = [b'{"step": %d, "split": "train", "loss": 1.0}' % step for step in (10, 30)]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([good[0], line, good[1], b'{"torn": ']))
    assert [row["step"] for row in read_metrics(path)] == [10, 30]
    stream = io.StringIO()
    with Log(tmp_path, 40, start=30, tensorboard=False, stream=stream):
        pass
    assert path.read_bytes() == b"\n".join([*good, b""])
    assert stream.getvalue() == f"warning: lines of {path} that are damaged, and left out: 1\n"


def test_what_cannot_be_written_ends_nothing(tmp_path):
    stream = io.StringIO()
    with Log(tmp_path, 40, tensorboard=False, stream=stream) as log:
        for _ in range(2):
            with log.attempt("samples"):
                raise OSError(28, "No space left on device")
    assert stream.getvalue().count("samples cannot be written") == 1


def test_images_reach_tensorboard(tmp_path):
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    with Log(tmp_path, 1, stream=io.StringIO()) as log:
        log.image(1, "samples", picture)
    (value,) = [v for e in events(tmp_path) for v in e.summary.value]
    assert value.tag == "samples"
    shown = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
    np.testing.assert_array_equal(shown, picture)


def test_a_full_disk_warns_once_and_training_goes_on(tmp_path, monkeypatch):
    stream = io.StringIO()
    log = Log(tmp_path, 100, stream=stream)
    log.write(1, "train", {"loss": 1.0})

    class Full:
        def write(self, data):
            real.write(data[:7])
            return 7

        def close(self):
            real.close()

    def full(*_):
        raise OSError(28, "No space left on device")

    real, log._file = log._file, Full()
    monkeypatch.setattr(log._events._file, "flush", full)
    for step in range(2, 40):  # more than any queue would hold
        log.write(step, "train", {"loss": 1.0})
    log._file = real
    log.write(50, "train", {"loss": 1.0})
    log.close()
    warnings = stream.getvalue().splitlines()
    assert len(warnings) == 2 and all("training goes on" in line for line in warnings)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 50]


def test_no_directory_warns_and_training_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    stream = io.StringIO()
    with Log(tmp_path / "file" / "run", 1, stream=stream) as log:
        log.write(1, "train", {"loss": 1.0})
    assert stream.getvalue().count("training goes on") == 2


def test_plain_progress_is_sparse_and_without_control_characters(tmp_path):
    stream = io.StringIO()
    with Log(tmp_path, 100, start=50, images_per_step=64, tensorboard=False, stream=stream) as log:
        for step in range(51, 101):
            log.progress(step, {"loss": jnp.float32(0.25)})
        log.say("done")
    first, last, said = stream.getvalue().splitlines()
    assert first.startswith("step 51/100  loss=0.25, ") and "images/s" in first
    assert last.startswith("step 100/100  ") and last.endswith(", 0:00 left")
    assert said == "done"
    assert not set("\r\x1b") & set(stream.getvalue())


def test_terminal_gets_a_bar_that_messages_do_not_break(tmp_path):
    stream = Terminal()
    with Log(tmp_path, 10, start=4, images_per_step=64, tensorboard=False, stream=stream) as log:
        log.progress(5, {"loss": 0.25})
        log.say("saved")
        log.progress(10, {"loss": 0.125})
    text = stream.getvalue()
    assert "\r" in text and "4/10" in text and "10/10" in text
    assert "loss=0.125" in text and "images/s" in text
    assert any(line.strip("\r ") == "saved" for line in text.replace("\r", "\n").splitlines())


@pytest.mark.parametrize("levels", [2, 4, 17, 256])
def test_grid_shows_each_level_exactly_and_load_inverts_it(levels, tmp_path):
    image = np.arange(256, dtype=np.uint16).reshape(1, 16, 16, 1) % levels
    picture = pictures.grid(image.astype(np.uint8), levels, pad=0, scale=1)
    expected = [round(255 * int(x) / (levels - 1)) for x in image.ravel()]
    assert picture.dtype == np.uint8
    assert picture.ravel().tolist() == expected
    pictures.save_png(tmp_path / "x.png", picture)
    loaded = kinds.load_images([tmp_path / "x.png"], DataSpec(16, 16, 1, levels))
    np.testing.assert_array_equal(loaded, image)


def test_grid_places_and_enlarges():
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    picture = pictures.grid(images, 3, columns=2, pad=1, scale=2)
    assert picture.shape == (11, 11, 3)
    assert (picture[1:5, 1:5] == 0).all()
    assert (picture[1:5, 6:10] == 128).all()
    assert (picture[6:10, 1:5] == 255).all()
    edges = [picture[0], picture[5], picture[-1], picture[:, 0], picture[:, 5], picture[:, -1]]
    assert all((edge == pictures.GAP).all() for edge in edges)
    assert (picture[6:10, 6:10] == pictures.GAP).all()  # no fourth image
    rows = np.stack([images, images])
    np.testing.assert_array_equal(
        pictures.grid(rows, 3), pictures.grid(rows.reshape(6, 2, 2, 3), 3, columns=3)
    )


@pytest.mark.parametrize(("size", "cell"), [(8, 32), (20, 40), (28, 56), (32, 32), (64, 64)])
def test_cells_are_large_enough_to_see(size, cell):
    assert pictures.grid(np.zeros((1, size, size, 1), np.uint8), 2, pad=0).shape[:2] == (cell, cell)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3)])
def test_png_round_trip(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    read = np.asarray(Image.open(io.BytesIO(pictures.png_bytes(picture))))
    np.testing.assert_array_equal(read.reshape(shape), picture)


def test_heatmap_brightens_with_the_value():
    values = np.linspace(-3.0, 5.0, 64).reshape(1, 8, 8)
    picture = pictures.heatmap(values, pad=0)
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
    luminance = picture[::4, ::4] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance.ravel()) > 0).all()
    for flat in (np.full((1, 2, 2), np.nan), np.ones((1, 2, 2)), np.full((2, 3, 2, 2), np.inf)):
        assert (pictures.heatmap(flat, pad=0) == (68, 1, 84)).all()


def test_load_images_converts_and_refuses(tmp_path):
    spec = DataSpec(4, 6, 3, 256)
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    pictures.save_png(tmp_path / "grey.png", grey)
    (loaded,) = kinds.load_images([tmp_path / "grey.png"], spec)
    np.testing.assert_array_equal(loaded, np.repeat(grey[..., None], 3, axis=-1))

    with pytest.raises(UserError, match=r"grey.png is 6x4 pixels.* 4x6 \(width x height\)"):
        kinds.load_images([tmp_path / "grey.png"], DataSpec(6, 4))
    with pytest.raises(UserError, match="absent.png .*no such file"):
        kinds.load_images([tmp_path / "absent.png"], spec)
    data = (tmp_path / "grey.png").read_bytes()
    for name, damaged in {"text.png": b"hello", "cut.png": data[: len(data) // 2]}.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name} is not a readable image"):
            kinds.load_images([tmp_path / name], spec)
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="deep.png has pixels of mode I;16"):
        kinds.load_images([tmp_path / "deep.png"], spec)
    with pytest.raises(UserError, match="at least one image"):
        kinds.load_images([], spec)
