"""The numbers of a finished run against plain loops, and its page as a browser would read it."""

import dataclasses
import json
import math
import re
import shutil
from html.parser import HTMLParser

import jax
import numpy as np
import pytest

from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import load
from jaxgen.data.splits import Split
from jaxgen.evaluation import fitted, results
from jaxgen.evaluation.metrics import METRICS
from jaxgen.files import write_json
from jaxgen.model import Inspection
from jaxgen.models.adversarial.gan import GAN
from jaxgen.models.latent.vae import VAE
from jaxgen.parallel.mesh import make_mesh
from jaxgen.report import charts, finish, page, tables
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.directory import write_run
from jaxgen.runs.record import record_of
from jaxgen.runs.state import keys_of
from jaxgen.training.trainer import Trainer

HOSTILE = '<script>alert("1")</script>&\'"'
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.ids, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.loads.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data


def tiny(dataset: Dataset, train=20, validation=13, test=11) -> Dataset:
    sizes = {"train": train, "validation": validation, "test": test}
    cut = {
        name: Split(s.images[: sizes[name]], s.labels[: sizes[name]])
        for name, s in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=cut)


@pytest.fixture(scope="module", autouse=True)
def keys_name_streams():
    """A run's keys are used on purpose once per batch: example i folds its index in."""
    with jax.debug_key_reuse(False):
        yield


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig())


def trained(model, dataset, directory, name):
    config = TrainConfig(
        steps=4, batch_size=40, log_every=2, eval_every=2, samples=100, devices=1, seed=3
    )
    run = Run(name, model, DataConfig(), config)
    directory.mkdir()
    write_run(directory, record_of(run, dataset))
    score = None
    if run.model.monitor == "frechet":
        _, score = fitted.make_score(run, dataset, directory)
    Trainer(run, dataset, directory, score).train()
    return run, directory


@pytest.fixture(scope="module")
def vae(digits, tmp_path_factory):
    """A finished run with a hostile name, in a directory with a hostile name."""
    model = VAE(digits.spec, hidden=(16,), latents=2, final_k=3)
    run, directory = trained(model, digits, tmp_path_factory.mktemp("vae") / "a <b>&", HOSTILE)
    said = []
    found = finish.finish(run, digits, directory, said.append)
    return run, directory, found, "\n".join(said)


@pytest.fixture(scope="module")
def gan(digits, tmp_path_factory):
    model = GAN(digits.spec, network="mlp", hidden=(16,), latents=4)
    run, directory = trained(model, digits, tmp_path_factory.mktemp("gan") / "run", "gan")
    return run, directory, finish.finish(run, digits, directory, lambda line: None)


