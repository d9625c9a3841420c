"""The numbers of a finished run: likelihoods beside baselines, sample scores beside floors."""

import functools
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgen import evaluate, loop, scores, tables
from jaxgen.baselines import Baselines, fit_baselines
from jaxgen.checkpoint import Checkpoints
from jaxgen.data import Dataset
from jaxgen.describe import parameters
from jaxgen.features import Features, fit_features
from jaxgen.feed import full_batch
from jaxgen.losses import bits_per_dim
from jaxgen.members import keys_of
from jaxgen.model import ImageSpec, Inspection, Model
from jaxgen.parallel import WHOLE, make_mesh, put
from jaxgen.run import Run
from jaxgen.rundir import write_atomic
from jaxgen.sound import spectrograms
from jaxgen.trainer import Score

INSPECTED = 500
"""Images of the validation split that a model is inspected on."""

SHOWN = 100
"""Samples and real images in the report."""

CHUNK = 1000
"""Sounds that are transformed at a time."""

Fitted = TypeVar("Fitted", Baselines, Features)


def make_score(run: Run, dataset: Dataset, directory: Path) -> tuple[Features, Score]:
    """The features of the data set, and the score that a model without likelihood is validated
    by: samples uint8 [n h w c] to their Fréchet distance to the validation split."""
    features = features_of(dataset, directory)
    spec = dataset.spec
    seen = scored(dataset.materialize("validation").images, spec)
    reference = scores.Reference.of(features, seen)
    return features, lambda images: {"frechet": reference.frechet(scored(images, spec))}


