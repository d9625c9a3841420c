"""What latents stand for, and what a model measures of other data: the commands that show it,
against the model's own functions."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from test_cli import (  # noqa: F401
    TINY,
    compile_once,
    empty_folder,
    levels_of,
    options,
    read,
    refused,
)

from jaxgen.cli import main
from jaxgen.cli import train as train_command
from jaxgen.cli.outliers import Outliers, _remedy
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.evaluation import outliers
from jaxgen.evaluation.outliers import png_nats
from jaxgen.media.pictures import to_bytes
from jaxgen.media.points import in_units
from jaxgen.registry import load_run
from jaxgen.report.abilities import REACH, quantiles
from jaxgen.spec import DataSpec


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """name -> a run of a tiny model, without its report."""
    made, patch = {}, pytest.MonkeyPatch()
    patch.setattr(train_command, "finish_seeds", lambda *args: None)

    def run(name, *flags):
        if name not in made:
            made[name] = str(tmp_path_factory.mktemp("runs") / name)
            main.main(["train", *TINY, *flags, f"--run={made[name]}"])
        return made[name]

    yield run
    patch.undo()


VAE = ["--model=vae", "--vae.hidden=8", "--vae.latents=3"]


@pytest.fixture(scope="module")
def vae(runs):
    """A run, its model and state, the digits, and the codes of a split."""
    run = runs("vae", *VAE)
    saved, data, room = load_run(run), load(DataConfig()), 50
    model, key = saved.model, jax.random.key(0)
    encode = jax.jit(lambda batch: model.encode(key, saved.state, batch))
    decode = jax.jit(lambda z: model.spec.from_float(model.decode(key, saved.state, z)))

    def filled(x):
        """In as many places as there is room for, or a multiple: one program does for all."""
        return np.concatenate([x, np.zeros_like(x[:1]).repeat(-len(x) % room, 0)])

    def codes(x):
        whole = filled(x)
        return np.asarray(encode({"x": whole, "index": np.arange(len(whole))}))[: len(x)]

    def images(z):
        return np.asarray(decode(filled(np.float32(z))))[: len(z)].astype(int)

    return run, saved, data, codes, images


def close(shown, expected):
    assert np.abs(shown.astype(int) - expected).max() <= 1  # a level, by rounding


def test_traverse_moves_one_latent_a_row(vae, capfd, refused):  # noqa: F811
    run, saved, data, codes, images = vae
    main.main(["traverse", f"--run={run}", "--steps=5", "--out=x.png"])
    said = capfd.readouterr().out
    order = [int(n) for n in said.split("from the top: ")[1].split(", ")]
    assert sorted(order) == [0, 1, 2]
    batch = {"x": data.splits["validation"].x[:100], "index": np.arange(100)}
    told = np.asarray(jax.jit(saved.model.inspect)(jax.random.key(0), saved.state, batch).told)
    assert order == list(np.argsort(-told)) and len(set(told)) == 3
    code = codes(data.splits["validation"].x[:1])[0]
    rows = levels_of(read("x.png"), 3, 5)
    for latent, row in zip(order, rows, strict=True):
        z = np.tile(code, (5, 1))
        z[:, latent] = np.linspace(-REACH, REACH, 5)
        close(row, images(z))
    Image.fromarray(to_bytes(data.splits["test"].x[:1], 17)[0, ..., 0]).save("one.png")
    given = ["--image=one.png", "--latents=1", "--steps=5", "--out=y.png"]
    main.main(["traverse", f"--run={run}", *given])
    z = np.tile(codes(data.splits["test"].x[:1]), (5, 1))
    z[:, order[0]] = np.linspace(-REACH, REACH, 5)
    close(levels_of(read("y.png"), 1, 5)[0], images(z))
    assert "--latents=4: the model has 3" in refused("traverse", f"--run={run}", "--latents=4")


def test_manifold_is_a_plane_of_two_latents(vae, refused):  # noqa: F811
    run, _, _, _, images = vae
    main.main(["manifold", f"--run={run}", "--dims", "2", "0", "--side=4", "--out=x.png"])
    rows, sides = levels_of(read("x.png"), 4, 4), quantiles(4)
    z = np.zeros((4, 4, 3))
    for i in range(4):
        for j in range(4):
            z[i, j, 2], z[i, j, 0] = sides[j], -sides[i]
    close(rows.reshape(16, 8, 8, 1), images(z.reshape(16, 3)))
    assert "two different latents" in refused("manifold", f"--run={run}", "--dims", "1", "1")
    assert "has 3 latents" in refused("manifold", f"--run={run}", "--dims", "1", "3")


def test_attribute_adds_the_difference_of_two_means(vae, refused):  # noqa: F811
    run, _, data, codes, images = vae
    words = ["--label=3", "--count=2", "--steps=3", "--most=2", "--out=x.png"]
    main.main(["attribute", f"--run={run}", *words])
    rows = levels_of(read("x.png"), 2, 4)
    test, train = data.splits["test"].x[:2], data.splits["train"]
    z, has = codes(train.x), np.asarray(train.label) == 3
    difference = z[has].mean(0) - z[~has].mean(0)
    assert (rows[:, 0] == test).all() and np.abs(difference).max() > 1e-3
    for row, code in zip(rows, codes(test), strict=True):
        close(row[1:], images(code + np.array([-2, 0, 2])[:, None] * difference))
    told = refused("attribute", f"--run={run}", "--label=ten")
    assert "--label=ten: the data set has 0..9" in told


def test_interpolate_walks_between_given_images(vae, refused):  # noqa: F811
    run, _, data, codes, images = vae
    test = data.splits["test"].x[:3]
    for i, image in enumerate(to_bytes(test, 17)):
        Image.fromarray(image[..., 0]).save(f"{i}.png")
    files = ["--images", "0.png", "1.png", "2.png"]
    main.main(["interpolate", f"--run={run}", *files, "--steps=4", "--out=x.png"])
    rows, ends = levels_of(read("x.png"), 2, 4), images(codes(test))
    close(rows[:, 0], ends[:2])
    close(rows[:, -1], ends[1:])
    assert "names one file" in refused("interpolate", f"--run={run}", "--images", "0.png")
    told = refused("interpolate", f"--run={run}", *files, "--pairs=3")
    assert "--pairs=3 has no effect beside --images" in told


def test_project_shows_given_found_and_their_difference(vae, capfd, refused):  # noqa: F811
    """And keeps the latents of what is shown, which are no worse than the encoder's."""
    run, _, data, codes, images = vae
    main.main(["project", f"--run={run}", "--count=3", "--starts=2", "--steps=20", "--out=x.png"])
    said, kept = capfd.readouterr().out, np.load("x.npz")
    test = data.splits["test"].x[:3]
    given, found, differ = levels_of(read("x.png"), 3, 3)
    z, error = kept["z"], kept["error"]
    assert (given == test).all() and z.shape == (3, 3) and error.shape == (3,)
    close(found, images(z))
    close(differ, np.abs(images(z) - test.astype(int)))
    # In [-1, 1] a level is an eighth; pictures round to levels.
    squared = ((images(z) - test.astype(int)) ** 2).mean((1, 2, 3)) / 64
    np.testing.assert_allclose(error, squared, rtol=0.1)
    own = ((images(codes(test)) - test.astype(int)) ** 2).mean() / 64
    told, by_codes = (float(said.split(word)[1].split()[0].strip(",()"))
                      for word in ("[-1, 1]: ", "codes "))  # fmt: skip
    assert told == pytest.approx(error.mean(), rel=1e-3) and told < by_codes
    assert by_codes == pytest.approx(own, rel=0.1)
    mean = data.splits["train"].x.mean(0) / 8 - 1
    assert f"train split {((test / 8 - 1 - mean) ** 2).mean():.4g})" in said
    Image.fromarray(to_bytes(test[:1], 17)[0, ..., 0]).save("one.png")
    main.main(["project", f"--run={run}", "--images=one.png", "--starts=2", "--steps=20",
               "--out=y.png"])  # fmt: skip
    assert (levels_of(read("y.png"), 3, 1)[0, 0] == test[0]).all()
    np.testing.assert_allclose(np.load("y.npz")["z"][0], z[0], atol=1e-3)
    assert "--steps" in refused("project", f"--run={run}", "--steps=0")