def test_likelihood_is_the_mean_over_every_example(digits, tmp_path):
    small = tiny(digits)
    run = Run(
        "vae",
        VAE(digits.spec, hidden=(8,), latents=2, final_k=4),
        DataConfig(),
        TrainConfig(batch_size=4, samples=10, devices=1),
    )
    state = run.model.init(jax.random.key(0))
    found = results.final_results(run, small, make_mesh(1), state, 0, tmp_path)
    model, key = run.model.thorough(), keys_of(0).evaluate
    assert model.k == 4
    step = jax.jit(model.eval_step)
    images = small.splits["test"].images
    assert len(images) % run.train.batch_size, "the last batch must be a partial one"
    each = [
        step(key, state, {"image": images[i : i + 1], "index": np.array([i], np.int32)})
        for i in range(len(images))
    ]
    nll = np.array([float(e["nll"][0]) for e in each])
    ours = found["likelihood"]["model"]
    np.testing.assert_allclose(ours["nats"], nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(ours["nats_se"], nll.std(ddof=1) / math.sqrt(11), rtol=1e-4)
    np.testing.assert_allclose(ours["bits_per_dim"], nll.mean() / math.log(2) / 64, rtol=1e-5)
    ratio = ours["bits_per_dim_se"] / ours["bits_per_dim"]
    np.testing.assert_allclose(ratio, ours["nats_se"] / ours["nats"], rtol=1e-9)
    kl = np.mean([float(e["kl"][0]) for e in each])
    np.testing.assert_allclose(found["metrics"]["kl"]["mean"], kl, rtol=1e-5)
    assert found["images"] == 11 and found["likelihood"]["kind"].endswith("k = 4")


def test_baselines_and_scores_stand_beside_the_model(vae, digits):
    found = vae[2]
    baselines = found["likelihood"]["baselines"]
    # 64 ln 17 and 6.8 bits by hand: the uniform baseline needs no fit.
    np.testing.assert_allclose(baselines["uniform"]["nats"], 64 * math.log(17), rtol=1e-12)
    np.testing.assert_allclose(baselines["uniform"]["bits_per_dim"], math.log2(17), rtol=1e-12)
    assert baselines["mixture"]["nats"] < baselines["factorized"]["nats"] < 110
    assert "train 1000" in found["likelihood"]["protocol"]
    scores = found["scores"]
    assert scores["samples"] == 100 and scores["model"].keys() == scores["floor"].keys()
    # A model of four steps is far from the floor, or the two were swapped.
    assert scores["model"]["frechet"] > 3 * scores["floor"]["frechet"]
    assert "reference=test 447" in scores["protocol"]
    assert len(scores["classes"]["names"]) == len(scores["classes"]["real"]) == 10
    np.testing.assert_allclose(sum(scores["classes"]["samples"]), 1.0)
    assert found["fingerprint"] == digits.fingerprint and found["parameters"] > 1000
    assert found["inspection"]["latents"] == 2


def test_a_model_without_likelihood_has_scores_alone(gan):
    found = gan[2]
    assert found["likelihood"] is None and not (gan[1] / "baselines.npz").exists()
    assert set(found["metrics"]) == {"d_real", "d_fake"} and found["monitor"] == "frechet"
    assert "Fréchet" in tables.text(found) and "nats per image" not in tables.text(found)


def test_score_is_the_distance_to_the_validation_split(gan, digits):
    run, directory, _ = gan
    features, score = fitted.make_score(run, digits, directory)
    validation = digits.splits["validation"].images
    assert abs(score(validation)["frechet"]) < 1e-6
    assert score(np.zeros_like(validation))["frechet"] > 10
    assert features.predict(validation) is not None, "the labels count though it is unconditional"


def test_the_train_split_gets_no_scores(vae, digits):
    run, directory, _, _ = vae
    state = run.model.init(jax.random.key(0))
    found = results.final_results(run, digits, make_mesh(1), state, 0, directory, "train")
    assert found["scores"] is None and found["images"] == 1000


def test_finishing_again_gives_the_same_numbers_and_page(vae, digits, monkeypatch):
    run, directory, _, _ = vae

    def read():
        found = json.loads((directory / "results.json").read_bytes())
        found.pop("seconds")
        return found, (directory / "report.html").read_bytes()

    before = read()
    for name in ("results.json", "report.html", "samples/final.png"):
        (directory / name).unlink()
    # The fits are kept in the run.
    monkeypatch.setattr(fitted, "fit_features", None)
    monkeypatch.setattr(fitted, "fit_baselines", None)
    finish.finish(run, digits, directory, lambda line: None)
    assert read() == before
    assert (directory / "samples" / "final.png").read_bytes().startswith(b"\x89PNG")


def test_damaged_fits_are_made_again(vae, digits):
    directory = vae[1]
    path = directory / "features.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    features = fitted.features_of(digits, directory)
    assert features.examples == 1000 and path.stat().st_size > len(whole) // 2


def test_numbers_come_from_the_best_checkpoint(vae, digits, tmp_path):
    run, directory, found, _ = vae
    rows = [json.loads(x) for x in (directory / "metrics.jsonl").read_text().splitlines()]
    nll = {r["step"]: r["nll"] for r in rows if r["split"] == "validation"}
    assert found["step"] == min(nll, key=nll.get)
    copy = shutil.copytree(directory, tmp_path / "run")
    fresh = Trainer(run, digits, copy, None).fresh()
    with Checkpoints(copy / "checkpoints") as checkpoints:
        assert checkpoints.save(9, fresh, monitor=2 * max(nll.values()))
    again = finish.finish(run, digits, copy, lambda line: None)
    assert again["step"] == found["step"] and again["likelihood"] == found["likelihood"]


def test_page_is_whole_and_loads_nothing(vae, gan):
    # VAE with two latents: samples, real images, two steps, and three grids of inspection.
    for directory, images, svgs in ((vae[1], 4 + 3, 6), (gan[1], 4 + 1, 6)):
        text = (directory / "report.html").read_text()
        page = Page(text)
        assert page.tags.count("img") == images and page.tags.count("svg") == svgs
        assert all(re.match(r"#|data:image/png;base64,", x) for x in page.loads), page.loads
        assert not re.search(r"@import|url\((?!#)|https?://", text)
        assert "script" not in page.tags and len(page.ids) == len(set(page.ids))
        assert "nan" not in page.text.lower().split()


def test_page_escapes_what_the_user_named(vae):
    text = (vae[1] / "report.html").read_text()
    assert "<script" not in text and "a <b>" not in text
    page = Page(text)
    assert HOSTILE in page.text
    # The commands can be pasted, whatever the directory is called.
    assert f"jaxgen sample --run='{vae[1]}'" in page.text
    assert "jaxgen interpolate" in page.text and "jaxgen complete" not in page.text


def test_table_names_units_and_protocol(vae):
    said = vae[3]
    for words in ("nats per image", "bits per dimension", "k = 3", "mixture", "447", "floor"):
        assert words in said
    assert re.search(r"factorized +\d+\.\d+ ± 0\.\d\d ", said)


@pytest.mark.parametrize(
    "mean, se, shown",
    [
        (93.1234, 0.456, "93.12 ± 0.46"),
        (2.09876, 0.00951, "2.0988 ± 0.0095"),
        (1234.5, 67.8, "1234 ± 68"),
        (181.3257, 1e-15, "181.3"),
        (-3.0, 0.0, "-3"),
        (0.0, 0.0, "0"),
        (None, None, "not finite"),
    ],
)
def test_spread(mean, se, shown):
    assert tables.spread(mean, se) == shown


def test_results_that_are_not_finite_are_null_in_json(tmp_path):
    found = results._finite({"a": {"b": float("nan"), "c": 1.0}, "d": "text"})
    write_json(tmp_path / "r.json", found)
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "a": {"b": None, "c": 1.0},
        "d": "text",
    }


