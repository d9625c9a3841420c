"""Scores against closed forms, naive loops and known failures."""

import tracemalloc

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial import cKDTree
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import polynomial_kernel

from jaxgen.errors import UserError
from jaxgen.evaluation import features as module
from jaxgen.evaluation import scores
from jaxgen.evaluation.features import Features, fit_features

LEVELS = 17


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images, labels = data.images.astype(np.uint8)[..., None], data.target.astype(np.int32)
    return (images[:1000], labels[:1000]), (images[1350:], labels[1350:])


@pytest.fixture(scope="module")
def features(digits):
    return fit_features(*digits[0], LEVELS, dataset="digits")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _covariance(rng, d, rank=None):
    root = rng.normal(size=(d, rank or d))
    return root @ root.T / d


def test_frechet_closed_form():
    # Axis-aligned Gaussians: |difference of means|^2 + sum of (difference of deviations)^2.
    a = scores.Moments(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    b = scores.Moments(np.array([4.0, -2.0]), np.diag([1.0, 25.0]))
    assert scores.frechet_moments(a, b) == pytest.approx(25 + 1 + 4, abs=1e-10)


@pytest.mark.parametrize("d", [3, 20])
def test_frechet_equals_sqrtm(rng, d):
    a = scores.Moments(rng.normal(size=d), _covariance(rng, d))
    b = scores.Moments(rng.normal(size=d), _covariance(rng, d))
    root = scipy.linalg.sqrtm(a.cov @ b.cov).real
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.cov + b.cov - 2 * root)
    assert scores.frechet_moments(a, b) == pytest.approx(expected, rel=1e-8)


def test_frechet_rank_deficient_and_zero(rng):
    x = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 10))
    assert abs(scores.frechet_distance(x, x)) < 1e-5
    # Orthogonal supports: the cross term vanishes.
    a = scores.Moments(np.zeros(2), np.diag([4.0, 0.0]))
    b = scores.Moments(np.zeros(2), np.diag([0.0, 9.0]))
    assert scores.frechet_moments(a, b) == pytest.approx(13)


def test_frechet_of_samples(rng):
    a, b = rng.normal(size=(20_000, 4)), rng.normal(size=(20_000, 4)) * 2 + 1
    assert scores.frechet_distance(a, b) == pytest.approx(4 * (1 + 1), rel=0.05)


def test_kernel_distance_equals_double_loop(rng, monkeypatch):
    monkeypatch.setattr(scores, "_ROWS", 7)
    a, b = rng.normal(size=(20, 5)), rng.normal(size=(13, 5)) + 0.3

    def mean_off_diagonal(x):
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
        return np.mean([(x[i] @ x[j] / 5 + 1) ** 3 for i, j in pairs])

    expected = mean_off_diagonal(a) + mean_off_diagonal(b) - 2 * polynomial_kernel(a, b).mean()
    assert scores.kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased(rng):
    def biased(a, b):  # keeps the diagonal, and must fail the same bound
        kernel = lambda a, b: ((a @ b.T / 4 + 1) ** 3).mean()  # noqa: E731
        return kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)

    pairs = [(rng.normal(size=(30, 4)), rng.normal(size=(20, 4))) for _ in range(1000)]
    draws = np.array([[scores.kernel_distance(*pair), biased(*pair)] for pair in pairs])
    errors = draws.mean(0) / (draws.std(0) / np.sqrt(len(draws)))
    assert abs(errors[0]) < 4 < errors[1]


def test_prdc_equals_loops(rng):
    real, fake, k = rng.normal(size=(60, 3)), 0.7 * rng.normal(size=(40, 3)) + 0.4, 4

    def radius(x):
        return [sorted(np.linalg.norm(x - p, axis=1))[k] for p in x]  # [0] is the point itself

    distance = np.array([[np.linalg.norm(r - f) for f in fake] for r in real])
    in_real = distance <= np.array(radius(real))[:, None]
    in_fake = distance <= np.array(radius(fake))
    expected = (
        in_real.any(0).mean(),
        in_fake.any(1).mean(),
        in_real.sum() / (k * len(fake)),
        in_real.any(1).mean(),
    )
    np.testing.assert_allclose(scores.prdc(real, fake, k), expected, rtol=1e-12)
    assert 0 < min(expected) and max(expected[0], expected[1], expected[3]) < 1