@pytest.mark.slow
def test_interpolate_needs_an_encoder_for_given_images(runs, refused):  # noqa: F811
    files = ["--images", "0.png", "1.png"]
    gan = runs("gan", "--model=gan", "--gan.architecture=mlp", "--gan.hidden=4")
    assert "gan has no encoder" in refused("interpolate", f"--run={gan}", *files)


def noise_file(path, shape=(8, 8)):
    """The flags of a data set of bytes that are noise, but for a black and a white image."""
    x = np.random.default_rng(0).integers(256, size=(60, *shape, 1)).astype(np.uint8)
    x[0], x[1] = 0, 255
    np.savez(path, x=x)
    return ["--dataset=arrays", f"--dataset_dir={Path(path).absolute()}"]


def test_outliers_are_ranked_by_what_the_model_measures(vae, runs, capfd, monkeypatch):  # noqa: F811
    monkeypatch.setattr(outliers, "DRAWS", 10)  # of the intervals
    run, saved, data, _, _ = vae
    other = [*noise_file("noise.npz"), "--levels=17"]
    against = runs("another", *VAE, "--seed=1")
    main.main(["outliers", f"--run={run}", *other, "--k=3", f"--against={against}"])
    said = capfd.readouterr().out
    [file] = Path(run).glob("outliers_*.json")
    scores = json.loads(file.read_text())["scores"]
    noise = load(DataConfig("arrays", data_dir="noise.npz", levels=17)).materialize("test").x
    own = data.splits["test"].x
    both = np.concatenate([own, noise])
    batch = {"x": both, "index": np.arange(len(both))}
    found = jax.jit(saved.model.eval_step)(jax.random.key(0), saved.state, batch)
    errors = np.split(np.asarray(found["reconstruction"]), [len(own)])

    def exact(own, noise):
        return roc_auc_score(np.repeat([0, 1], [len(own), len(noise)]), np.append(own, noise))

    by_error = scores["reconstruction, -log p(x | z)"]["auroc"]
    assert abs(by_error - exact(*errors)) < 0.02  # other draws
    by_png = scores["PNG's size, no model"]["auroc"]
    sizes = (png_nats(to_bytes(x, 17)) for x in (own, noise))
    assert abs(by_png - exact(*sizes)) < 1e-12 and by_png > 0.9
    assert {"bound of 3 draws", "NLL less the PNG's size"} <= set(scores)
    assert f"NLL less that of {against}" in scores
    assert "untypical: |NLL - its mean|" in scores and "ELBO" not in scores
    assert "nothing is chosen by the other data" in said and Path("outliers.png").exists()
    for each in scores.values():
        low, high = each["auroc_interval"]
        assert 0 <= low <= each["auroc"] <= high <= 1


