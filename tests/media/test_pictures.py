"""Pictures of levels, floats, sounds and points, and files of each."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen.errors import UserError
from jaxgen.media import kinds, points
from jaxgen.media.pictures import GAP, grid, heatmap
from jaxgen.media.sound import mu_law_decode, waves
from jaxgen.spec import DataSpec

PLANE = DataSpec(1, 1, 2, levels=0, ranges=((-3.0, 3.0), (0.0, 10.0)))
LINE = DataSpec(1, 1, 1, levels=0, ranges=((-3.0, 3.0),))


def cell(picture, high, wide, row=0, column=0):
    """One cell of a grid whose images have not been enlarged."""
    y, x = 1 + row * (high + 1), 1 + column * (wide + 1)
    return picture[y : y + high, x : x + wide]


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_floats_look_as_the_levels_they_stand_for(levels):
    x = np.arange(levels, dtype=np.uint8).reshape(1, 1, levels, 1)
    floats = np.asarray(DataSpec(1, levels, levels=levels).to_float(jnp.asarray(x)))
    np.testing.assert_array_equal(grid(x, levels), grid(floats, levels))
    assert cell(grid(x, levels, scale=1), 1, levels)[0, [0, -1], 0].tolist() == [0, 255]


def test_means_show_grey():
    """A binary pixel that is on half of the time is neither black nor white."""
    halves = np.full((1, 40, 40, 1), 2 * 0.5 - 1, np.float32)
    assert (cell(grid(halves, 2), 40, 40) == 128).all() and GAP == 128
    quarter = np.full((1, 40, 40, 1), 2 * 0.25 - 1)
    assert (cell(grid(quarter, 2), 40, 40) == 64).all()
    assert (cell(kinds.picture(quarter, DataSpec(40, 40, levels=2)), 40, 40) == 64).all()


def test_floats_outside_are_clipped_and_no_number_is_black():
    x = np.array([-7.0, 7.0, np.nan, np.inf, -np.inf], np.float32).reshape(1, 1, 5, 1)
    assert cell(grid(x, 0, scale=1), 1, 5)[0, :, 0].tolist() == [0, 255, 0, 255, 0]


def test_heat_maps_run_through_viridis():
    unit = np.array([[0.0, 0.5], [1.0, np.nan]])
    shown = cell(heatmap(unit[None] * 8 - 3), 32, 32)[::16, ::16]
    expected = np.array(matplotlib.colormaps["viridis"].colors) * 255
    np.testing.assert_allclose(shown[0], expected[[0, 128]], atol=1)
    np.testing.assert_allclose(shown[1], expected[[255, 0]], atol=1)
    light = points.coloured(np.linspace(0, 1, 99)).astype(float).sum(-1)
    assert (np.diff(light) >= 0).all()


def test_points_stand_where_their_ranges_say():
    x = np.array([[-1, -1], [0, 0], [1, 1]], np.float32)[:, None, None]
    expected = [[-3, 0], [0, 5], [3, 10]]
    np.testing.assert_allclose(points.in_units(x, PLANE), expected)
    np.testing.assert_allclose(points.in_units(x[None], PLANE), [expected])
    # Levels are bins: their middles, and the floats that they are decoded to, likewise.
    binned = dataclasses.replace(PLANE, levels=4)
    levels = np.array([[0, 0], [3, 3]], np.uint8)[:, None, None]
    expected = [[-2.25, 1.25], [2.25, 8.75]]
    np.testing.assert_allclose(points.in_units(levels, binned), expected)
    floats = binned.to_float(jnp.asarray(levels))
    np.testing.assert_allclose(points.in_units(np.asarray(floats), binned), expected, rtol=1e-6)


def inked(picture):
    """Where a plot of points has their colour, as rows and columns."""
    blue = picture[..., 2].astype(int) - picture[..., 0]
    return np.argwhere(blue > 60)


def test_a_plot_has_its_points_in_its_window():
    def centre(x, y):
        return inked(kinds.picture(np.array([[[[x, y]]]], np.float32), PLANE)).mean(0)

    middle = centre(0, 0)
    (up, left), (down, right) = centre(-0.5, 0.5), centre(0.5, -0.5)
    np.testing.assert_allclose((up + down) / 2, middle[0], atol=1.5)
    np.testing.assert_allclose((left + right) / 2, middle[1], atol=1.5)
    np.testing.assert_allclose(down - up, right - left, atol=2)  # the window is a square
    assert up < down and left < right
    # Half of the window's width: it is the ranges', not the points'.
    shape = kinds.picture(np.zeros((1, 1, 1, 2), np.float32), PLANE).shape
    assert shape == (400, 400, 3) and 130 < right - left < 200


@pytest.mark.parametrize("num", [0, 1, 7, points.CROWD + 1])
@pytest.mark.parametrize("spec", [LINE, PLANE, dataclasses.replace(PLANE, levels=16)])
def test_any_number_of_points_is_a_picture_and_the_same_one(spec, num):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.2, 1.2, (num, *spec.shape)).astype(np.float32)
    x[:1] = np.nan
    if spec.levels:
        x = rng.integers(spec.levels, size=x.shape).astype(np.uint8)
    shown = kinds.picture(x, spec)
    assert shown.shape == (400, 400, 3) and shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, kinds.picture(x, spec))


def test_points_of_three_coordinates_show_two():
    spec = DataSpec(1, 1, 3, levels=0, ranges=((-1.0, 1.0),) * 3)
    flat = DataSpec(1, 1, 2, levels=0, ranges=((-1.0, 1.0),) * 2)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 1, 1, 3)).astype(np.float32)
    np.testing.assert_array_equal(kinds.picture(x, spec), kinds.picture(x[..., :2], flat))


def test_rows_of_points_have_colours_of_their_own():
    x = np.array([[[-0.5, 0]], [[0.5, 0]]], np.float32)[:, :, None, None]
    shown = kinds.picture(x, PLANE)
    left, right = shown[:, :200].reshape(-1, 3), shown[:, 200:].reshape(-1, 3)
    colours = [c for side in (left, right) for c in [side[np.ptp(side.astype(int), 1).argmax()]]]
    assert np.abs(colours[0].astype(int) - colours[1]).max() > 80


def test_a_density_is_a_histogram_that_sums_to_one():
    x = np.random.default_rng(0).normal(0, 0.3, (50_000, 1, 1, 1)).astype(np.float32)
    values = points.in_units(x, LINE)[:, 0]
    counts, edges = np.histogram(values, points.BINS, (-3, 3), density=True)
    assert np.sum(counts * np.diff(edges)) == pytest.approx(1)
    assert kinds.picture(x, LINE).shape == (400, 400, 3)


def test_each_kind_leaves_its_files(tmp_path):
    rng = np.random.default_rng(0)
    sound = DataSpec(1, 64, rate=8000)
    for spec, ends in ((DataSpec(4, 4, levels=3), [".png"]), (PLANE, [".png"]),
                       (sound, [".png", ".wav"])):  # fmt: skip
        x = rng.integers(spec.levels or 2, size=(12, *spec.shape)).astype(np.uint8)
        x = x if spec.levels else x.astype(np.float32)
        folder = tmp_path / spec.kind
        shown = kinds.save_samples(folder / "x", x, spec)
        assert sorted(p.suffix for p in folder.iterdir()) == ends
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "x.png")), shown.squeeze())
        kinds.save_one(folder / "one", x[0], spec)
        assert (folder / f"one{ends[-1]}").exists()
        assert ends == list(kinds.formats(spec))
        assert len(kinds.players(x, spec)) == (12 if spec.rate else 0)
        assert kinds.ONE[spec.kind]


def test_floats_of_sounds_lie_between_their_levels():
    spec = DataSpec(1, 256, rate=8000)
    x = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)
    floats = np.asarray(spec.to_float(jnp.asarray(x)))
    np.testing.assert_allclose(waves(floats), waves(x), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(waves(floats, 0)[0], floats.reshape(-1))
    between = waves((floats[..., 1:, :] + floats[..., :-1, :]) / 2)[0]
    assert (between > mu_law_decode(x.reshape(-1)[:-1])).all()
    np.testing.assert_allclose(kinds.picture(floats, spec), kinds.picture(x, spec), atol=2)


def test_files_become_floats_where_there_are_no_levels(tmp_path):
    values = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    Image.fromarray(values).save(tmp_path / "x.png")
    [x] = kinds.load_images([tmp_path / "x.png"], DataSpec(4, 4, levels=0))
    assert x.dtype == np.float32 and x.shape == (4, 4, 1)
    np.testing.assert_allclose(x[..., 0], values / 127.5 - 1, atol=1e-6)
    with pytest.raises(UserError, match="points are not read from files"):
        kinds.load_images([tmp_path / "x.png"], PLANE)


def test_files_are_read_as_a_viewer_shows_them(tmp_path):
    """Upright, and on the background: as a folder of them is."""
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is to the left
    turned = np.ascontiguousarray(np.rot90(values))
    Image.fromarray(turned).save(tmp_path / "x.png", exif=exif)
    [x] = kinds.load_images([tmp_path / "x.png"], DataSpec(3, 4))
    np.testing.assert_array_equal(x[..., 0], values)
    ink = np.stack([values, np.full_like(values, 0)], -1)
    Image.fromarray(ink).save(tmp_path / "x.png")
    for background, colour in (("white", 255), ("black", 0)):
        [x] = kinds.load_images([tmp_path / "x.png"], DataSpec(3, 4), background)
        assert (x == colour).all()
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="x.png has pixels of mode I;16, and 8 bits a channel"):
        kinds.load_images([tmp_path / "x.png"], DataSpec(3, 4))


def test_pictures_of_images_need_no_matplotlib():
    code = (
        "import sys, numpy as np\n"
        "from jaxgen.media import kinds; from jaxgen.spec import DataSpec\n"
        "kinds.picture(np.zeros((3, 4, 4, 1), np.uint8), DataSpec(4, 4))\n"
        "assert 'matplotlib' not in sys.modules"
    )
    root = Path(jaxgen.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=root)
