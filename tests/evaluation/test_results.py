"""What is measured of a trained model, against plain loops and closed forms; JSON and back."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import Linear
from scipy.special import logsumexp
from scipy.stats import norm
from toys import PLANE, Blob, Codes, Growing

from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import SPLITS, Split
from jaxgen.evaluation import results, subject
from jaxgen.evaluation.across_seeds import summarize
from jaxgen.evaluation.decoding import Decoded, decoding
from jaxgen.evaluation.encoding import finite, from_json, to_json
from jaxgen.evaluation.fitted import baselines_of, features_of
from jaxgen.evaluation.inspection import Inspected
from jaxgen.evaluation.likelihood import Likelihood, likelihood
from jaxgen.evaluation.means import Means, means
from jaxgen.evaluation.measures import MEASURES
from jaxgen.evaluation.probe import Parts, components
from jaxgen.evaluation.results import KINDS, Results, final_results
from jaxgen.evaluation.sample_scores import Scores, sample_scores
from jaxgen.evaluation.sections import Mean, shown
from jaxgen.evaluation.subject import Subject
from jaxgen.files import write_json
from jaxgen.media import kinds
from jaxgen.media.points import in_units
from jaxgen.model import Model
from jaxgen.parallel.mesh import make_mesh
from jaxgen.report.tables import text
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.state import keys_of
from jaxgen.spec import DataSpec

IMAGES = DataSpec(4, 4, levels=5)


@pytest.fixture(scope="module", autouse=True)
def keys_name_streams():
    """A run's keys are used on purpose once per batch: example i folds its index in."""
    with jax.debug_key_reuse(False):
        yield


from_float = jax.jit(lambda spec, x: spec.from_float(x), static_argnums=0)


def dataset_of(spec, num=70):
    """Data that are easily told apart from noise, with three labels."""
    rng = np.random.default_rng(0)
    splits = {}
    for name in SPLITS:
        label = np.arange(num, dtype=np.int32) % 3
        x = 0.6 * np.sin(2.0 * label[:, None] + np.arange(spec.dims))
        x = np.clip(x + rng.normal(0, 0.2, x.shape), -1, 1).reshape(num, *spec.shape)
        x = np.asarray(from_float(spec, np.float32(x)))
        splits[name] = Split.of(x, label)
    return Dataset("waves", spec, splits, tuple("abc"), "0f", "made up")