def test_outliers_of_another_shape_are_refused(vae, refused):  # noqa: F811
    run = vae[0]
    told = refused("outliers", f"--run={run}")
    assert "--dataset: name the data set" in told
    told = refused("outliers", f"--run={run}", *noise_file("big.npz", (9, 9)))
    assert "--dataset=arrays is 9x9x1, 256 levels, and the run's data are 8x8x1, 17" in told
    assert "make them 8x8x1 in it" in told and "--levels=17 quantizes them" in told
    assert "--fit=pad has no effect without --size" in refused(
        "outliers", f"--run={run}", *noise_file("noise.npz"), "--levels=17", "--fit=pad"
    )


@pytest.mark.slow
def test_outliers_of_real_numbers_stand_beside_their_pictures(runs):
    """A density of real images: the PNG is that of the grey levels that show them."""
    x = load(DataConfig()).materialize("test").x.astype(np.float32) / 8.0 - 1.0
    np.savez("real.npz", x=x)
    np.savez("other.npz", x=-x)
    run = runs("real", *VAE, "--dataset=arrays", f"--data_dir={Path('real.npz').absolute()}")
    assert type(load_run(run).model.observation.p).__name__ == "NormalDensity"
    other = ["--dataset=arrays", f"--dataset_dir={Path('other.npz').absolute()}"]
    main.main(["outliers", f"--run={run}", *other, "--k=3"])
    [file] = Path(run).glob("outliers_*.json")
    scores = json.loads(file.read_text())["scores"]
    own = load(load_run(run).run.data).materialize("test").x
    noise = load(DataConfig("arrays", data_dir="other.npz")).materialize("test").x
    sizes = [png_nats(to_bytes(images, 0)) for images in (own, noise)]
    labels = np.repeat([0, 1], [len(own), len(noise)])
    by_png = scores["PNG's size, no model"]["auroc"]
    assert abs(by_png - roc_auc_score(labels, np.append(*sizes))) < 1e-12
    assert "NLL less the PNG's size" in scores


