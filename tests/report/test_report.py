"""The numbers of a finished run against plain loops, and its page as a browser would read it."""

import dataclasses
import json
import math
import re
import shlex
import shutil
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import shared_by_trainers
from networks import filled
from scipy.special import logsumexp
from tiny import some

from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import load
from jaxgen.data.splits import Split
from jaxgen.errors import UserError
from jaxgen.evaluation import fitted, scores
from jaxgen.evaluation.last import Last
from jaxgen.evaluation.results import Results, final_results
from jaxgen.evaluation.sample_scores import Scores, sample_scores
from jaxgen.evaluation.subject import Subject
from jaxgen.model import Metric
from jaxgen.models.adversarial.gan import GAN
from jaxgen.models.latent.vae import VAE
from jaxgen.parallel.mesh import make_mesh
from jaxgen.report import charts, finish
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
        name: Split.of(s.x[: sizes[name]], s.label[: sizes[name]])
        for name, s in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=cut)


@pytest.fixture(scope="module", autouse=True)
def keys_name_streams():
    """A run's keys are used on purpose once per batch: example i folds its index in."""
    with jax.debug_key_reuse(False):
        yield


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    with shared_by_trainers():
        yield


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig())


def trained(model, dataset, directory, name):
    config = TrainConfig(
        steps=4, batch_size=40, log_every=2, eval_every=2, samples=100, devices=1, seed=3, draws=3
    )
    run = Run(name, model, DataConfig(), config)
    directory.mkdir()
    write_run(directory, record_of(run, dataset))
    score = None
    if run.model.monitor not in run.model.metrics:
        _, score = fitted.make_score(run, dataset, directory)
    Trainer(run, dataset, directory, score).train()
    return run, directory


def commands(run, directory):
    return [f"jaxgen sample --run={shlex.quote(str(directory))}", "jaxgen <i>dream</i>"]


@pytest.fixture(scope="module")
def vae(digits, tmp_path_factory):
    """A finished run with a hostile name, in a directory with a hostile name."""
    model = VAE(digits.spec, hidden=(16,), latents=2)
    run, directory = trained(model, digits, tmp_path_factory.mktemp("vae") / "a <b>&", HOSTILE)
    said = []
    results = finish.finish(run, digits, directory, said.append, commands)
    return run, directory, results.to_json(), "\n".join(said)


@pytest.fixture(scope="module")
def gan(digits, tmp_path_factory):
    model = GAN(digits.spec, architecture="mlp", hidden=(16,), latents=4)
    run, directory = trained(model, digits, tmp_path_factory.mktemp("gan") / "run", "gan")
    said = []
    results = finish.finish(run, digits, directory, said.append)
    return run, directory, results.to_json(), "\n".join(said)