def test_prdc_in_chunks(rng):
    # 4000 x 4000 distances pass the working memory, so several chunks are joined.
    real, fake = rng.normal(size=(4000, 2)), rng.normal(size=(4000, 2)) + 0.5
    radius = cKDTree(real).query(real, 6)[0][:, -1]
    covered = cKDTree(fake).query(real)[0] <= radius
    assert scores.prdc(real, fake).coverage == pytest.approx(covered.mean(), abs=1e-12)


def test_prdc_extremes(rng):
    x = rng.normal(size=(50, 3))
    same, apart = scores.prdc(x, x), scores.prdc(x, x + 1000)
    assert same.precision == same.recall == same.coverage == 1
    assert apart == (0, 0, 0, 0)
    with pytest.raises(UserError, match="more than k"):
        scores.prdc(x[:5], x)


def test_histograms():
    p = scores.class_histogram(np.array([0, 0, 1, 3]), 5)
    np.testing.assert_allclose(p, [0.5, 0.25, 0, 0.25, 0])
    fake, real = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.5, 0.25])
    assert scores.histogram_kl(fake, real) == pytest.approx(0.5 * np.log(2))
    assert scores.histogram_kl(real, real) == 0
    assert np.isfinite(scores.histogram_kl(real, fake))


def test_features_classify_and_repeat(digits, features):
    (images, labels), test = digits
    assert features.accuracy(*test) > 0.93
    assert features.name == "mlp128-64/digits" and features.embed(images).shape == (1000, 64)
    again = fit_features(images, labels, LEVELS, dataset="digits")
    np.testing.assert_array_equal(again.embed(test[0]), features.embed(test[0]))


def test_features_of_two_classes(rng):
    # Two classes: scikit-learn's single logistic output becomes two logits.
    images = rng.integers(0, 4, (300, 4, 3, 2), dtype=np.uint8)
    labels = np.where(images[:, 0, 0, 0] > 1, 7, 3)
    fitted = fit_features(images, labels, levels=4)
    assert set(fitted.predict(images)) == {3, 7}
    assert fitted.accuracy(images, labels) > 0.95


@pytest.mark.parametrize("labelled", [True, False])
def test_features_save_load(digits, features, tmp_path, labelled):
    (images, _), (test, labels) = digits
    fitted = features if labelled else fit_features(images, None, LEVELS)
    fitted.save(tmp_path / "features.npz")
    loaded = Features.load(tmp_path / "features.npz")
    np.testing.assert_array_equal(loaded.embed(test), fitted.embed(test))
    assert (loaded.name, loaded.examples) == (fitted.name, fitted.examples)
    assert loaded.accuracy(test, labels) == fitted.accuracy(test, labels)


def test_unlabelled_features_are_white(digits):
    (images, _), _ = digits
    fitted = fit_features(images, None, LEVELS)
    embedded = fitted.embed(images)
    flat = images.reshape(len(images), -1)
    variance = np.linalg.eigvalsh(np.cov(flat, rowvar=False))[::-1]
    enough = 1 + int((variance.cumsum() / variance.sum() < 0.95).sum())
    assert fitted.predict(images) is None and fitted.name == f"pca{enough}/custom"
    correlation = embedded.T @ embedded / len(images)
    np.testing.assert_allclose(correlation, np.eye(enough), atol=1e-6)


def test_unlabelled_features_rank_slight_noise_before_a_constant_picture(digits, rng):
    """A level up or down changes every component alike, those of next to no variance too."""
    (train, _), (test, _) = digits
    features = fit_features(train, None, LEVELS)
    noise = rng.integers(-1, 2, test.shape)
    slight = np.clip(test + noise, 0, LEVELS - 1).astype(np.uint8)
    constant = np.broadcast_to(np.round(train.mean(0)).astype(np.uint8), test.shape)
    reference = scores.Reference.of(features, test)
    real, *others = (reference.frechet(x) for x in (train[:447], slight, constant))
    assert others[0] < real < others[1] / 4