@pytest.mark.slow
def test_outliers_need_a_likelihood_or_a_bound_for_what_is_asked(vae, runs, refused):  # noqa: F811
    run, other = vae[0], [*noise_file("noise.npz"), "--levels=17"]
    labelled = runs("conditional", *VAE, "--conditional")
    told = refused("outliers", f"--run={labelled}", *other)
    assert "its label or its source" in told
    gan = runs("gan", "--model=gan", "--gan.architecture=mlp", "--gan.hidden=4")
    told = refused("outliers", f"--run={gan}", *other, f"--against={run}")
    assert "gan has no likelihood" in told
    told = refused("outliers", f"--run={run}", *other, f"--against={gan}")
    assert "gan has no likelihood" in told
    told = refused("outliers", f"--run={gan}", *other, "--k=3")
    assert "--k=3: gan has no bound" in told
    # What D makes of generated images is the same, whatever stands beside them.
    main.main(["outliers", f"--run={gan}", *other])
    [file] = Path(gan).glob("outliers_*.json")
    scores = json.loads(file.read_text())["scores"]
    assert len(scores) == 2 and {name[:4] for name in scores} == {"D(x)", "PNG'"}


@pytest.mark.slow
def test_outliers_of_another_shape_say_what_makes_them_alike(vae, runs, refused):  # noqa: F811
    """Only flags that the other data set takes."""
    run = vae[0]
    told = refused("outliers", f"--run={run}", *noise_file("large.npz", (9, 9)), "--levels=17")
    assert "no flag resizes what a file holds; make them 8x8x1 in it" in told
    assert "--size" not in told
    of_folder = _remedy("folder", DataSpec(9, 9, 3, 256), DataSpec(8, 8, 1, 17))
    assert "--size=8 resizes them" in of_folder and "--grey makes them grey" in of_folder
    np.save("p.npy", np.random.default_rng(0).normal(size=(60, 2)))
    told = refused("outliers", f"--run={run}", "--dataset=points", "--dataset_dir=p.npy")
    assert "these are points and those images, which no flag makes alike" in told
    told = refused("outliers", f"--run={run}", "--dataset=arrays")
    assert "--dataset=arrays needs --dataset_dir=FILE.npz" in told
    moons = runs("moons", "--model=vae", "--vae.hidden=4", "--vae.latents=2", "--dataset=moons")
    np.save("q.npy", np.random.default_rng(0).normal(size=(60, 3)))
    told = refused("outliers", f"--run={moons}", "--dataset=points", "--dataset_dir=q.npy")
    assert "1x1x3, real numbers, and the run's data are 1x1x2" in told
    wrong = ["--dataset=points", "--dataset_dir=p.npy", "--levels=9"]
    assert "--levels=9: the run's points are 1x1x2" in refused("outliers", f"--run={moons}", *wrong)


@pytest.mark.parametrize("levels", [0, 16])
def test_other_points_are_taken_in_the_ranges_of_the_run(levels, tmp_path):
    """A place in the plane is the same number in both, however far the other file reaches."""
    points = 3 * np.random.default_rng(0).normal(size=(400, 2))
    np.save(tmp_path / "p.npy", points)
    moons = load(DataConfig("moons", levels=levels))
    saved = SimpleNamespace(
        model=SimpleNamespace(spec=moons.spec),
        run=SimpleNamespace(data=DataConfig("moons", levels=levels)),
    )
    command = Outliers("run", dataset="points", dataset_dir=str(tmp_path / "p.npy"))
    other = command._other(saved)
    held = load(DataConfig("points", data_dir=str(tmp_path / "p.npy")))
    expected = in_units(held.splits["test"].x, held.spec)
    x = other.materialize("test").x
    low, high = np.array(moons.spec.ranges).T
    inside = ((expected > low) & (expected < high)).all(1)
    assert other.spec == moons.spec and 0 < inside.sum() < len(inside)
    width = (high - low) / levels / 2 if levels else 1e-5
    assert (np.abs(in_units(x, moons.spec) - expected)[inside] <= width * 1.001).all()
