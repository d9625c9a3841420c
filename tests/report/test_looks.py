"""Every look at a model: what it shows, and who has it."""

import base64
import dataclasses
import io
import re
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import Linear
from networks import filled
from PIL import Image
from scipy.stats import norm
from tiny import some
from toys import NLL, PLANE, Blob, Codes, Translator

from jaxgen.abilities import Completes, Samples
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import SPLITS, Split
from jaxgen.distributions.normal import interpolate
from jaxgen.evaluation.results import Results, final_results
from jaxgen.evaluation.sections import About
from jaxgen.evaluation.subject import Subject
from jaxgen.media.kinds import picture
from jaxgen.media.points import plot
from jaxgen.model import Inspection, Model, Request
from jaxgen.models.latent.ladder import Ladder
from jaxgen.models.latent.vae import VAE
from jaxgen.parallel.mesh import make_mesh
from jaxgen.report import abilities, charts, codes, facts, pictures
from jaxgen.report.blocks import Clips, Look, Pairs
from jaxgen.report.page import render, write_report
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.directory import write_run
from jaxgen.runs.log import Log
from jaxgen.runs.record import record_of
from jaxgen.spec import DataSpec

IMAGES = DataSpec(4, 4, levels=5)
LABELLED = dataclasses.replace(IMAGES, num_classes=3)
PAIRS = dataclasses.replace(IMAGES, source=DataSpec(4, 4, levels=9))
SOUND = DataSpec(1, 64, rate=8000)


@pytest.fixture(scope="module", autouse=True)
def keys_name_streams():
    """A run's keys are used on purpose once per batch: example i folds its index in."""
    with jax.debug_key_reuse(False):
        yield


def dataset_of(spec, apart=False):
    rng = np.random.default_rng(0)

    def draw(spec):
        if not spec.levels:
            return rng.uniform(-1, 1, (30, *spec.shape)).astype(np.float32)
        return rng.integers(spec.levels, size=(30, *spec.shape)).astype(np.uint8)

    splits = {}
    for name in SPLITS:
        label = np.arange(30, dtype=np.int32) % 3
        source = {} if spec.source is None else {"source": draw(spec.source)}
        own = {} if apart else source
        splits[name] = Split({"x": draw(spec), "label": label, **own}, source if apart else {})
    return Dataset("random", spec, splits, tuple("abc"), "0f", "made up")


def looked_at(model, directory, dataset=None, devices=1) -> Subject:
    """A model that was never trained, in a run's directory."""
    train = TrainConfig(batch_size=10, samples=30, draws=6, seed=3)
    run, dataset = Run("toy", model, DataConfig(), train), dataset or dataset_of(model.spec)
    directory.mkdir(exist_ok=True)
    write_run(directory, record_of(run, dataset))
    with Log(directory, 4, tensorboard=False, stream=io.StringIO()) as log:
        log.write(2, "train", {"elbo": -4.0, "grad_norm": 1.0})
        log.write(4, "train", {"elbo": -3.0, "grad_norm": float("nan")})
    state = filled(model, model.spec.example(1))
    return Subject.of(run, dataset, make_mesh(devices), state, 4, directory)


def state_of(subject):
    """The state, on one device."""
    return jax.device_put(jax.device_get(subject.state), jax.devices()[0])


def image(png: bytes) -> np.ndarray:
    shown = np.asarray(Image.open(io.BytesIO(png)))
    return shown if shown.ndim == 3 else shown[..., None]


def same(figure, x, spec, columns=None):
    np.testing.assert_array_equal(image(figure.png), picture(np.asarray(x), spec, columns))


@dataclass(frozen=True)
class Echo(Model, Samples, Completes):
    """Fills in the number of the example."""

    metrics: ClassVar = {"nll": NLL}
    monitor: ClassVar = "nll"

    def init(self, key, batch):
        return {}

    def train_step(self, key, state, batch, step, axis_name=None):
        return state, {}

    def eval_step(self, key, state, batch):
        return {"nll": jnp.ones(len(batch["x"]))}

    def sample(self, key, state, num, request=Request()):
        return jnp.zeros((num, *self.spec.shape), self.spec.dtype)

    def complete(self, key, state, x, known, request=Request()):
        numbers = (request.start + jnp.arange(len(x))) % 5
        return jnp.where(known, x, numbers[:, None, None, None].astype(x.dtype))


