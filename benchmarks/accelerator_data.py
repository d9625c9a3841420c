"""MNIST as .npz files that travel to a machine without TFDS: written here, read there."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

import jaxgen
from jaxgen.data.binarize import Draw
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import Split
from jaxgen.files import write_atomic

CONFIGS: dict[str, dict[str, Any]] = {
    "static": {"dataset": "binarized_mnist"},
    "dynamic": {"dataset": "mnist", "binarize": "dynamic"},
}
"""The data sets of the figures; of "dynamic", validation and test are drawn before they travel."""


def path(folder: Path, name: str) -> Path:
    return folder / f"mnist-{name}.npz"


def prepare(folder: Path, data_dir: str | None) -> list[Path]:
    """Loads both data sets as every run does, and writes one compressed file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in CONFIGS.items():
        save(path(folder, name), jaxgen.load(DataConfig(data_dir=data_dir, **fields)))
    return [path(folder, name) for name in CONFIGS]


def save(file: Path, dataset: Dataset) -> None:
    """Everything but the labels, which no figure here needs."""
    meta = {
        "name": dataset.name,
        "spec": dataclasses.asdict(dataset.spec),
        "fingerprint": dataset.fingerprint,
        "protocol": dataset.protocol,
        "dynamic": dataclasses.asdict(dataset.dynamic) if dataset.dynamic else None,
    }
    arrays = {name: np.asarray(split.x) for name, split in dataset.splits.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, meta=np.array(json.dumps(meta)), **arrays)
    write_atomic(file, buffer.getvalue())


def read(file: Path) -> Dataset:
    """What `save` wrote, with no use of TFDS."""
    with np.load(file) as stored:
        meta = json.loads(str(stored["meta"]))
        names = ("train", "validation", "test")
        splits = {name: Split.of(np.array(stored[name])) for name in names}
    fields = meta["spec"]  # of images: no ranges, no source
    spec = jaxgen.DataSpec(**{**fields, "ranges": tuple(map(tuple, fields.get("ranges", ())))})
    dynamic = Draw(**meta["dynamic"]) if meta["dynamic"] else None
    return Dataset(meta["name"], spec, splits, (), meta["fingerprint"], meta["protocol"], dynamic)