def test_likelihood_is_the_mean_over_every_example(digits, tmp_path):
    small = tiny(digits)
    run = Run(
        "vae",
        VAE(digits.spec, hidden=(8,), latents=2),
        DataConfig(),
        TrainConfig(batch_size=4, samples=10, devices=1, draws=4),
    )
    model, key = run.model, keys_of(0).evaluate
    state = filled(model, model.spec.example(1))
    found = final_results(Subject.of(run, small, make_mesh(1), state, 0, tmp_path)).to_json()
    images = small.splits["test"].x
    assert len(images) % run.train.batch_size, "the last batch must be a partial one"
    alone = [{"x": images[i : i + 1], "index": np.array([i])} for i in range(len(images))]

    @jax.jit
    def numbers(batch):
        """The weights of four draws, and the divergence, of one image."""
        weights = [model.log_weight(jax.random.fold_in(key, k), state, batch) for k in range(4)]
        return jnp.stack(weights)[:, 0], model.eval_step(key, state, batch)["kl"][0]

    weights, kls = (np.float64(x) for x in zip(*map(numbers, alone), strict=True))
    nll = np.log(4) - logsumexp(weights, axis=1)
    ours = found["likelihood"]["model"]
    np.testing.assert_allclose(ours["nats"], nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(ours["nats_se"], nll.std(ddof=1) / math.sqrt(11), rtol=1e-4)
    np.testing.assert_allclose(ours["bits_per_dim"], nll.mean() / math.log(2) / 64, rtol=1e-5)
    ratio = ours["bits_per_dim_se"] / ours["bits_per_dim"]
    np.testing.assert_allclose(ratio, ours["nats_se"] / ours["nats"], rtol=1e-9)
    np.testing.assert_allclose(found["metrics"]["kl"]["mean"], kls.mean(), rtol=1e-5)
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
    found, said = gan[2:]
    assert found["likelihood"] is None and not (gan[1] / "baselines.npz").exists()
    judged = {"d_real", "d_fake", "d_logit", "d_logit_fake"}
    assert set(found["metrics"]) == judged and found["monitor"] == "frechet"
    assert "Fréchet" in said and "nats per image" not in said


def test_score_is_the_distance_to_the_validation_split(gan, digits):
    run, directory, _, _ = gan
    features, score = fitted.make_score(run, digits, directory)
    validation = digits.splits["validation"].x
    assert abs(score(validation)["frechet"]) < 1e-6
    assert score(np.zeros_like(validation))["frechet"] > 10
    assert features.predict(validation) is not None, "the labels count though it is unconditional"


def test_the_train_split_gets_no_scores_and_that_is_said(vae, digits):
    run, directory, _, _ = vae
    state = filled(run.model, digits.spec.example(1))
    subject = Subject.of(run, digits, make_mesh(1), state, 0, directory, "train")
    found = final_results(subject).to_json()
    assert found["scores"]["model"] == {} and found["images"] == 1000
    assert found["scores"]["protocol"].startswith("left out: the train split is")


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
    finish.finish(run, digits, directory, lambda line: None, commands)
    assert read() == before
    assert (directory / "samples" / "final.png").read_bytes().startswith(b"\x89PNG")


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def thin(path):
    """Half of the numbers in every array of numbers; the file itself is sound."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file}
    np.savez(path, **{n: a[: len(a) // 2] if a.ndim else a for n, a in arrays.items()})


def unknown(path):
    """Arrays of NaN."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file}
    np.savez(path, **{n: a * np.nan if a.dtype.kind == "f" else a for n, a in arrays.items()})


@pytest.mark.parametrize("damage", some([half, thin, unknown], [thin]))
def test_damaged_fits_are_made_again_and_that_is_told(vae, digits, damage, tmp_path, capfd):
    x = digits.splits["test"].x

    def embedded():
        return fitted.features_of(digits, tmp_path).embed(x)

    def baseline():
        return fitted.baselines_of(digits, tmp_path).nll(x)["mixture"]

    for name, make in (("features.npz", embedded), ("baselines.npz", baseline)):
        path = tmp_path / name
        shutil.copy(vae[1] / name, path)
        before = make()
        assert capfd.readouterr().err == ""
        damage(path)
        np.testing.assert_array_equal(make(), before)
        err = capfd.readouterr().err
        assert f"{path} is damaged" in err and "is made again" in err and err.count("\n") == 1
        np.testing.assert_array_equal(make(), before)
        assert capfd.readouterr().err == ""


def test_odd_files_in_a_run_do_not_stop_its_report(vae, digits, tmp_path):
    run, directory, _, _ = vae
    copy = shutil.copytree(directory, tmp_path / directory.name)
    (copy / "samples" / "step_x.png").write_text("")
    (copy / "samples" / "step_0000003.png").mkdir()
    with open(copy / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": "x", "split": "train"}\n' + b"[" * 100_000 + b"\n")
    finish.finish(run, digits, copy, lambda line: None, commands)
    before, after = (Page((d / "report.html").read_text()) for d in (directory, copy))
    assert after.tags == before.tags and after.text == before.text.replace(
        str(directory), str(copy)
    )
    (copy / "results.json").unlink()
    (copy / "results.json").mkdir()
    with pytest.raises(UserError, match="--run=.*results.json"):
        finish.finish(run, digits, copy, lambda line: None, commands)


def test_numbers_come_from_the_best_checkpoint(vae, digits, tmp_path, monkeypatch):
    run, directory, found, _ = vae
    rows = [json.loads(x) for x in (directory / "metrics.jsonl").read_text().splitlines()]
    nll = {r["step"]: r["nll"] for r in rows if r["split"] == "validation"}
    assert found["step"] == min(nll, key=nll.get)
    copy = shutil.copytree(directory, tmp_path / "run")
    fresh = Trainer(run, digits, copy, None).fresh()
    with Checkpoints(copy / "checkpoints") as checkpoints:
        assert checkpoints.save(9, fresh, monitor=2 * max(nll.values()))
    monkeypatch.setattr(finish, "write_report", lambda *args: None)
    again = finish.finish(run, digits, copy, lambda line: None).to_json()
    assert again["step"] == found["step"] and again["likelihood"] == found["likelihood"]


def test_the_last_checkpoint_stands_beside_the_best(gan, digits, tmp_path):
    """A game's; where it is the best, that is said, and nothing is measured twice."""
    run, directory, found, said = gan
    copy = shutil.copytree(directory, tmp_path / "run")
    with Checkpoints(copy / "checkpoints") as checkpoints:
        best = checkpoints.best()
        other = Trainer(run, digits, copy, None).fresh()
        assert checkpoints.save(9, other, monitor=1e9)
    results = finish.finish(run, digits, copy, lambda line: None)
    again, page = results.to_json(), (copy / "report.html").read_text()
    assert again["step"] == found["step"] == best and again["scores"] == found["scores"]
    assert again["last"]["step"] == 9 and again["last"]["translation"] is None
    assert again["last"]["scores"]["floor"] == found["scores"]["floor"]
    assert f"At the last step, 9, not the chosen {best}: 100 samples against" in page
    # It is the other one's own: what measuring that checkpoint alone gives.
    mesh = finish.make_mesh(1)
    alone = finish.Subject.of(run, digits, mesh, other.state, 9, copy)
    assert results.get(Last).scores == sample_scores(alone)
    assert results.get(Last).scores.model != results.get(Scores).model
    assert Results.from_json(again) == results
    with Checkpoints(copy / "checkpoints") as checkpoints:
        assert checkpoints.save(10, other, monitor=-1.0)
    again = finish.finish(run, digits, copy, lambda line: None)
    assert again.get(Last) == Last(10, None, None)
    assert "the best, which is the last" in (copy / "report.html").read_text()


def test_page_is_whole_and_loads_nothing(vae, gan):
    # Samples, real data and two steps; then what each is able to do and what it shows of itself.
    for where, able in ((vae[1], 4), (gan[1], 1)):
        text = (where / "report.html").read_text()
        page = Page(text)
        assert page.tags.count("img") >= 4 + able and page.tags.count("svg") >= 4
        assert all(re.match(r"#|data:image/png;base64,", x) for x in page.loads), page.loads
        assert not re.search(r"@import|url\((?!#)|https?://", text)
        assert "script" not in page.tags and len(page.ids) == len(set(page.ids))
        assert "nan" not in page.text.lower().split()
    assert "Reconstructions" in (vae[1] / "report.html").read_text()


def test_page_escapes_what_the_user_named(vae):
    text = (vae[1] / "report.html").read_text()
    assert "<script" not in text and "a <b>" not in text and "<i>" not in text
    page = Page(text)
    assert HOSTILE in page.text
    # The commands can be pasted, whatever the directory is called.
    assert f"jaxgen sample --run='{vae[1]}'\njaxgen <i>dream</i>" in page.text


def test_a_page_without_commands_does_not_ask_for_any(gan):
    assert "Use it" not in Page((gan[1] / "report.html").read_text()).text


def test_table_names_units_and_protocol(vae):
    said = vae[3]
    for words in ("nats per image", "bits per dimension", "k = 3", "mixture", "447", "floor"):
        assert words in said
    assert re.search(r"factorized +\d+\.\d+ ± 0\.\d\d ", said)


def test_curves_group_what_belongs_together_and_survive_gaps():
    rows = [
        {"step": 1, "split": "train", "d_loss": 1.0, "g_loss": 2.0, "new": 0.5, "skipped": 0},
        {"step": 2, "split": "train", "d_loss": None, "g_loss": 1.0, "new": 0.4, "skipped": 1},
        {"step": 2, "split": "train", "d_grad_norm": 3.0, "g_grad_norm": 4.0, "grad_norms": 5.0},
        {"step": 2, "split": "validation", "frechet": None},
    ]
    metrics = {
        "d_loss": Metric("loss of D", chart="both losses", curve="D"),
        "g_loss": Metric("loss of G", chart="both losses", curve="G"),
        **scores.METRICS,
    }
    drawn = charts.curves(rows, metrics, "frechet", 2)
    titles = [title for title, _ in drawn]
    groups = ["both losses", "new", "norm of gradients", "grad_norms"]
    assert titles == [str(scores.METRICS["frechet"]), *groups]
    for i in (1, 3):
        assert "D train" in drawn[i][1] and "G train" in drawn[i][1]
    assert drawn == charts.curves(rows, metrics, "frechet", 2)
