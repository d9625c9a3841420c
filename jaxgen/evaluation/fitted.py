"""What is fitted to a data set once and kept in a run: features and baselines."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxgen.data.dataset import Dataset
from jaxgen.errors import warn
from jaxgen.evaluation import scores
from jaxgen.evaluation.baselines import Baselines, fit_baselines
from jaxgen.evaluation.features import Features, fit_features
from jaxgen.evaluation.normals import Normals, fit_normals
from jaxgen.media.kinds import scored, scored_spec
from jaxgen.parallel.inference import Score
from jaxgen.runs.config import Run
from jaxgen.runs.directory import explained

Fitted = TypeVar("Fitted", Baselines, Normals, Features)


def make_score(run: Run, dataset: Dataset, directory: Path) -> tuple[Features, Score]:
    """The features of the data set, and the score that a model without likelihood is validated
    by: samples [n h w c] to their Fréchet distance to the validation split."""
    features = features_of(dataset, directory)
    spec = dataset.spec
    seen = scored(dataset.materialize("validation").x, spec)
    reference = scores.Reference.of(features, seen)
    return features, lambda images: {"frechet": reference.frechet(scored(images, spec))}


def features_of(dataset: Dataset, directory: Path) -> Features:
    """The features fitted on the train split with whatever labels it has; kept in the run."""
    train, spec = dataset.materialize("train"), dataset.spec
    prefix, levels = scored_spec(spec)

    def fit() -> Features:
        x = scored(train.x, spec)
        # Of so many combinations none has enough examples; see evaluation.stacked for those.
        label = None if dataset.channel_classes else train.label
        return fit_features(x, label, levels, dataset=prefix + dataset.name)

    seen = scored(train.x[:1], spec)
    path = directory / "features.npz"
    return _kept(path, dataset.fingerprint, Features, fit, lambda kept: kept.embed(seen))


def baselines_of(dataset: Dataset, directory: Path) -> Baselines | Normals:
    """The baselines of levels or of real numbers, fitted on train, their sizes chosen on
    validation; kept in the run."""
    train, validation = dataset.materialize("train").x, dataset.materialize("validation").x
    path, levels = directory / "baselines.npz", dataset.spec.levels

    def test(kept: Baselines | Normals) -> np.ndarray:
        return np.stack([*kept.nll(train[:1]).values()])

    of = dataset.fingerprint
    if levels:
        return _kept(path, of, Baselines, lambda: fit_baselines(train, validation, levels), test)
    return _kept(path, of, Normals, lambda: fit_normals(train, validation), test)


OF = "fingerprint"
"""The array of a kept file that names the data which it was fitted to."""


class _OtherDataError(Exception):
    """A kept file does not name the data that it is asked for."""


def _kept(
    path: Path,
    fingerprint: str,
    kind: type[Fitted],
    fit: Callable[[], Fitted],
    test: Callable[[Fitted], np.ndarray],
) -> Fitted:
    """What `path` holds, if it was fitted to the data of that fingerprint, and `test` makes finite
    numbers of it; or else the fit, which is then kept there."""
    try:
        kept = kind.load(path)
        with np.load(path) as file:
            if OF not in file or str(file[OF]) != fingerprint:
                raise _OtherDataError
        if np.isfinite(test(kept)).all():
            return kept
        raise ValueError("it makes no finite numbers")
    except FileNotFoundError:
        pass
    except _OtherDataError:
        warn(f"{path} was fitted to other data than the run's, and is made again")
    except Exception as error:  # damaged: zipfile, numpy and the fields raise all kinds
        warn(f"{path} is damaged ({type(error).__name__}: {error}), and is made again")
    fitted = fit()
    partial = path.with_name(f".{path.stem}.partial.npz")
    with explained(path.parent):
        fitted.save(partial)
        name = io.BytesIO()
        np.save(name, np.array(fingerprint))
        with zipfile.ZipFile(partial, "a") as file:
            # An entry without a date of its own: the file is a function of what it holds.
            file.writestr(zipfile.ZipInfo(f"{OF}.npy"), name.getvalue())
        os.replace(partial, path)
    return fitted