def subject_of(
    model, directory, dataset=None, step=4, devices=1, split="test", **config
) -> Subject:
    dataset = dataset_of(model.spec) if dataset is None else dataset
    train = TrainConfig(**{"batch_size": 16, "samples": 40, "draws": 30, "seed": 3, **config})
    state = jax.jit(model.init)(jax.random.key(0), model.spec.example(1))
    run = Run("toy", model, DataConfig(), train)
    return Subject.of(run, dataset, make_mesh(devices), state, step, directory, split)


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A subject of a model that can do everything, and its results."""
    model = Linear(IMAGES, latents=3, slack=1.2)
    measured = subject_of(model, tmp_path_factory.mktemp("linear"))
    return measured, final_results(measured)


def test_a_bound_stands_beside_the_baselines(linear):
    measured, found = linear
    section, model = found.get(Likelihood), measured.model
    x = measured.data.x
    batch = {"x": x, "index": np.arange(len(x))}
    key, params = keys_of(3).evaluate, measured.state.ema["params"]
    one = jax.jit(lambda i: model._log_weight(jax.random.fold_in(key, i), params, batch))
    weights = np.float64([one(i) for i in range(30)])
    nll = math.log(30) - logsumexp(weights, axis=0)
    assert section.kind == "importance-weighted bound, k = 30"
    np.testing.assert_allclose(section.model.nats, nll.mean(), rtol=1e-4)
    np.testing.assert_allclose(section.model.nats_se, nll.std(ddof=1) / 70**0.5, rtol=1e-3)
    bits = section.model.nats / (16 * math.log(2))
    np.testing.assert_allclose(section.model.bits_per_dim, bits, rtol=1e-9)
    assert [d.k for d in section.bounds] == [1, 5, 30]
    nats = [d.nll.nats for d in section.bounds]
    assert nats[0] > nats[1] > nats[2] == section.model.nats
    np.testing.assert_allclose(nats[0], -np.mean(weights[0]), rtol=1e-4)
    effective = [d.effective for d in section.bounds]
    assert effective[0] == pytest.approx(1) and 1 < effective[1] < effective[2] < 30
    np.testing.assert_allclose(section.baselines["uniform"].nats, 16 * math.log(5), rtol=1e-12)
    assert section.baselines["mixture"].nats < section.baselines["factorized"].nats
    assert "train 70" in section.protocol and section.unit == "nats per image"


def test_one_draw_is_called_what_the_model_calls_it(tmp_path):
    section = likelihood(subject_of(Linear(IMAGES), tmp_path, draws=1))
    assert section.kind == "the plain bound" and len(section.tables(ABOUT)) == 1
    given = dataclasses.replace(IMAGES, num_classes=3)
    labelled = subject_of(Linear(given), tmp_path, draws=1)
    assert likelihood(labelled).kind == "the plain bound, given the label"
    assert sample_scores(labelled).protocol.endswith("; samples of every class in turn")


def test_an_exact_likelihood_of_points_is_in_their_own_units(tmp_path):
    spec = dataclasses.replace(PLANE, ranges=((-3.0, 3.0), (0.0, 10.0)))
    measured = subject_of(Blob(spec), tmp_path)
    section = likelihood(measured)
    assert section.kind == "exact" and section.unit == "nats per point, in the data's own units"
    assert section.bounds == () and section.truth is None
    assert section.baselines["mixture"].nats < section.baselines["normal"].nats
    # The normal of the arrays has deviation 1 around 0: in its own units 3 and 5, around 0 and 5.
    points = in_units(measured.data.x, spec)
    nll = -(norm(0, 3).logpdf(points[:, 0]) + norm(5, 5).logpdf(points[:, 1]))
    np.testing.assert_allclose(section.model.nats, nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(section.model.nats_se, nll.std(ddof=1) / 70**0.5, rtol=1e-5)
    assert measured.metrics["nll"].unit == "nats per point"
    # What is fitted knows the mean and the deviations, and the points lie within their ranges.
    assert section.baselines["normal"].nats < min(math.log(60), section.model.nats)
    # In bins, the baselines are densities over the same units: the uniform one is 1 / area.
    (tmp_path / "binned").mkdir()
    binned = likelihood(
        subject_of(Linear(dataclasses.replace(spec, levels=8)), tmp_path / "binned")
    )
    np.testing.assert_allclose(binned.baselines["uniform"].nats, math.log(60), rtol=1e-9)


@pytest.mark.parametrize("levels", [0, 64])
def test_a_true_density_stands_beside_the_others(levels, tmp_path):
    spec = dataclasses.replace(PLANE, levels=levels)
    truth = lambda points: norm(0.2, 1.0).logpdf(points).sum(-1)  # noqa: E731
    points = np.random.default_rng(0).normal(0.2, 1.0, (400, 2)).clip(-2.9, 2.9)
    x = (points / 3).astype(np.float32)[:, None, None]
    x = np.floor((x + 1) * levels / 2).astype(np.uint8) if levels else x
    splits = dict.fromkeys(SPLITS, Split.of(x))
    known = Dataset("normal", spec, splits, (), "0f", "made up", density=truth)
    section = likelihood(subject_of(Linear(spec), tmp_path, known))
    np.testing.assert_allclose(section.truth.nats, -truth(points).mean(), rtol=1e-3)
    table = section.tables(ABOUT)[0]
    assert table.rows[-1][0] == "the true density"
    # Its own entropy, of a normal in the plane: 1 + ln(2 pi) nats.
    assert abs(section.truth.nats - 1 - math.log(2 * math.pi)) < 4 * section.truth.nats_se
    # What is fitted comes near it, in the same units.
    fitted = section.baselines["factorized" if levels else "normal"].nats
    assert abs(fitted - section.truth.nats) < (0.5 if levels else 0.05)
    assert "true" not in section.headlines(ABOUT)[-1].label


def test_everything_else_is_a_mean(linear):
    measured, found = linear
    section = found.get(Means)
    assert list(section.values) == ["elbo", "error"]
    x = measured.data.x
    # An example at a time: the batch of 16 does not divide the split.
    alone = [{"x": x[i : i + 1], "index": np.array([i])} for i in range(len(x))]
    step, key = jax.jit(measured.model.eval_step), keys_of(3).evaluate
    each = [np.asarray(step(key, measured.state, batch)["error"])[0] for batch in alone]
    error = section.values["error"]
    np.testing.assert_allclose(error.mean, np.mean(each), rtol=1e-4)
    np.testing.assert_allclose(error.se, np.std(each, ddof=1) / 70**0.5, rtol=1e-3)
    assert (error.label, error.unit, error.better) == ("squared error", "per example", "lower")


def test_scores_stand_beside_their_floor(linear):
    section = linear[1].get(Scores)
    assert section.samples == 40 and section.model.keys() == section.floor.keys()
    assert section.model["frechet"] > 3 * section.floor["frechet"]
    assert "reference=test 70 of 70, samples=40 of 40" in section.protocol
    assert section.classes.names == ("a", "b", "c")
    np.testing.assert_allclose(sum(section.classes.samples), 1)
    assert linear[1].get(Inspected).values == {"examples": 70.0}


def test_who_cannot_sample_has_no_scores_and_who_has_no_density_no_likelihood(tmp_path):
    found = final_results(subject_of(Codes(IMAGES), tmp_path))
    assert [type(s) for s in found.sections] == [Decoded, Means, Inspected]
    as_json = found.to_json()
    assert as_json["likelihood"] is None and as_json["scores"] is None
    assert list(as_json["metrics"]) == ["error"] and as_json["inspection"] == {}
    assert Results.from_json(json.loads(json.dumps(as_json))) == found
    of_train = sample_scores(subject_of(Linear(IMAGES), tmp_path, split="train"))
    assert of_train.samples == 0 and "left out: the train split" in of_train.protocol


def test_what_codes_decode_to_stands_beside_principal_components(tmp_path):
    """Of the train split, by their own definition: the eigenvectors of its covariance."""
    waves = dataset_of(IMAGES)
    waves.splits["train"] = Split.of(*(a[:60] for a in waves.splits["train"].columns.values()))
    measured = subject_of(Codes(IMAGES), tmp_path, waves)
    found = decoding(measured)
    train, test = (
        np.float64(measured.dataset.splits[name].x) / 2 - 1  # of 5 levels
        for name in ("train", "test")
    )
    train, test = train.reshape(60, -1), test.reshape(70, -1)
    middle = train.mean(0)
    top = np.linalg.eigh(np.cov(train.T))[1][:, -found.size :]
    left = (test - middle) - (test - middle) @ top @ top.T
    errors = (left**2).sum(1)
    np.testing.assert_allclose(found.by_components.mean, errors.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.by_components.se, errors.std(ddof=1) / 70**0.5, rtol=1e-6)
    np.testing.assert_allclose(found.by_mean.mean, ((test - middle) ** 2).sum(1).mean(), rtol=1e-6)
    own = IMAGES.dims * float(np.mean(measured.values["error"]))  # the toy takes the mean
    np.testing.assert_allclose(found.model.mean, own, rtol=1e-5)
    assert found.components == found.size == 4 and found.by_components.mean < found.by_mean.mean
    assert from_json(Decoded, json.loads(json.dumps(to_json(found)))) == found
    # A likelihood says more; and who encodes nothing decodes nothing.
    assert decoding(subject_of(Linear(IMAGES), tmp_path)) is None


@pytest.mark.filterwarnings("error")
def test_constant_data_have_components_without_a_warning(tmp_path):
    constant = dataset_of(IMAGES)
    for name, split in constant.splits.items():
        constant.splits[name] = Split.of(np.full_like(split.x, 3), split.label)
    found = decoding(subject_of(Codes(IMAGES), tmp_path, constant))
    assert found.by_components.mean < 1e-9 and found.by_mean.mean < 1e-9
    raw = Parts(*(np.full((20, 6), 2.0) for _ in range(3)))
    np.testing.assert_allclose(components(raw, 3).test, 0, atol=1e-9)


def test_scores_that_are_left_out_say_so(tmp_path):
    tiny = dataset_of(IMAGES)
    tiny.splits["test"] = Split.of(*(a[:4] for a in tiny.splits["test"].columns.values()))
    found = final_results(subject_of(Linear(IMAGES), tmp_path, tiny))
    assert found.get(Scores).model == {} and found.get(Scores).classes is None
    assert "left out: they need more than 5 of each, and there are 4 test examples" in text(found)
    assert Results.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("fitted", [features_of, baselines_of])
def test_what_was_fitted_to_other_data_of_the_same_shape_is_made_again(fitted, tmp_path, capfd):
    data = dataset_of(IMAGES)
    mine = fitted(data, tmp_path)
    [path] = tmp_path.glob("*.npz")
    before = path.read_bytes()
    assert "made again" not in capfd.readouterr().err
    other = dataclasses.replace(data, fingerprint="of other data")
    fitted(other, tmp_path)
    assert "was fitted to other data than the run's, and is made again" in capfd.readouterr().err
    assert path.read_bytes() != before
    again = fitted(data, tmp_path)
    assert "made again" in capfd.readouterr().err and path.read_bytes() == before
    fitted(data, tmp_path)
    assert not capfd.readouterr().err and type(mine) is type(again)


def test_samples_that_are_not_finite_are_left_out(tmp_path):
    class Odd(Blob):
        def sample(self, key, state, num, *args):
            x = super().sample(key, state, num, *args)
            return x.at[::3].set(jnp.nan)

    section = sample_scores(subject_of(Odd(PLANE), tmp_path))
    assert section.samples == 26 and section.protocol.endswith(
        "14 samples that are not finite are left out"
    )
    assert all(x is not None for x in section.model.values())


def test_a_checkpoint_is_judged_by_the_model_that_made_its_last_step(tmp_path):
    growing = Growing(IMAGES, grow_at=5)
    assert [subject_of(growing, tmp_path, step=s).model.grown for s in (0, 1, 5, 6)] == [
        *(False, False, False, True)
    ]  # fmt: skip


def test_samples_are_drawn_once_and_the_model_is_inspected_once(tmp_path, monkeypatch):
    calls = []
    draw = subject.inference.draw
    monkeypatch.setattr(subject.inference, "draw", lambda *a: calls.append("draw") or draw(*a))

    class Watched(Linear):
        def inspect(self, key, state, batch):
            calls.append(f"inspect {len(batch['x'])}")
            return super().inspect(key, state, batch)

    measured = subject_of(Watched(IMAGES), tmp_path)
    final_results(measured)
    assert len(measured.samples) == kinds.ROOM["image"] and measured.inspection.numbers
    assert sorted(calls) == ["draw", "inspect 70"]
    many = dataset_of(IMAGES, 3 * subject.INSPECTED)
    calls.clear()
    assert subject_of(Watched(IMAGES), tmp_path, many).inspection.numbers["examples"] == 100
    assert calls == ["inspect 100"]


def test_devices_change_nothing_but_rounding(linear, tmp_path):
    other = final_results(subject_of(Linear(IMAGES, latents=3, slack=1.2), tmp_path, devices=4))
    for ours, theirs in zip(linear[1].sections, other.sections, strict=True):
        pairs = [(n.value, theirs.numbers()[name].value) for name, n in ours.numbers().items()]
        np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-3, atol=0.05)


# JSON.


def test_results_come_back_from_json_exactly(linear):
    found = linear[1]
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Results.from_json(json.loads(text)) == found
    assert Results.from_json(json.loads(text)).to_json() == found.to_json()


def test_the_file_is_what_it_was(linear):
    """The keys that readers of results.json rely on."""
    found = linear[1].to_json()
    assert {
        *("model", "parameters", "step", "monitor", "seed", "dataset", "protocol", "fingerprint"),
        *("split", "images", "likelihood", "metrics", "scores", "inspection", "seconds"),
    } <= set(found)
    nats = {"nats", "nats_se", "bits_per_dim", "bits_per_dim_se"}
    likelihood = found["likelihood"]
    assert {"kind", "model", "baselines", "protocol", "truth", "bounds"} <= set(likelihood)
    assert set(likelihood["model"]) == set(likelihood["baselines"]["uniform"]) == nats
    assert {"mean", "se"} <= set(found["metrics"]["elbo"])
    assert set(found["scores"]) == {"samples", "model", "floor", "protocol", "classes"}
    assert set(found["scores"]["classes"]) == {"names", "real", "samples"}
    assert found["inspection"] == {"examples": 70.0}


def test_what_is_not_finite_is_null(tmp_path):
    @dataclass(frozen=True)
    class Tree:
        a: Any
        b: tuple[Mean, ...] = ()

    found = finite(Tree({"b": math.nan, "c": 1.0, "d": "text"}, (Mean(math.inf, 2.0),)))
    assert found == Tree({"b": None, "c": 1.0, "d": "text"}, (Mean(None, 2.0),))
    write_json(tmp_path / "r.json", to_json(found))
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "a": {"b": None, "c": 1.0, "d": "text"},
        "b": [{"mean": None, "se": 2.0}],
    }
    assert from_json(tuple[Mean, ...], [{"mean": None, "se": 2.0}]) == found.b


def test_a_model_that_broke_down_still_has_results(tmp_path):
    measured = subject_of(Linear(IMAGES), tmp_path)
    broken = jax.tree.map(lambda x: np.full(x.shape, np.nan, x.dtype), measured.state)
    found = final_results(dataclasses.replace(measured, state=broken))
    assert found.get(Likelihood).model.nats is None
    assert found.get(Means).values["elbo"].mean is None
    assert Results.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    assert "not finite" in {
        shown(c) for t in found.get(Likelihood).tables(found.about) for r in t.rows for c in r
    }


@pytest.mark.filterwarnings("error")
def test_one_example_has_a_mean_and_no_error(tmp_path):
    model = Linear(IMAGES)
    data = dataset_of(IMAGES)
    one = Split(data.splits["test"].take(slice(1)))
    data = dataclasses.replace(data, splits={**data.splits, "test": one})
    found = final_results(subject_of(model, tmp_path, data))
    section = found.get(Likelihood)
    assert section.model.nats_se is None and math.isfinite(section.model.nats)
    assert found.to_json()["likelihood"]["model"]["nats_se"] is None
    ours, _ = section.tables(found.about)
    assert ours.title == "Likelihood on the test split, one image; lower is better"
    assert "±" not in str(ours.note) + "".join(shown(c) for row in ours.rows for c in row)
    assert shown(ours.rows[0][1]) == shown(section.model.nats)


def test_every_measure_says_what_it_returns():
    assert len(KINDS) == len(MEASURES) == len({kind.name for kind in KINDS})


@pytest.mark.parametrize(
    "cell, text",
    [
        (Mean(93.1234, 0.456), "93.12 ± 0.46"),
        (Mean(2.09876, 0.00951), "2.0988 ± 0.0095"),
        (Mean(1234.5, 67.8), "1234 ± 68"),
        (Mean(181.3257, 1e-15), "181.3"),
        (Mean(-3.0, 0.0), "-3"),
        (Mean(0.0, 0.0), "0"),
        (Mean(None, None), "not finite"),
        (Mean(1.5, None), "1.5"),  # over one example
        (None, "not finite"),
        (0.123456, "0.1235"),
        (10.0, "10"),
        (-4e91, "-4e+91"),
        (7, "7"),
        ("as it is", "as it is"),
    ],
)
def test_how_numbers_are_shown(cell, text):
    assert shown(cell) == text


# Several seeds.


def seeds_of(results: Results, values: list[float | None]) -> list[Results]:
    """The same results with another ELBO for each seed."""
    means = results.get(Means)
    made = []
    for seed, value in enumerate(values):
        elbo = dataclasses.replace(means.values["elbo"], mean=value)
        changed = dataclasses.replace(means, values={**means.values, "elbo": elbo})
        sections = tuple(changed if s is means else s for s in results.sections)
        about = dataclasses.replace(results.about, seed=seed, step=10 * seed)
        made.append(dataclasses.replace(results, about=about, sections=sections))
    return made


def test_seeds_have_mean_and_deviation(linear):
    summary = summarize(seeds_of(linear[1], [1.0, 2.0, 6.0]))
    elbo = summary.to_json()["metrics"]["elbo"]
    assert elbo["values"] == [1.0, 2.0, 6.0] and elbo["mean"] == 3.0
    np.testing.assert_allclose(elbo["std"], np.std([1, 2, 6], ddof=1), rtol=1e-12)
    found = summary.to_json()
    assert found["seeds"] == [0, 1, 2] and found["steps"] == [0, 10, 20]
    assert set(found["likelihood"]) == {"nats", "bits_per_dim"}
    assert set(found["scores"]) == set(linear[1].get(Scores).model)
    assert found["inspection"]["examples"]["std"] == 0.0
    rows = {row[0]: row[1:] for row in summary.table().rows}
    assert rows["evidence bound (nats per image)"] == (Mean(3.0, elbo["std"]), "1, 2, 6")


def test_a_number_that_is_not_finite_has_no_mean(linear):
    found = summarize(seeds_of(linear[1], [2.0, None])).to_json()["metrics"]["elbo"]
    assert (found["mean"], found["std"], found["values"]) == (None, None, [2.0, None])


def test_a_number_that_one_seed_lacks_has_no_mean(linear):
    """As where all samples of one seed are not finite."""
    both = seeds_of(linear[1], [1.0, 2.0])
    for lacking in (0, 1):
        kept = tuple(s for s in both[0].sections if not isinstance(s, Scores))
        results = [dataclasses.replace(r, sections=kept) if i == lacking else r
                   for i, r in enumerate(both)]  # fmt: skip
        found = summarize(results).to_json()["scores"]
        assert found["frechet"]["mean"] is None
        assert (
            found["frechet"]["values"][lacking]
            is None
            is not found["frechet"]["values"][1 - lacking]
        )


def test_a_section_that_no_seed_has_is_empty(tmp_path):
    found = summarize(seeds_of_codes(tmp_path)).to_json()
    assert found["likelihood"] == {} == found["scores"] and "error" in found["metrics"]


def seeds_of_codes(directory):
    found = final_results(subject_of(Codes(IMAGES), directory))
    about = dataclasses.replace(found.about, seed=4)
    return [found, dataclasses.replace(found, about=about)]


ABOUT = results.About(
    "toy", 1, 2, "nll", 0, "waves", "made up", "0f", "test", images=70, datum="image"
)


def test_a_density_that_only_training_measures_is_no_likelihood(tmp_path):
    class Silent(Blob):
        metrics: ClassVar = Blob.metrics

        def eval_step(self, key, state, batch):
            return {"other": batch["x"].sum((1, 2, 3))}

    assert isinstance(Silent(PLANE), Model)
    measured = subject_of(Silent(PLANE), tmp_path)
    assert likelihood(measured) is None and means(measured).values["other"].label == "other"
