"""Points: units, bins, files of them, and the ring of known density."""

import math

import jax
import numpy as np
import pytest
from stored import SPLITS
from tiny import some

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.data.points import bins, from_units, ranges_of
from jaxgen.data.shuffle import indices
from jaxgen.data.sources.densities import TOYS
from jaxgen.errors import UserError
from jaxgen.media.points import in_units
from jaxgen.parallel.mesh import make_mesh
from jaxgen.spec import DataSpec
from jaxgen.training.feed import Feed

RNG = np.random.default_rng(0)
POINTS = RNG.normal([3.0, -200.0, 0.0], [1.0, 50.0, 1e-3], (60, 3))


def every(data):
    return np.concatenate([in_units(data.splits[name].x, data.spec) for name in SPLITS])


def by_row(points):
    return points[np.lexsort(points.T)]


def config(path, **fields):
    return DataConfig(dataset="points", data_dir=str(path), **fields)


CENTRES, SIGMA = TOYS["ring"].density.modes, 0.1
ENTROPY = math.log(8) + math.log(2 * math.pi * SIGMA**2) + 1


def test_units_come_back():
    ranges = ranges_of(POINTS, ["a", "b", "c"])
    x = from_units(POINTS, ranges)
    spec = DataSpec(1, 1, 3, 0, ranges=ranges)
    assert x.dtype == np.float32 and x.shape == (60, 1, 1, 3)
    np.testing.assert_allclose(x.min(0).ravel(), -1 / 1.1, rtol=1e-5)  # a margin of a twentieth
    np.testing.assert_allclose(x.max(0).ravel(), 1 / 1.1, rtol=1e-5)
    spread = POINTS.max(0) - POINTS.min(0)
    np.testing.assert_allclose(in_units(x, spec) / spread, POINTS / spread, rtol=0, atol=1e-6)


def test_bins_have_one_width():
    x = np.linspace(-1, 1, 8 * 5 + 1, dtype=np.float32)[:-1] + 1e-3
    np.testing.assert_array_equal(bins(x, 8), np.arange(8).repeat(5))
    assert bins(np.array([-1.0, 1.0, -7.0, 7.0]), 8).tolist() == [0, 7, 0, 7]
    spec = DataSpec(1, 1, 1, 8, ranges=((0.0, 16.0),))
    middles = in_units(np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1), spec)
    np.testing.assert_array_equal(middles[:, 0], 2 * np.arange(8) + 1)


def test_the_ring_is_what_it_says():
    data = load(DataConfig(dataset="ring", conditional=True))
    assert data.spec == DataSpec(1, 1, 2, 0, 8, ranges=((-2.5, 2.5),) * 2)
    assert data.spec.kind == "points" and data.modes.shape == (8, 2)
    np.testing.assert_allclose(np.linalg.norm(data.modes, axis=1), 2)
    train = data.splits["train"]
    assert train.x.dtype == np.float32 and np.abs(train.x).max() < 1
    points = in_units(train.x, data.spec)
    residual = (points - CENTRES[train.label]) / SIGMA
    num = len(points)
    assert np.abs(residual.mean(0)).max() < 5 / num**0.5
    assert np.abs(residual.var(0) - 1).max() < 5 * (2 / num) ** 0.5
    counts = np.bincount(train.label)
    assert (np.abs(counts - num / 8) < 5 * (num * 7 / 64) ** 0.5).all()
    assert "points of 2 coordinates in [-2.5, 2.5] x [-2.5, 2.5], real numbers" in data.protocol
    assert "entropy 0.3121 nats" in data.protocol
    assert len({load(DataConfig(dataset="ring", levels=n)).fingerprint for n in (0, 8, 9)}) == 3


def test_the_density_of_the_ring_is_one():
    data = load(DataConfig(dataset="ring"))
    side = np.linspace(-2.7, 2.7, 541)
    cell = (side[1] - side[0]) ** 2
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    log_p = data.density(grid)
    p = np.exp(log_p)
    # The trapezoidal rule is exact to rounding for Gaussians this smooth.
    assert abs(p.sum() * cell - 1) < 1e-9
    assert abs(-(p * log_p).sum() * cell - ENTROPY) < 1e-9
    assert np.isfinite(data.density(np.array([[1e6, -1e6]]))).all()
    # The data are drawn from it: their mean log density is minus the entropy.
    nll = -data.density(in_units(data.splits["test"].x, data.spec))
    assert abs(nll.mean() - ENTROPY) < 5 * nll.std() / len(nll) ** 0.5
    np.testing.assert_allclose(data.density(data.modes), math.log(1 / (8 * 2 * math.pi * 0.01)))