ABLE = {
    "linear": (
        Linear(IMAGES, latents=2),
        "Samples,Reconstructions,Codes against the prior,Draws near the codes,"
        "Interpolations,One latent at a time,The latent space,Training,"
        "A look inside",
    ),
    "labelled": (
        Linear(LABELLED, latents=3),
        "Samples,Reconstructions,Codes against the prior,Draws near the codes,"
        "Interpolations,One latent at a time,Training,A look inside",
    ),
    "codes": (
        Codes(IMAGES, latents=2),
        "Reconstructions,One latent at a time,The latent space,Training",
    ),
    "points": (
        Linear(PLANE, latents=1),
        "Samples,Reconstructions,Codes against the prior,Draws near the codes,"
        "Interpolations,One latent at a time,The latent space,Training,"
        "A look inside",
    ),
    "binned points": (
        Echo(dataclasses.replace(PLANE, levels=16)), "Samples,Completions,Training"
    ),
    "blob": (Blob(PLANE), "Samples,Training"),
    "translator": (Translator(PAIRS), "Translations,Training"),
    "sound": (
        Linear(SOUND, latents=3),
        "Samples,Reconstructions,Codes against the prior,Draws near the codes,"
        "Interpolations,One latent at a time,Training,A look inside",
    ),
    "echo": (Echo(IMAGES), "Samples,Completions,Training"),
}  # fmt: skip


def nothing_measured(subject) -> Results:
    about = About(
        "toy", 1, 4, subject.model.monitor, 3, "random", "made up", "0f", "test", 30, "image"
    )
    return Results(about, (), 0.0)


@pytest.mark.parametrize("name", some(ABLE, ["points", "codes", "translator"]))
def test_a_page_has_what_the_model_is_able_to_do(name, tmp_path):
    model, titles = ABLE[name]
    subject = looked_at(model, tmp_path)
    path = write_report(subject, nothing_measured(subject), ["jaxgen sample --run=x"])
    text = path.read_text()
    expected = [*titles.split(","), "What was trained", "Use it"]
    assert re.findall("<h2>(.*?)</h2>", text) == expected


def test_a_page_is_the_same_each_time(tmp_path):
    pages = []
    for _ in range(2):
        subject = looked_at(Linear(PLANE, latents=1), tmp_path)
        pages.append(write_report(subject, nothing_measured(subject)).read_bytes())
    assert pages[0] == pages[1] and b"Use it" not in pages[0]


def test_reconstructions_are_encoded_and_decoded(tmp_path):
    subject = looked_at(Linear(LABELLED, latents=3), tmp_path, devices=4)
    [figure] = abilities.reconstructions(subject, None).blocks
    x, label = subject.data.x[:16], subject.data.label[:16]
    batch = {"x": x, "label": label, "index": np.arange(16)}
    model, state = subject.model, state_of(subject)

    @jax.jit
    def rows(batch):
        z = model.encode(None, state, batch)
        decoded = model.decode(None, state, z, batch["label"])
        return jnp.stack([LABELLED.to_float(batch["x"]), decoded])

    same(figure, rows(batch), LABELLED)
    # The upper row shows levels as they look elsewhere.
    upper = picture(x[None], LABELLED)
    np.testing.assert_array_equal(image(figure.png)[: len(upper)], upper)


