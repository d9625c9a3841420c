"""A source to a data set: read, binarized, and given what its examples are made from."""

import dataclasses
import hashlib
import json
from collections.abc import Callable

import numpy as np

from jaxgen.data.binarize import Draw, draw_once, threshold
from jaxgen.data.build import Meta
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.domains import apart, beside, with_pairing
from jaxgen.data.protocol import protocol
from jaxgen.data.sources.base import Source
from jaxgen.data.splits import Split
from jaxgen.errors import UserError
from jaxgen.spec import DataSpec

Build = Callable[[Source, DataConfig], tuple[dict[str, Split], Meta]]
"""`build`, in memory or through the cache."""


def assemble(source: Source, config: DataConfig, build: Build) -> Dataset:
    """Returns the data set of a source and its own source, as the fields of `config` say.

    Raises UserError for what the stored examples cannot give.
    """
    data = _alone(source, config, build)
    if source.source is not None:
        bare = dataclasses.replace(config, conditional=False, binarize="none")
        other = _alone(source.source, bare, build)
        if source.alike and other.spec.shape != data.spec.shape:
            raise UserError(
                f"{data.name} has images of {_size(data.spec)} and {other.name} of "
                f"{_size(other.spec)}: {source.alike}"
            )
        data = beside(data, other, source.paired)
    if config.pairing != "none":
        data = with_pairing(data, config.pairing)
    return apart(data) if config.unpaired else data


def _size(spec: DataSpec) -> str:
    return "x".join(map(str, spec.shape))


def _alone(source: Source, config: DataConfig, build: Build) -> Dataset:
    """The data set without a source of its examples."""
    if config.conditional and not source.class_names:
        raise UserError(f"--conditional needs labels, and {source.name} has none; leave it out")
    splits, meta = build(source, config)
    labels = [split.label for split in splits.values() if split.label is not None]
    if config.conditional and any(np.any(group < 0) for group in labels):
        raise UserError(f"--conditional needs labels, and some of {source.name} have none")
    levels = meta["levels"]
    if config.binarize != "none" and (levels in (0, 2) or source.ranges):
        held = "binary" if levels == 2 else "of points" if source.ranges else "of real numbers"
        raise UserError(f"--binarize={config.binarize}: {source.name} is {held}; leave it out")
    spec = _spec(source, config, splits["train"], levels)
    return Dataset(
        name=source.name,
        spec=spec,
        splits=_binarized(config, splits, levels),
        class_names=source.class_names,
        fingerprint=_fingerprint(source, config, meta),
        protocol=protocol(config, source, splits, meta, spec),
        dynamic=Draw(levels, config.binarize_seed) if config.binarize == "dynamic" else None,
        density=source.density,
        modes=source.modes,
        channel_classes=source.channel_classes,
    )


def _spec(source: Source, config: DataConfig, train: Split, levels: int) -> DataSpec:
    height, width, channels = train.x.shape[1:]
    return DataSpec(
        height,
        width,
        channels,
        levels=2 if config.binarize != "none" else levels,
        num_classes=len(source.class_names) if config.conditional else 0,
        rate=source.rate,
        ranges=source.ranges,
    )


def _fingerprint(source: Source, config: DataConfig, meta: Meta) -> str:
    seed = config.binarize_seed if config.binarize in ("static", "dynamic") else None
    identity = [meta["digest"], meta["levels"], source.class_names, config.binarize, seed]
    identity += [source.ranges] * bool(source.ranges)
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _binarized(config: DataConfig, splits: dict[str, Split], levels: int) -> dict[str, Split]:
    if config.binarize == "none":
        return splits
    if config.binarize == "threshold":
        return {name: threshold(split, levels) for name, split in splits.items()}
    draw = Draw(levels, config.binarize_seed)
    # Validation and test are drawn once, from the seed that the protocol prints: to draw the
    # MNIST test set anew moves its mean by 0.05 nats, as much as papers differ by.
    keep = {"train"} if config.binarize == "dynamic" else set()
    return {
        name: split if name in keep else draw_once(draw, name, split)
        for name, split in splits.items()
    }