OTHERS = [name for name in TOYS if name != "ring"]


@pytest.mark.parametrize("name", some(OTHERS, ["gaussians1d", "grid", "moons"]))
def test_a_density_is_one_and_the_data_are_drawn_from_it(name):
    """It sums to one, and the test split's mean log density is its entropy."""
    data = load(DataConfig(dataset=name, conditional=True))
    (low, high), cells = np.array(data.spec.ranges).T, 120 if len(data.spec.ranges) == 2 else 5000
    width = (high - low) / cells
    sides = [a + w * (np.arange(cells) + 0.5) for a, w in zip(low, width, strict=True)]
    grid = np.stack(np.meshgrid(*sides), -1).reshape(-1, len(sides))
    log_p = data.density(grid)
    p = np.exp(log_p) * width.prod()
    assert abs(p.sum() - 1) < 1e-6
    entropy = -(p * np.where(p > 0, log_p, 0.0)).sum()
    points, label = in_units(data.splits["test"].x, data.spec), data.splits["test"].label
    nll = -data.density(points)
    assert abs(nll.mean() - entropy) < 5 * nll.std() / len(nll) ** 0.5 + 1e-6
    if "entropy" in data.protocol:
        assert f"entropy {entropy:.4f} nats" in data.protocol
    # Each label's share, and its place: the mean of its points is that of the density's part.
    assert set(label) == set(range(data.spec.num_classes)) == set(range(len(data.class_names)))
    if data.modes is not None:
        nearest = np.linalg.norm(points[:, None] - data.modes, axis=2).argmin(1)
        assert (nearest == label).mean() > 0.9


def test_curves_are_where_they_should_be():
    """Without noise: half circles of radius one, and arms that turn outwards."""
    t = np.linspace(0, 1, 101)
    upper, lower = (curve(t) for curve in TOYS["moons"].density.curves)
    np.testing.assert_allclose(np.linalg.norm(upper, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(lower - [1, 0.5], axis=1), 1)
    assert (upper[:, 1] > -1e-9).all() and (lower[:, 1] < 0.5 + 1e-9).all()
    first, second = (curve(t) for curve in TOYS["spirals"].density.curves)
    np.testing.assert_allclose(first, -second, atol=1e-12)
    assert (np.diff(np.linalg.norm(first, axis=1)) > 0).all()


@pytest.mark.parametrize("levels", [16, 256])
def test_an_nll_of_bins_is_one_of_the_density(levels):
    """The true masses of the bins, given as an NLL and corrected by `log_volume`, approach the
    true entropy as bins shrink."""
    data, real = load(DataConfig(dataset="ring", levels=levels)), load(DataConfig(dataset="ring"))
    assert data.spec == DataSpec(1, 1, 2, levels, ranges=real.spec.ranges)
    x = data.splits["test"].x
    assert x.dtype == np.uint8
    width = 5 / levels
    np.testing.assert_array_equal(
        x, np.floor((in_units(real.splits["test"].x, real.spec) + 2.5) / width)[:, None, None]
    )
    # Mass by the density at the middle of 20 x 20 parts of each bin.
    part = (np.arange(20) + 0.5) / 20 * width - width / 2
    inside = in_units(x, data.spec)[:500, None] + np.stack(np.meshgrid(part, part), -1).reshape(
        -1, 2
    )
    mass = np.exp(data.density(inside.reshape(-1, 2))).reshape(500, -1).mean(1) * width**2
    nll = -np.log(mass) + data.spec.log_volume
    exact = -data.density(in_units(real.splits["test"].x[:500], real.spec))
    error = nll.mean() - exact.mean()
    assert (abs(error) < 0.02) if levels == 256 else (error > 0.1)


def test_an_nll_of_real_points_is_in_their_units():
    data = load(DataConfig(dataset="ring"))
    # A uniform density on [-1, 1]^2 is log 4 nats; on the window, log 25.
    assert math.isclose(2 * math.log(2) + data.spec.log_volume, math.log(25))


def write_csv(path, points, header="", mark=","):
    rows = [mark.join(map(repr, map(float, point))) for point in points]
    path.write_text("\n".join([header] * bool(header) + rows) + "\n")
    return path


def test_files_of_points_are_read_alike(tmp_path):
    np.save(tmp_path / "p.npy", POINTS)
    np.savez(tmp_path / "p.npz", x=POINTS)
    files = [
        tmp_path / "p.npy",
        tmp_path / "p.npz",
        write_csv(tmp_path / "p.csv", POINTS),
        write_csv(tmp_path / "named.csv", POINTS, "height; weight; age", ";"),
        write_csv(tmp_path / "tabs.CSV", POINTS, mark="\t"),
    ]
    loaded = [load(config(path)) for path in files]
    assert len({data.fingerprint for data in loaded}) == 1
    data = loaded[0]
    assert data.spec.shape == (1, 1, 3) and data.spec.levels == 0 and data.density is None
    assert [len(data.splits[name]) for name in SPLITS] == [40, 10, 10]
    np.testing.assert_allclose(by_row(every(data)), by_row(POINTS), rtol=1e-5, atol=1e-3)
    assert "points of 3 coordinates in [" in data.protocol and "carved" in data.protocol
    assert data.name == "points:p"
    levels = load(config(files[0], levels=16))
    assert levels.spec == DataSpec(1, 1, 3, 16, ranges=data.spec.ranges)
    assert "16 bins each" in levels.protocol
    np.testing.assert_array_equal(levels.splits["test"].x, bins(data.splits["test"].x, 16))


def test_one_coordinate_labels_and_integers(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(30))
    data = load(config(tmp_path / "one.npy"))
    assert data.spec.shape == (1, 1, 1)
    np.testing.assert_allclose(np.sort(every(data)[:, 0]), np.arange(30), atol=1e-4)
    np.savez(tmp_path / "l.npz", train_x=POINTS[:30], train_label=np.arange(30) % 3,
             validation_x=POINTS[30:40], validation_label=np.arange(10) % 3,
             test_x=POINTS[40:], test_label=np.arange(20) % 3,
             class_names=["a", "b", "c"])  # fmt: skip
    data = load(config(tmp_path / "l.npz", conditional=True))
    assert data.spec.num_classes == 3 and data.class_names == ("a", "b", "c")
    np.testing.assert_allclose(in_units(data.splits["test"].x, data.spec), POINTS[40:], atol=1e-3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,2\n3,abc\n5,6\n", "line 2, column 2: 'abc' is not a finite number"),
        ("a,b\n1,2\n3,NaN\n", "line 3, column b: 'NaN' is not a finite number"),
        ("a,b\n1,2\n\n3,inf\n", "line 4, column b: 'inf'"),
        ("1,2\n3,\n", "line 2, column 2: ''"),
        ("1,two\n3,4\n", "line 1, column 2: 'two'"),
        ("1,2\n3,4,5\n", "line 2 has 3 columns, and others 2"),
        ("a,b\n", "holds no rows of numbers"),
        ("", "holds no rows of numbers"),
        ("a,b\n1,7\n2,7\n3,7\n4,7\n", "column b is 7 in every point: leave it out"),
    ],
)
def test_a_bad_table_is_told_by_row_and_column(tmp_path, text, told):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UserError) as error:
        load(config(tmp_path / "bad.csv"))
    assert told in str(error.value) and str(tmp_path / "bad.csv") in str(error.value)


