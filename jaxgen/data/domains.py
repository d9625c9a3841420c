"""Data sets of two domains: x, and the source that it is made from; in pairs, or apart."""

import dataclasses
import hashlib
import json

import numpy as np

from jaxgen.data.dataset import Dataset
from jaxgen.data.pairing import Pairing
from jaxgen.data.splits import Split
from jaxgen.errors import UserError
from jaxgen.spec import DataSpec


def beside(x: Dataset, source: Dataset, paired: bool) -> Dataset:
    """Returns x with the other data set as its source: example by example, or apart."""

    def joined(split: Split, other: Split) -> Split:
        if paired:
            assert len(split) == len(other), f"{len(split)} and {len(other)} make no pairs"
            return Split({**split.columns, "source": other.x}, split.apart)
        return Split(split.columns, {**split.apart, "source": other.x})

    return dataclasses.replace(
        x,
        name=x.name if paired else f"{x.name} from {source.name}",
        spec=dataclasses.replace(x.spec, source=source.spec),
        splits={name: joined(split, source.splits[name]) for name, split in x.splits.items()},
        fingerprint=_digest(x.fingerprint, source.fingerprint, paired),
        protocol=f"{x.protocol}; made from {'' if paired else 'what is apart, '}{source.protocol}",
    )


def with_pairing(data: Dataset, name: str) -> Dataset:
    """Returns the data set with sources that the pairing of that name makes from x.

    Raises UserError where it does not suit the data.
    """
    if data.spec.source is not None:
        raise UserError(f"--pairing={name}: {data.name} has a source of its own; leave it out")
    pairing = Pairing(name, data.spec)
    splits = {
        # Those of the train split are made in the train step.
        split: part if split == "train" else _with_sources(part, pairing)
        for split, part in data.splits.items()
    }
    between = f"{_size(pairing.source)} to {_size(data.spec)}"
    return dataclasses.replace(
        data,
        spec=dataclasses.replace(data.spec, source=pairing.source),
        splits=splits,
        fingerprint=_digest(data.fingerprint, name),
        protocol=f"{data.protocol}; pairs by {name}: {pairing.says}, {between}",
        pairing=pairing,
    )


def apart(data: Dataset) -> Dataset:
    """Returns the data set with its train split in two disjoint halves: x of the one, and apart
    from it, the source of the other. Validation and test keep their pairs, to measure by.

    Halves are drawn with seed 0, and keep the stored order.
    """
    train = data.splits["train"]
    if data.spec.source is None:
        raise UserError("--unpaired needs pairs to take apart: give a --pairing")
    if "source" in train.apart:
        raise UserError(f"--unpaired: {data.name} is of two domains apart already; leave it out")
    if len(train) < 4:
        raise UserError(
            f"--unpaired: the train split has {len(train)} examples, and each half needs two"
        )
    order = np.random.default_rng(0).permutation(len(train))
    first, second = np.sort(order[: (len(order) + 1) // 2]), np.sort(order[(len(order) + 1) // 2 :])
    columns = train.take(first)
    columns.pop("source", None)
    # Where a pairing makes the sources, it makes these in the train step too.
    source = train.columns.get("source", train.x)[second]
    return dataclasses.replace(
        data,
        splits={**data.splits, "train": Split(columns, {"source": source})},
        fingerprint=_digest(data.fingerprint, "unpaired"),
        protocol=f"{data.protocol}; train unpaired: x of {len(first)} examples, sources of the "
        f"{len(second)} others, divided by seed 0",
    )


def _with_sources(split: Split, pairing: Pairing) -> Split:
    return Split({**split.columns, "source": pairing.made(split.x)}, split.apart)


def _size(spec: DataSpec) -> str:
    return "x".join(map(str, spec.shape))


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