def test_codes_stand_beside_the_prior_that_they_are_to_have(tmp_path, monkeypatch):
    """By class: the codes of the validation split, on the two latents that vary most."""
    subject, shown = looked_at(Linear(LABELLED, latents=3), tmp_path), {}
    for name in ("spreads", "scatter"):
        real = getattr(charts, name)

        def noted(*args, name=name, real=real):
            shown[name] = args
            return real(*args)

        monkeypatch.setattr(charts, name, noted)
    spread, scattered = codes.against_prior(subject, None).blocks
    split = subject.dataset.splits["validation"]
    batch = {"x": split.x, "label": split.label, "index": np.arange(30)}
    model, state = subject.model, state_of(subject)
    z = np.asarray(jax.jit(lambda batch: model.encode(None, state, batch))(batch))
    order = np.argsort(-z.var(0))
    names, means, deviations, _ = shown["spreads"]
    assert list(map(int, names)) == list(order)
    np.testing.assert_allclose(means, z.mean(0)[order], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(deviations, z.std(0)[order], rtol=1e-4)
    groups, (_, drawn), _ = shown["scatter"]
    assert list(groups) == list("abc")
    for i, at in enumerate(groups.values()):
        np.testing.assert_allclose(at, z[split.label == i][:, order[:2]], rtol=1e-4, atol=1e-6)
    prior = jax.jit(model.draw_latents, static_argnums=2)(subject.keys.sample, state, codes.POINTS)
    np.testing.assert_allclose(drawn, np.asarray(prior)[:, order[:2]], rtol=1e-5, atol=1e-6)
    # Every point is drawn.
    assert scattered.svg.count("<use ") >= codes.POINTS + len(z)
    assert "currentColor" in spread.svg


def test_interpolations_go_along_great_circles_of_every_part_of_z(tmp_path):
    class Hierarchy(Linear):
        @property
        def groups(self):
            return (1, 2)

    subject = looked_at(Hierarchy(LABELLED, latents=3), tmp_path)
    [figure] = abilities.interpolations(subject, None).blocks
    model, state, key = subject.model, state_of(subject), subject.keys.sample

    @jax.jit
    def walks(key):
        ends = model.draw_latents(key, state, 16)
        a, b = ends[:8], ends[8:]
        walk = [interpolate(a[:, part], b[:, part], 11) for part in (slice(0, 1), slice(1, 3))]
        z, label = jnp.concatenate(walk, -1), np.repeat(np.arange(8) % 3, 11)
        rows = model.decode(None, state, z.reshape(88, 3), label).reshape(8, 11, *LABELLED.shape)
        return rows, model.decode(None, state, ends[:1], np.zeros(1, int))

    expected, one = map(np.asarray, walks(key))
    np.testing.assert_allclose(image(figure.png), picture(expected, LABELLED), atol=1)
    np.testing.assert_allclose(expected[0, 0], one[0], atol=1e-5)


def test_draws_near_the_codes_are_distributed_as_these():
    """A fitted mixture has the mean and the covariance of what it was fitted to, and here two far
    parts, between which the one normal density of the prior would draw too."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(600, 2)) * [0.3, 1.0] + np.where(rng.random((600, 1)) < 0.3, 4.0, -4.0)
    drawn = abilities.mixture_draws(codes, 20_000)
    np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=5 * 4 / 20_000**0.5)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), rtol=0.05)
    assert (np.abs(drawn[:, 0]) < 2).mean() < 0.001
    np.testing.assert_array_equal(drawn, abilities.mixture_draws(codes, 20_000))
    many = abilities.mixture_draws(rng.normal(size=(40, 30)), 5)
    assert many.shape == (5, 30) and np.isfinite(many).all()


def test_traversals_move_the_latents_that_differ_most(tmp_path):
    subject = looked_at(Codes(IMAGES, latents=4), tmp_path)
    look = abilities.traversals(subject, None)
    codes, state = subject.codes, state_of(subject)
    order = np.argsort(-codes.var(0))
    z = np.tile(codes[0], (4, 11, 1))
    for row, latent in enumerate(order):
        z[row, :, latent] = codes[:, latent].mean() + codes[:, latent].std() * np.linspace(
            -2.5, 2.5, 11
        )
    decode = jax.jit(lambda z: subject.model.decode(None, state, z))
    x = np.asarray(decode(z.reshape(44, 4))).reshape(4, 11, 4, 4, 1)
    np.testing.assert_allclose(image(look.blocks[0].png), picture(x, IMAGES), atol=1)
    assert "standard deviations around its mean" in look.blocks[0].caption
    prior = abilities.traversals(looked_at(Linear(LABELLED), tmp_path), None)
    assert "standard deviations" not in prior.blocks[0].caption


def test_the_plane_lies_at_the_quantiles_of_the_prior(tmp_path):
    subject = looked_at(Linear(IMAGES, latents=2), tmp_path)
    [figure] = abilities.plane(subject, None).blocks
    q = norm.ppf(np.linspace(0.02, 0.98, 16))
    z = np.array([[a, b] for b in -q for a in q], np.float32)
    state = state_of(subject)
    x = jax.jit(lambda z: subject.model.decode(None, state, z))(z)
    expected = np.asarray(x).reshape(16, 16, 4, 4, 1)
    np.testing.assert_allclose(image(figure.png), picture(expected, IMAGES), atol=1)
    assert abilities.plane(looked_at(Linear(IMAGES, latents=3), tmp_path), None) is None


def test_completions_keep_the_first_half(tmp_path):
    subject = looked_at(Echo(IMAGES), tmp_path)
    [figure] = abilities.completions(subject, None).blocks
    x = subject.data.x[:8]
    rows = np.repeat(x[:, None], 8, 1)
    rows[:, 1:, 2:] = (np.arange(56) % 5).reshape(8, 7, 1, 1, 1)
    same(figure, rows, IMAGES)


@pytest.mark.parametrize("apart", [False, True])
def test_translations_stand_beside_their_source_and_the_truth(apart, tmp_path):
    model = Translator(PAIRS)
    subject = looked_at(model, tmp_path, dataset_of(PAIRS, apart))
    # A table whose every entry is known: the level, scaled to [-1, 1].
    tables = {n: np.linspace(-1, 1, k).astype(np.float32) for n, k in (("forth", 9), ("back", 5))}
    state = dataclasses.replace(subject.state, ema={"params": tables})
    subject = dataclasses.replace(subject, state=state)
    look = abilities.translations(subject, None)
    split = subject.data
    source, x = {**split.columns, **split.apart}["source"][:16], split.x[:16]
    forth = np.round(source / 8 * 4).astype(np.uint8)
    back = np.round(x / 4 * 8).astype(np.uint8)
    captions = [b.caption for b in look.blocks]
    truths = [] if apart else ["the truth"]
    assert captions == [
        f"{way}: {what}" for way in ("forth", "back") for what in ("given", "translated", *truths)
    ]
    shown = {b.caption: b for b in look.blocks}
    same(shown["forth: given"], source, PAIRS.source, 8)
    same(shown["back: given"], x, PAIRS, 8)
    same(shown["back: translated"], back, PAIRS.source, 8)
    if not apart:
        same(shown["back: the truth"], source, PAIRS.source, 8)
    assert image(shown["forth: translated"].png).shape == picture(forth, PAIRS, 8).shape


def test_samples_stand_beside_real_data(tmp_path):
    subject = looked_at(Linear(IMAGES), tmp_path)
    drawn, means, real = pictures.samples(subject, None).blocks
    same(drawn, subject.samples[:100], IMAGES, 10)
    # The means of p(x | z) of draws from the prior, which are no samples of x.
    model, key = subject.model, subject.keys.sample

    @jax.jit
    def decoded(state):
        return model.decode(key, state, model.draw_latents(key, state, 100))

    same(means, decoded(subject.state), IMAGES, 10)
    assert means.png != drawn.png and "decoded, without noise of their own" in means.caption
    same(real, subject.data.x[:100], IMAGES, 10)
    assert drawn.caption == "The first 100 samples, none picked"
    points = looked_at(Blob(PLANE), tmp_path)
    drawn, real = pictures.samples(points, None).blocks
    np.testing.assert_array_equal(image(drawn.png), plot(points.samples, PLANE))
    assert drawn.caption == "The first 2000 samples, none picked"
    sounds = pictures.samples(looked_at(Linear(SOUND), tmp_path), None)
    assert [len(b.wavs) for b in sounds.blocks if isinstance(b, Clips)] == [10, 10]
    assert "spectrograms of 0.008 s, 0 (below) to 4000 Hz" in sounds.blocks[0].caption


def test_progress_shows_six_stages(tmp_path):
    subject = looked_at(Linear(IMAGES), tmp_path)
    assert pictures.progress(subject, None) is None
    (tmp_path / "samples").mkdir()
    for step in range(0, 1100, 100):
        (tmp_path / "samples" / f"step_{step:07d}.png").write_bytes(b"%d" % step)
    blocks = pictures.progress(subject, None).blocks
    assert [b.caption for b in blocks] == [f"step {n}" for n in (0, 200, 400, 600, 800, 1000)]
    assert blocks[-1].png == b"1000"


def test_what_a_model_shows_of_itself_is_pictured(tmp_path):
    class Shows(Linear):
        def inspect(self, key, state, batch):
            grids = {"one & two": batch["x"][:6].reshape(2, 3, 4, 4, 1)}
            maps = {"heat": np.array([[[[0.0, 1.5], [np.nan, 4.0]]]])}
            return Inspection({}, grids, maps)

    subject = looked_at(Shows(IMAGES), tmp_path)
    grid, heat = pictures.inside(subject, None).blocks
    x = subject.dataset.splits["validation"].x[:6]
    same(grid, x.reshape(2, 3, 4, 4, 1), IMAGES)
    assert grid.caption == "one & two" and heat.caption == "heat: 0 (dark) to 4 (light)"
    page = render(subject, nothing_measured(subject), [pictures.inside(subject, None)])
    assert "one &amp; two" in page and "one & two" not in page


def test_curves_are_those_that_the_model_declares(tmp_path):
    subject = looked_at(Linear(IMAGES), tmp_path)
    look = facts.training(subject, nothing_measured(subject))
    assert [chart.title for chart in look.blocks] == ["both terms", "norm of gradients"]
    assert "their sum train" in look.blocks[0].svg
    assert look.notes[1] == "At the last point: the bound is -3.0"
    page = render(subject, nothing_measured(subject), [look])
    assert "the bound is -3.0" in page and page.count("<svg") == 2


def test_the_configuration_is_folded_and_escaped(tmp_path):
    subject = looked_at(Linear(IMAGES), tmp_path)
    results = nothing_measured(subject)
    look = facts.trained(subject, results)
    assert [b.summary for b in look.blocks] == [
        *("", "model configuration", "data configuration", "train configuration")
    ]  # fmt: skip
    hostile = Look("<b>", (Pairs({"<i>": "</table>"}, "a & b"),))
    page = render(subject, results, [hostile])
    assert "<h2>&lt;b&gt;</h2>" in page and "<td>&lt;i&gt;</td><td>&lt;/table&gt;</td>" in page
    assert "<summary>a &amp; b</summary>" in page and page.count("</table>") == 1


def test_the_headlines_are_the_numbers_to_read_first(tmp_path):
    subject = looked_at(Linear(IMAGES), tmp_path)
    page = render(subject, final_results(subject), [])
    cards = re.findall('<div class="card"><b>(.*?)</b><span>(.*?)</span>', page)
    assert [label for _, label in cards] == [
        "nats per image (importance-weighted bound, k = 6)", "bits per dimension",
        cards[2][1], cards[3][1], cards[4][1],
    ]  # fmt: skip
    assert cards[2][1].endswith(" baseline") and cards[3][1].startswith("Fréchet distance; train")
    assert "±" in cards[0][0] and "chosen by negative log-likelihood on the validation" in page


def test_pictures_in_a_page_are_whole(tmp_path):
    subject = looked_at(Linear(IMAGES), tmp_path)
    look = pictures.samples(subject, None)
    page = render(subject, nothing_measured(subject), [look])
    urls = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(url) for url in urls] == [figure.png for figure in look.blocks]


def test_lower_layers_are_drawn_anew_below_those_that_are_kept(tmp_path):
    """A row an example: itself, then decodings of its upper latents and of new lower ones."""
    spec = DataSpec(3, 2, 1, 4)
    model = Ladder(spec, latents=(2, 3, 1), hidden=(5, 4, 3))
    subject = looked_at(model, tmp_path / "run")
    look = abilities.resampled(subject, None)
    assert len(look.blocks) == 2 and "topmost 2 of 3" in look.blocks[0].caption
    rows, answers = abilities.ROWS, abilities.ANSWERS
    x = subject.data.x[:rows]
    batch = {"x": x, "index": np.arange(rows)}

    @jax.jit
    def codes_of(key, state):
        new = model.draw_latents(key, state, rows * answers)
        return model.encode(None, state, batch), new, spec.to_float(x)

    key, state = subject.keys.sample, subject.state
    code, new, given = map(np.asarray, codes_of(key, state))
    decode = jax.jit(model.decode)
    for kept, block in zip((4, 1), look.blocks, strict=True):
        z = np.concatenate([code.repeat(answers, 0)[:, :kept], new[:, kept:]], 1)
        decoded = np.asarray(decode(key, state, z)).reshape(rows, answers, *spec.shape)
        same(block, np.concatenate([given[:, None], decoded], 1), spec)
    plain = looked_at(VAE(spec, hidden=(4,), latents=2), tmp_path / "plain")
    assert abilities.resampled(plain, None) is None