def scored(images: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """What sample scores look at: the images [n h w c] as they are, of sounds the spectrograms.

    Two waves that sound alike differ in every sample, but for their phase; spectrograms do not.
    """
    if not spec.rate:
        return images
    chunks = (images[i : i + CHUNK] for i in range(0, len(images), CHUNK))
    return np.concatenate([spectrograms(chunk, spec) for chunk in chunks])


def features_of(dataset: Dataset, directory: Path) -> Features:
    """The features fitted on the train split with whatever labels it has; kept in the run."""
    train, spec = dataset.materialize("train"), dataset.spec
    name = f"spectrograms of {dataset.name}" if spec.rate else dataset.name

    def fit() -> Features:
        images = scored(train.images, spec)
        return fit_features(images, train.labels, spec.levels, dataset=name)

    return _kept(directory / "features.npz", Features, fit)


def baselines_of(dataset: Dataset, directory: Path) -> Baselines:
    """The baselines fitted on train, their sizes chosen on validation; kept in the run."""
    train, validation = dataset.materialize("train"), dataset.materialize("validation")
    fit = lambda: fit_baselines(train.images, validation.images, dataset.spec.levels)  # noqa: E731
    return _kept(directory / "baselines.npz", Baselines, fit)


def _kept(path: Path, kind: type[Fitted], fit: Callable[[], Fitted]) -> Fitted:
    """What `path` holds; or else the fit, which is then kept there."""
    try:
        return kind.load(path)
    except Exception:  # not there, or damaged: zipfile, numpy and the fields raise all kinds
        fitted = fit()
    partial = path.with_name(f".{path.stem}.partial.npz")
    fitted.save(partial)
    os.replace(partial, path)
    return fitted


def final_results(
    run: Run,
    dataset: Dataset,
    mesh: Mesh,
    state: Any,
    step: int,
    directory: Path,
    split: str = "test",
) -> dict[str, Any]:
    """All numbers of a trained model on a whole split, ready for JSON.

    `state` is the model's, from the checkpoint of `step`. Nats are per image, bits per dimension;
    `se` is the standard error of a mean over the images.
    """
    began = time.monotonic()
    model, keys = run.model.thorough(), keys_of(run.train.seed)
    state = put(mesh, WHOLE, state)
    images = dataset.materialize(split)
    size = run.train.batch_size
    values = evaluate.per_example(model, mesh, keys.evaluate, state, images, size)
    shown = inspect(run, dataset, state)
    results = {
        "model": run.name,
        "parameters": parameters(state),
        "step": step,
        "monitor": run.model.monitor,
        "seed": run.train.seed,
        "dataset": dataset.name,
        "protocol": dataset.protocol,
        "fingerprint": dataset.fingerprint,
        "split": split,
        "images": len(images.images),
        "likelihood": None,
        "metrics": {name: _mean(v) for name, v in values.items() if name != "nll"},
        "scores": _scores(run, dataset, mesh, state, directory, split),
        "inspection": {name: np.asarray(x).item() for name, x in shown.numbers.items()},
    }
    if "nll" in values:
        baselines = baselines_of(dataset, directory)
        others = baselines.nll(np.asarray(images.images))
        results["likelihood"] = {
            # log p(x | label) is not what the baselines measure: say so beside it.
            "kind": model.likelihood_kind + (", given the label" if model.spec.num_classes else ""),
            "model": _likelihood(values["nll"], dataset.spec.dims),
            "baselines": {n: _likelihood(v, dataset.spec.dims) for n, v in others.items()},
            "protocol": baselines.protocol,
        }
    return _finite({**results, "seconds": round(time.monotonic() - began, 1)})


def _likelihood(values: np.ndarray, dims: int) -> dict[str, float]:
    """Mean and standard error of NLLs [n] in nats, in both units."""
    nats = _mean(values)
    bits = {name: float(bits_per_dim(value, dims)) for name, value in nats.items()}
    return {
        "nats": nats["mean"],
        "nats_se": nats["se"],
        "bits_per_dim": bits["mean"],
        "bits_per_dim_se": bits["se"],
    }


def _mean(values: np.ndarray) -> dict[str, float]:
    """Mean and standard error of values [n]."""
    found = evaluate.mean_and_error({"mean": values})
    return {"mean": found["mean"], "se": found["mean_se"]}


def _scores(
    run: Run, dataset: Dataset, mesh: Mesh, state: Any, directory: Path, split: str
) -> dict[str, Any] | None:
    """The panel of scores and the class histogram; None where it would mean nothing: on the
    train split, which is the floor itself, and on splits too small for its neighbours."""
    reference = scored(np.asarray(dataset.materialize(split).images), dataset.spec)
    train = scored(np.asarray(dataset.materialize("train").images), dataset.spec)
    if split == "train" or min(len(reference), len(train)) <= scores.NEIGHBOURS:
        return None
    features = features_of(dataset, directory)
    # Not the samples that the checkpoint may have been chosen by.
    key = jax.random.fold_in(keys_of(run.train.seed).sample, 1)
    drawn = scored(evaluate.draw(run.model, mesh, key, state, run.train.samples), dataset.spec)
    panel = scores.panel(features, reference, drawn, train, split)
    labelled = "; samples of every class in turn" if run.model.spec.num_classes else ""
    return {
        "samples": len(drawn),
        "model": panel.values,
        "floor": panel.floor,
        "protocol": panel.protocol + labelled,
        "classes": _classes(features, dataset, reference, drawn),
    }


def _classes(
    features: Features, dataset: Dataset, real: np.ndarray, drawn: np.ndarray
) -> dict[str, list] | None:
    """The share of each class, as the features' classifier sees it, in both sets."""
    of_real, of_drawn = features.predict(real), features.predict(drawn)
    if of_real is None or of_drawn is None:
        return None
    names = list(dataset.class_names)
    share = lambda classes: scores.class_histogram(classes, len(names)).tolist()  # noqa: E731
    return {"names": names, "real": share(of_real), "samples": share(of_drawn)}


def inspect(run: Run, dataset: Dataset, state: Any) -> Inspection:
    """What the model shows of itself on the first validation images, on the host."""
    split = dataset.materialize("validation")
    labels = split.labels if run.model.spec.num_classes else None
    batch = full_batch(split.images, labels, INSPECTED)
    return jax.device_get(_inspect(run.model)(keys_of(run.train.seed).sample, state, batch))


@functools.lru_cache(maxsize=4)
def _inspect(model: Model) -> Callable[..., Inspection]:
    return jax.jit(model.inspect)


def finish(
    run: Run, dataset: Dataset, directory: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures a run, as `measure` does, and says what came out."""
    results, page = measure(run, dataset, directory, say)
    say(table(results))
    say(f"report: {page}")
    return results


def measure(
    run: Run, dataset: Dataset, directory: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], Path]:
    """Measures the best checkpoint on the test split; writes results.json and the report.

    Returns the results and the report's path. It needs the run's directory and the data set
    alone, and may be called again.
    """
    from jaxgen.report import write_report

    directory = Path(directory)
    mesh, keys = make_mesh(run.train.devices, run.train.batch_size), keys_of(run.train.seed)
    fresh = jax.eval_shape(lambda: loop.start(run.model.init(keys.init)))
    with Checkpoints(directory / "checkpoints", say=say, read_only=True) as checkpoints:
        progress, step = checkpoints.restore(fresh, "best")
    state = put(mesh, WHOLE, progress.state)
    results = final_results(run, dataset, mesh, state, step, directory)
    write(directory / "results.json", results)
    samples = evaluate.draw(run.model, mesh, keys.sample, state, SHOWN)
    real = np.asarray(dataset.materialize(results["split"]).images[:SHOWN])
    page = write_report(directory, run, results, samples, real, inspect(run, dataset, state))
    return results, page


def table(results: dict[str, Any]) -> str:
    """What `final_results` returned, as plain text."""
    return tables.text(results)


def write(path: Path, results: dict[str, Any]) -> None:
    """Writes results as JSON, atomically."""
    write_atomic(path, (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())


def _finite(tree: Any) -> Any:
    """The tree with None for what is not finite, which JSON cannot hold."""
    if isinstance(tree, dict):
        return {name: _finite(value) for name, value in tree.items()}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
