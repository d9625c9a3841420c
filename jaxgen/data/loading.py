"""A configuration to a data set."""

import hashlib
import json
from collections.abc import Callable

import numpy as np

from jaxgen.data.binarize import Draw, draw_once, threshold
from jaxgen.data.build import Meta, build
from jaxgen.data.cache import cached
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.sources.base import Source
from jaxgen.data.sources.digits import digits
from jaxgen.data.sources.folder import folder_source
from jaxgen.data.sources.tfds import tfds_source
from jaxgen.data.sources.tones import tones
from jaxgen.data.sources.wav import wav_source
from jaxgen.data.splits import Split, carve
from jaxgen.errors import UserError
from jaxgen.spec import ImageSpec

_SOURCES: dict[str, Callable[[DataConfig], Source]] = {
    "digits": lambda config: digits(),
    "tones": tones,
    "folder": folder_source,
    "wav": wav_source,
}
"""Other names are those of TFDS."""


def load(config: DataConfig) -> Dataset:
    """Returns the data set; the first time, TFDS sets and folders are decoded into the cache."""
    source = _SOURCES.get(config.dataset, tfds_source)(config)
    if config.conditional and not source.class_names:
        raise UserError(f"--conditional needs labels, and {source.name} has none; leave it out")
    if config.dataset in ("digits", "tones"):
        # Small enough to need no cache, and so no place to write.
        splits, meta = build(source, config, lambda name, shape, dtype: np.empty(shape, dtype))
    else:
        splits, meta = cached(source, config)
    labels = [split.labels for split in splits.values() if split.labels is not None]
    if config.conditional and any(np.any(group < 0) for group in labels):
        raise UserError(f"--conditional needs labels, and some of {source.name} have none")
    return _dataset(config, source, splits, meta)


def _dataset(config: DataConfig, source: Source, splits: dict[str, Split], meta: Meta) -> Dataset:
    levels = meta["levels"]
    height, width, channels = splits["train"].images.shape[1:]
    if config.binarize != "none" and levels == 2:
        raise UserError(f"--binarize={config.binarize}: {source.name} is binary; leave it out")
    protocol = _protocol(config, source, splits, meta)
    seed = config.binarize_seed if config.binarize in ("static", "dynamic") else None
    identity = [meta["digest"], levels, source.class_names, config.binarize, seed]
    return Dataset(
        name=source.name,
        spec=ImageSpec(
            height,
            width,
            channels,
            levels=2 if config.binarize != "none" else levels,
            num_classes=len(source.class_names) if config.conditional else 0,
            rate=source.rate,
        ),
        splits=_binarized(config, splits, levels),
        class_names=source.class_names,
        fingerprint=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        protocol=protocol,
        dynamic=Draw(levels, config.binarize_seed) if config.binarize == "dynamic" else None,
    )


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


def _protocol(config: DataConfig, source: Source, splits: dict[str, Split], meta: Meta) -> str:
    _, carved = carve(source.name, source.sizes)
    sizes = [
        f"{name} {len(split.images)}" + (" (carved from train, seed 0)" if name in carved else "")
        for name, split in splits.items()
    ]
    height, width, channels = splits["train"].images.shape[1:]
    if source.rate:
        shape = f"{width} samples at {source.rate} Hz ({width / source.rate:.3g} s)"
        return f"{source.name}: {', '.join(sizes)}; {shape}, 256 mu-law levels; {source.note}"
    shape = f"{height}x{width}x{channels}"
    if config.size:
        shape += f" ({config.fit} to {config.size}{', grey' if config.grey else ''})"
    levels, stored = meta["levels"], meta["stored_levels"]
    depth = f"{levels} levels"
    if levels != stored:
        depth += f" of {stored}"
    if stored == 2:
        depth += " (stored binary)"
    seed = config.binarize_seed
    binarized = {
        "none": "",
        "threshold": "; binarized at one half",
        "static": f"; binarized by one draw, seed {seed}",
        "dynamic": f"; train binarized anew every epoch, validation and test once, seed {seed}",
    }[config.binarize]
    return f"{source.name}: {', '.join(sizes)}; {shape}, {depth}{binarized}"