def test_rounding_is_no_dimension(rng):
    """Of images that differ in two ways alone, two components are left: whitening would make the
    others, which are rounding, the measure of everything."""
    x = (rng.integers(2, size=(90, 2)) @ rng.integers(100, size=(2, 36))).astype(np.uint8)
    features = fit_features(x.reshape(90, 6, 6, 1), None, 256)
    assert features.name == "pca2/custom"
    noise = rng.integers(256, size=(40, 6, 6, 1)).astype(np.uint8)
    assert np.abs(features.embed(noise)).max() < 1e3


def test_few_dimensions_are_all_kept(rng):
    """Points on a thin line: what lies beside it is another thing."""
    x = (rng.normal(size=(500, 1)) * [1, 1] + rng.normal(size=(500, 1)) * [0.03, -0.03]) / 4
    features = fit_features(x.astype(np.float32).reshape(500, 1, 1, 2), None, 0)
    assert features.name == "pca2/custom"


def test_rare_units_do_not_rule(digits):
    # The last column is lit in one training image of a thousand.
    images = digits[0][0].copy()
    images[:, :, -1], images[0, 0, -1] = 0, 1
    embedded = fit_features(images, None, LEVELS).embed(np.full_like(images[:1], 16))
    assert np.abs(embedded).max() < 1000