def test_curves_group_what_belongs_together_and_survive_gaps():
    rows = [
        {"step": 1, "split": "train", "d_loss": 1.0, "g_loss": 2.0, "new": 0.5, "skipped": 0},
        {"step": 2, "split": "train", "d_loss": None, "g_loss": 1.0, "new": 0.4, "skipped": 1},
        {"step": 2, "split": "validation", "frechet": None},
    ]
    drawn = charts.curves(rows, "frechet", 2)
    titles = [title for title, _ in drawn]
    assert titles == [METRICS["frechet"], "losses of the two players", "new"]
    assert all("D train" in svg and "G train" in svg for title, svg in drawn[1:2])
    assert drawn == charts.curves(rows, "frechet", 2)


def test_page_shows_every_picture_of_an_inspection(vae, digits, tmp_path):
    run, directory, found, _ = vae
    images = digits.splits["test"].images[:6]
    shown = Inspection(
        {},
        {"one & two": images.reshape(2, 3, 8, 8, 1)},
        {"heat": np.array([[[[0.0, 1.5], [float("nan"), 4.0]]]])},
    )
    for name in ("run.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    path = page.write_report(tmp_path, run, found, images, images, shown)
    shown_page = Page(path.read_text())
    assert shown_page.tags.count("img") == 2 + 2 and "one & two" in shown_page.text
    assert "0 (dark) to 4 (light)" in shown_page.text