def test_mistakes_with_points_are_told(tmp_path):
    def message(path, **fields):
        with pytest.raises(UserError) as error:
            load(config(path, **fields))
        return str(error.value)

    assert "is not a readable .csv file" in message(tmp_path / "no.csv")
    assert "is not a file" in message(tmp_path / "no.npy")
    np.save(tmp_path / "p.npy", np.full((9, 2), np.nan))
    assert "is nan at (0, 0)" in message(tmp_path / "p.npy")
    np.save(tmp_path / "p.npy", RNG.normal(size=(9, 8, 8)))
    assert "images are for --dataset=arrays" in message(tmp_path / "p.npy")
    np.save(tmp_path / "p.npy", POINTS[:2])
    assert "too few points" in message(tmp_path / "p.npy")
    np.save(tmp_path / "p.npy", POINTS)
    assert "--binarize=static means nothing" in message(tmp_path / "p.npy", binarize="static")
    assert "--levels must be 0" in message(tmp_path / "p.npy", levels=300)


@pytest.mark.parametrize("levels", [0, 16])
def test_batches_of_points_are_as_their_spec_says(levels):
    data = load(DataConfig(dataset="ring", levels=levels, conditional=True))
    feed = Feed(data, 0, 32, make_mesh(1), 2)
    batch = jax.jit(feed.batch)(feed.chunk(0, 2), 1)
    shapes = {name: (a.shape, a.dtype) for name, a in batch.items()}
    assert shapes == {name: (a.shape, a.dtype) for name, a in data.spec.shapes(32).items()}
    ids = indices(0, 32, 32, 10_000)[0]
    np.testing.assert_array_equal(batch["x"], data.splits["train"].x[ids])
    np.testing.assert_array_equal(batch["label"], data.splits["train"].label[ids])
