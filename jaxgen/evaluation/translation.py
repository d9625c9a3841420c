"""How far translations are from the truth, beside what no model is needed for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Translates
from jaxgen.evaluation.sections import About, Headline, Mean, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.model import Metric
from jaxgen.parallel.inference import examples, mean_and_error
from jaxgen.spec import DataSpec

WINDOW = 7
"""Sides of the window of the structural similarity, where images are as large."""
CHUNK = 1000
"""Images that are worked on at a time."""

METRICS: dict[str, Metric] = {
    "psnr": Metric("PSNR", "dB", "higher"),
    "ssim": Metric("SSIM", "", "higher"),
    "difference": Metric("absolute difference", "% of the range", "lower"),
}
"""What the numbers of a `Nearness` are."""


@dataclass(frozen=True)
class Nearness:
    """How near images are to the truth."""

    psnr: float | None
    """Peak signal-to-noise ratio in dB, 10 log10(range² / mean squared error), of the mean over all
    images: a perfect one alone would make a mean of ratios infinite. None = no error at all."""
    ssim: float | None
    """Structural similarity (Wang et al. 2004), the mean over images; None for images of less than
    3 pixels a side."""
    ssim_se: float | None
    """The standard error of that mean."""
    difference: float
    """The mean absolute difference, in percent of the range of values."""
    difference_se: float | None

    def cells(self) -> tuple[float | str | None | Mean, ...]:
        psnr = self.psnr if self.psnr is not None or self.difference else "no error"
        ssim = "-" if self.ssim is None else Mean(self.ssim, self.ssim_se)
        return psnr, ssim, Mean(self.difference, self.difference_se)


@dataclass(frozen=True)
class Translations(Section):
    """Translations of a whole split against the truth, and the same of images that no model made,
    by the way: forth, and back where a model has it."""

    name: ClassVar = "translation"

    window: int
    """Sides of the window of the structural similarity; 0 = the images are too small for one."""
    exact: bool
    """Whether a source comes from one x alone, so that a translation has one right answer."""
    model: Mapping[str, Nearness]
    others: Mapping[str, Mapping[str, Nearness]]
    """By way, and by what it is."""

    def tables(self, about: About) -> tuple[Table, ...]:
        return tuple(self._table(about, way) for way in self.model)

    def _table(self, about: About, way: str) -> Table:
        what = "x from its source" if way == "forth" else "the source from x"
        rows = ((about.model, self.model[way]), *self.others[way].items())
        columns = ("made by", *(f"{metric} ({metric.better})" for metric in METRICS.values()))
        ssim = f" SSIM in windows of {self.window}x{self.window}." * bool(self.window)
        many = "" if self.exact else " A source has several answers, of which the truth is one."
        return Table(
            f"Translations {way} ({what}) against the truth, {about.split} split, {about.counted}",
            columns,
            tuple((name, *nearness.cells()) for name, nearness in rows),
            f"PSNR of the squared error's mean over all {about.datum}s.{ssim} ± one standard error "
            f"of the mean over the {about.datum}s.{many}",
            ranked=True,
        )

    def headlines(self, about: About) -> tuple[Headline, ...]:
        found = []
        for way, nearness in self.model.items():
            known = {n: x.psnr for n, x in self.others[way].items() if x.psnr is not None}
            beside = ""
            if known:
                best = max(known, key=lambda name: known[name])
                beside = f"; {best}: {known[best]:.2f}"
            found.append(Headline(nearness.cells()[0], f"PSNR {way} (dB){beside}"))
        return tuple(found)

    def numbers(self) -> Mapping[str, Number]:
        return {
            f"{way}_{name}": Number(
                metric._replace(label=f"{metric.label} {way}"), getattr(nearness, name)
            )
            for way, nearness in self.model.items()
            for name, metric in METRICS.items()
        }


def translations(subject: Subject) -> Translations | None:
    """The translations of a split whose examples stand beside their sources."""
    model, spec, data = subject.model, subject.model.spec, subject.data
    if not isinstance(model, Translates) or spec.source is None or "source" in data.apart:
        return None
    if {spec.kind, spec.source.kind} != {"image"}:
        return None
    given = examples(data, spec, slice(None))
    train = subject.dataset.materialize("train")
    known = {**train.columns, **train.apart}
    pairing = subject.dataset.pairing
    ends = ("source", spec.source), ("x", spec)
    ours, others, window = {}, {}, WINDOW
    for way in model.ways:
        (start, start_spec), (end, end_spec) = ends if way == "forth" else ends[::-1]
        source, truth = given[start], given[end]
        window = min(window, _window(end_spec))
        made = subject.able("translate", len(source), {**given, "source": source}, way)
        ours[way] = nearness(truth, made, end_spec)
        others[way] = {
            name: nearness(truth, x, end_spec)
            for name, x in _plain(source, start_spec, end_spec).items()
        }
        mean = _mean(known[end], end_spec)
        others[way]["the mean train image"] = nearness(
            truth, np.broadcast_to(mean[None], truth.shape), end_spec
        )
    return Translations(window, pairing is not None and pairing.exact, ours, others)


def nearness(truth: np.ndarray, made: np.ndarray, spec: DataSpec) -> Nearness:
    """How near images [n h w c] are to the truth, both levels or floats in [-1, 1] of that spec."""
    from skimage.metrics import structural_similarity

    span = spec.levels - 1 if spec.levels else 2.0
    window, squares, differences, ssims = _window(spec), [], [], []
    for a, b in zip(truth, made, strict=True):
        x, y = a.astype(np.float64), b.astype(np.float64)
        squares.append(((x - y) ** 2).mean())
        differences.append(100 * np.abs(x - y).mean() / span)
        if window:
            of = structural_similarity(x, y, win_size=window, data_range=span, channel_axis=-1)
            ssims.append(of)
    square = float(np.mean(squares))
    difference = mean_and_error({"mean": np.array(differences)})
    ssim = mean_and_error({"mean": np.array(ssims)}) if ssims else {"mean": None, "mean_se": None}
    return Nearness(
        psnr=10 * math.log10(span**2 / square) if square else None,
        ssim=ssim["mean"],
        ssim_se=ssim["mean_se"],
        difference=difference["mean"],
        difference_se=difference["mean_se"],
    )


def _window(spec: DataSpec) -> int:
    """The largest odd number up to `WINDOW` and to the sides; 0 where that is less than 3."""
    side = min(WINDOW, spec.height, spec.width)
    side -= 1 - side % 2
    return side if side >= 3 else 0


def _plain(source: np.ndarray, start: DataSpec, end: DataSpec) -> dict[str, np.ndarray]:
    """What is made of the sources without a model: themselves, at the size of what is to be made,
    grey in every channel and colours as their luma (ITU-R 601); none where channels are others."""
    channels = start.channels, end.channels
    if channels[0] != channels[1] and channels not in ((1, 3), (3, 1)):
        return {}
    same = start.shape[:2] == end.shape[:2]
    ways = {"copying the source" if same else "copying the source, nearest": "nearest"}
    if not same:
        ways["copying the source, bicubic"] = "cubic"
    return {name: _copied(source, start, end, how) for name, how in ways.items()}


def _copied(source: np.ndarray, start: DataSpec, end: DataSpec, how: str) -> np.ndarray:
    if start.shape == end.shape and start.levels == end.levels:
        return source

    @jax.jit
    def one(x: jax.Array) -> jax.Array:
        x = start.to_float(x)
        if start.channels == 3 and end.channels == 1:
            luma = jnp.array([0.299, 0.587, 0.114])
            x = (x * luma[None, None, None]).sum(-1, keepdims=True)
        x = jnp.repeat(x, end.channels // x.shape[-1], -1)
        if x.shape[1:3] != end.shape[:2]:
            x = jax.image.resize(x, (len(x), *end.shape), how)
        return end.from_float(x)

    return np.concatenate(
        [np.asarray(one(x)) for x in np.array_split(source, -(-len(source) // 500))]
    )


def _mean(train: np.ndarray, spec: DataSpec) -> np.ndarray:
    """The mean of train images [n h w c], as levels or floats."""
    total = np.zeros(spec.shape)
    for i in range(0, len(train), CHUNK):
        total += train[i : i + CHUNK].sum(0, dtype=np.float64)
    mean = total / len(train)
    return np.round(mean).astype(np.uint8) if spec.levels else mean.astype(np.float32)
