"""The numbers of a finished run: likelihoods beside baselines, sample scores beside floors."""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgen.data.dataset import Dataset
from jaxgen.evaluation import scores
from jaxgen.evaluation.describe import parameters
from jaxgen.evaluation.features import Features
from jaxgen.evaluation.fitted import baselines_of, features_of
from jaxgen.media.kinds import scored
from jaxgen.model import Inspection, Model
from jaxgen.parallel import inference
from jaxgen.parallel.inference import full_batch
from jaxgen.parallel.mesh import WHOLE, put
from jaxgen.runs.config import Run
from jaxgen.runs.state import keys_of
from jaxgen.spec import bits_per_dim

INSPECTED = 500
"""Images of the validation split that a model is inspected on."""

SHOWN = 100
"""Samples and real images in the report."""


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
    values = inference.per_example(model, mesh, keys.evaluate, state, images, size)
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
    found = inference.mean_and_error({"mean": values})
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
    drawn = scored(inference.draw(run.model, mesh, key, state, run.train.samples), dataset.spec)
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


def _finite(tree: Any) -> Any:
    """The tree with None for what is not finite, which JSON cannot hold."""
    if isinstance(tree, dict):
        return {name: _finite(value) for name, value in tree.items()}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