@pytest.mark.parametrize("labelled", [True, False])
def test_large_images_are_fitted_in_bounded_memory(labelled, rng, monkeypatch):
    # Whole, the images would take 11 times as much; 20,000 of 64x64x3 take 5 times a gigabyte.
    monkeypatch.setattr(module, "MAX_BYTES", 2**24)
    monkeypatch.setattr(module, "_CHUNK_VALUES", 2**18)
    monkeypatch.setattr(module, "VISITS", 100)
    images = rng.integers(0, 256, (3000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(3000) % 2 if labelled else None
    examples = 2**24 // (32 * 32 * 3 * (20 if labelled else 16))
    fit_features(images[:20], None, 256)  # what is imported is not counted
    tracemalloc.start()
    fitted = fit_features(images, labels, 256)
    embedded = fitted.embed(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (fitted.examples, fitted.head is not None) == (examples, labelled)
    # The classifier's 0.4 million weights have gradients, moments and copies of their own.
    assert peak < 1.25 * 2**24 + labelled * 12 * 4 * 32 * 32 * 3 * 128
    assert embedded.shape[0] == 3000 and np.isfinite(embedded).all()


def test_real_numbers_are_features_as_they_are(rng):
    x = rng.normal(size=(400, 1, 1, 2)).astype(np.float32) * [1, 3]
    fitted = fit_features(x, None, 0)
    embedded = fitted.embed(x)
    np.testing.assert_allclose(np.cov(embedded, rowvar=False), np.eye(2) * 400 / 399, atol=1e-6)
    assert scores.Reference.of(fitted, x).frechet(x) == pytest.approx(0, abs=1e-9)
    x[3] = np.nan
    assert np.isnan(scores.Reference.of(fitted, x[:3]).frechet(x))


def test_panel(digits, features, rng):
    (train, _), (test, labels) = digits
    # In stored order the digits come in a pattern, so halves are drawn at random.
    order = rng.permutation(len(test))
    reference, held_out, classes = test[order[:224]], test[order[224:]], labels[order[224:]]
    fives = np.resize(np.flatnonzero(classes < 5), 223)
    noise = rng.integers(0, LEVELS, held_out.shape, dtype=np.uint8)
    good, duplicated, dropped, noisy = (
        scores.panel(features, reference, fake, train)
        for fake in (held_out, held_out[np.arange(223) % 10], held_out[fives], noise)
    )
    floor = good.floor["frechet"]
    assert good.values["frechet"] < 1.5 * floor and good.values["histogram_kl"] < 0.05
    assert good.values["coverage"] > good.floor["coverage"] - 0.1
    assert good.values["classes_present"] == 10 and dropped.values["classes_present"] <= 6
    assert dropped.values["histogram_kl"] > 0.5
    # Copies of ten images are alike, noise is not; both have pixels of their own.
    assert duplicated.values["similarity"] > good.values["similarity"] + 0.05
    assert noisy.values["similarity"] < 0.1 < good.floor["similarity"]
    assert noisy.values["sliced"] > 2 * good.values["sliced"] < duplicated.values["sliced"]
    for bad in (duplicated, dropped, noisy):
        assert bad.values["frechet"] > 2 * floor
        assert bad.values["kernel"] > good.floor["kernel"] + 0.1
        assert bad.values["coverage"] < 0.75 * good.values["coverage"]
    assert good.protocol == (
        "FD[mlp128-64/digits] fitted on train 1000 seed=0, reference=test 224 of 224, "
        "samples=223 of 223, floor=train draw of 223, k=5 of 223 each, nearest of train 1000, "
        "sliced in 512 directions of 223 each, MS-SSIM of 1 scale and 200 pairs a class, seed=0"
    )


def test_scores_by_neighbours_compare_equal_numbers(digits, features, rng):
    """200 real images cover as much of 800 others as of 200: 0.65 of them before."""
    images = rng.permutation(np.concatenate([digits[0][0], digits[1][0]]))
    fake, others, train = images[:200], images[200:1000], images[1000:]
    few, many = (scores.panel(features, x, fake, train) for x in (others[:200], others))
    for name in ("precision", "recall", "coverage"):
        found = [panel[name] for each in (few, many) for panel in (each.values, each.floor)]
        assert min(found) > 0.9 and max(found) - min(found) < 0.06


def test_copies_are_told_from_new_images(digits, features):
    """A model that copies its training set reaches the floor in all but the nearest distance."""
    (train, _), (test, _) = digits
    half, new = test[::2], test[1::2]
    copied = scores.panel(features, half, train[:223], train)
    assert copied.values["coverage"] > 0.8 * copied.floor["coverage"]
    assert copied.values["nearest"] == copied.floor["nearest"] == 0.0
    assert scores.panel(features, half, new, train).values["nearest"] == pytest.approx(1, abs=0.1)
    some = np.concatenate([train[:111], new[:112]])
    assert scores.panel(features, half, some, train).values["nearest"] < 0.6
    # As an independent search says; where the real images are copies, there is nothing to say.
    tree = cKDTree(features.embed(train))
    apart = [tree.query(features.embed(x))[0].mean() for x in (new, half)]
    found = scores.panel(features, half, new, train).values["nearest"]
    assert found == pytest.approx(apart[0] / apart[1], abs=1e-6)
    for same in (train[:50], train[3:56]):  # in the second, features are rounded otherwise
        assert np.isnan(scores.panel(features, same, new, train).values["nearest"])


def test_every_score_is_declared(digits, features):
    (train, _), (test, _) = digits
    found = scores.panel(features, test, train[:300], train)
    assert set(found.values) == set(scores.METRICS)
    neither = [name for name, metric in scores.METRICS.items() if not metric.better]
    assert all(metric.label for metric in scores.METRICS.values())
    assert neither == ["nearest", "similarity"]


def test_panel_without_labels(digits):
    (train, _), (test, _) = digits
    found = scores.panel(fit_features(train, None, LEVELS), test, train[:300], train)
    neighbours = {"precision", "recall", "coverage", "nearest"}
    assert set(found.values) == {"frechet", "kernel", "sliced", "similarity", *neighbours}


def test_reference_is_the_panels_distance(digits, features):
    (train, _), (test, _) = digits
    reference = scores.Reference.of(features, test)
    expected = scores.panel(features, test, train[:200], train).values["frechet"]
    assert reference.frechet(train[:200]) == pytest.approx(expected, rel=1e-9)


def test_large_sets_are_drawn(digits, features, monkeypatch):
    monkeypatch.setattr(scores, "MAX_REFERENCE", 100)
    (train, _), (test, _) = digits
    found = scores.panel(features, test, train[:200], train, split="validation")
    assert "reference=validation 100 of 447, samples=100 of 200" in found.protocol
