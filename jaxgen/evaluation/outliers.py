"""How well a model tells data of another kind from its own: scores of each example, by rank."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxgen.evaluation.sections import Mean, Table

DRAWS = 100
"""Bootstrap draws, of which an interval is the middle 95 percent."""
ALARMS = 0.05
"""The share of the data's own validation examples above the threshold."""
LN2 = float(np.log(2.0))


class Scores(NamedTuple):
    """One score of every example; the higher, the more of an outlier."""

    validation: np.ndarray
    """Those of the run's validation split, for thresholds."""
    own: np.ndarray
    """Those of its test split."""
    other: np.ndarray
    """Those of the other data set's test split."""


@dataclass(frozen=True)
class Found:
    """How well one score separates the two; each with its interval (low, high)."""

    auroc: float
    auroc_interval: tuple[float, float]
    auprc: float
    """The area under precision and recall where the other data are to be found."""
    auprc_interval: tuple[float, float]
    auprc_own: float
    """The same where the run's own data are."""
    fpr95: float
    """The share of its own that is above a score which 95 percent of the other data exceed."""
    fpr95_interval: tuple[float, float]
    caught: float
    """The share of the other data above the threshold that validation sets."""


def png_nats(images: np.ndarray) -> np.ndarray:
    """The length of each image [n h w c] of bytes as a PNG file of the best compression, in nats:
    how complex it is, with no model at all (Serrà et al. 2020, arXiv:1909.11480)."""
    sizes = []
    for image in images:
        file = io.BytesIO()
        shown = image[..., 0] if image.shape[-1] == 1 else image
        Image.fromarray(shown).save(file, "PNG", optimize=True)
        sizes.append(file.tell())
    return np.array(sizes) * 8 * LN2


def derived(nll: Scores, png: Scores | None) -> dict[str, Scores]:
    """What is made of a negative log-likelihood: how untypical it is (Nalisnick et al. 2019,
    arXiv:1906.02994, for sets of one), and what is left of it above the complexity."""
    typical = nll.validation.mean()
    found = {"untypical: |NLL - its mean|": Scores(*(np.abs(part - typical) for part in nll))}
    if png is not None:
        less = (a - b for a, b in zip(nll, png, strict=True))
        found["NLL less the PNG's size"] = Scores(*less)
    return found


def found(scores: Scores, seed: int = 0) -> Found:
    """The areas of one score, with intervals of the bootstrap over examples of both sets."""
    rng = np.random.default_rng(seed)
    own, other = scores.own, scores.other
    draws = []
    for _ in range(DRAWS):
        parts = (part[rng.integers(len(part), size=len(part))] for part in (own, other))
        draws.append(_areas(*parts))
    low, high = np.quantile(np.array(draws), [0.025, 0.975], axis=0)
    auroc, auprc, fpr95 = _areas(own, other)
    threshold = np.quantile(scores.validation, 1 - ALARMS)
    interval = lambda i: (float(low[i]), float(high[i]))  # noqa: E731
    return Found(
        auroc, interval(0), auprc, interval(1), _areas(-other, -own)[1], fpr95, interval(2),
        float((other > threshold).mean()),
    )  # fmt: skip


def _areas(own: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """AUROC, AUPRC of the other, and FPR at a TPR of 95 percent."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = np.repeat([0, 1], [len(own), len(other)])
    score = np.concatenate([own, other])
    least = np.quantile(other, ALARMS, method="lower")
    fpr = float((own >= least).mean())
    return float(roc_auc_score(truth, score)), float(average_precision_score(truth, score)), fpr


def table(rows: Mapping[str, Found], own: str, other: str, note: str) -> Table:
    """All scores, a row each."""

    def cell(value: float, interval: tuple[float, float]) -> str:
        return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"

    shown = tuple(
        (
            name, cell(f.auroc, f.auroc_interval), cell(f.auprc, f.auprc_interval),
            Mean(f.auprc_own, None), cell(f.fpr95, f.fpr95_interval), Mean(f.caught, None),
        )
        for name, f in rows.items()
    )  # fmt: skip
    columns = (
        "score, higher = outlier", "AUROC", f"AUPRC of {other}", f"AUPRC of {own}",
        "FPR at 95 % found", "found at 5 % alarms",
    )  # fmt: skip
    return Table(f"{other} as outliers of {own}", columns, shown, note)
