"""TFDS image data sets, read from prepared array_record files; TensorFlow is never imported."""

import difflib
import hashlib
import io
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.sources.images import decode
from jaxgen.data.splits import SPLITS
from jaxgen.errors import UserError
from jaxgen.files import user_path

BATCH = 256
MODES = {1: "L", 3: "RGB", 4: "RGBA", None: "RGB"}
"""Pillow's mode for a number of channels."""


def tfds_dir(data_dir: str | None) -> Path:
    """Returns the TFDS directory that --data_dir, or its default, names."""
    if data_dir is not None:
        return user_path(data_dir, "--data_dir")
    return user_path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "$TFDS_DATA_DIR")


def tfds_source(config: DataConfig, built_in: tuple[str, ...] = ()) -> Source:
    """Returns the prepared data set that --dataset and --data_dir name; `built_in` are the other
    names that there are."""
    folder = _find(config, built_in)
    import tensorflow_datasets as tfds

    # From its directory: the data set's own code is not run, so it cannot ask for TensorFlow.
    builder: Any = tfds.builder_from_directory(folder)
    info = builder.info
    if info.file_format is None or info.file_format.value != "array_record":
        raise UserError(
            f"{folder} is not in the array_record format, which is the one jaxgen reads; run "
            f"`jaxgen prepare {config.dataset} --data_dir DIR` with another --data_dir"
        )
    if "train" not in info.splits:
        raise UserError(f"{config.dataset} has no train split; it has {', '.join(info.splits)}")
    image, mode, label = _features(config.dataset, info.features)
    sizes = {name: info.splits[name].num_examples for name in SPLITS if name in info.splits}
    decoders = {image: tfds.decode.SkipDecoding()}

    @cache
    def records(split: str) -> Any:
        return builder.as_data_source(split=split, decoders=decoders)

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for start in range(0, len(ids), BATCH):
            chunk = ids[start : start + BATCH].tolist()
            try:
                examples = records(split).__getitems__(chunk)
            except (RuntimeError, ValueError, IndexError, OSError) as error:
                raise UserError(
                    f"the {split} split in {folder} is damaged ({error}); prepare it again"
                ) from error
            for i, example in zip(chunk, examples, strict=True):
                where = f"{config.dataset} {split} example {i}"
                picture = decode(io.BytesIO(example[image]), mode, where)
                yield Example(where, picture, int(example[label]) if label else -1)

    return Source(
        name=f"{info.full_name.rpartition('/')[0]}:{info.version}",
        stamp=_stamp(folder, info, sizes),
        sizes=sizes,
        class_names=tuple(info.features[label].names) if label else (),
        levels=None,
        read=read,
    )


def _features(name: str, features: Any) -> tuple[str, str, str | None]:
    """Returns the image feature, its Pillow mode, and the label feature if there is one."""
    import tensorflow_datasets as tfds

    images = sorted(k for k, v in features.items() if isinstance(v, tfds.features.Image))
    if len(images) != 1:
        held = f"{len(images)} ({', '.join(images)})" if images else "none"
        raise UserError(f"--dataset={name} must have one image feature; it has {held}")
    feature = features[images[0]]
    if feature.np_dtype != "uint8" or feature.shape[-1] not in MODES:
        raise UserError(
            f"--dataset={name} has images of {feature.np_dtype} with {feature.shape[-1]} channels; "
            "jaxgen reads 8-bit images with 1, 3 or 4 channels"
        )
    labelled = isinstance(dict(features.items()).get("label"), tfds.features.ClassLabel)
    return images[0], MODES[feature.shape[-1]], "label" if labelled else None


def _stamp(folder: Path, info: Any, sizes: dict[str, int]) -> list[Any]:
    """The directory, the hash of its description, and the files' sizes and times."""
    stamp: list[Any] = [str(folder)]
    for name in ("dataset_info.json", "features.json"):
        stamp.append(hashlib.sha256((folder / name).read_bytes()).hexdigest())
    for path in (path for name in sizes for path in info.splits[name].filepaths):
        try:
            stat = os.stat(path)
        except OSError as error:
            raise UserError(f"{path} is missing ({error.strerror}); prepare it again") from error
        stamp.append([str(path), stat.st_size, stat.st_mtime_ns])
    return stamp


def _find(config: DataConfig, built_in: tuple[str, ...]) -> Path:
    """Returns the directory of the version asked for, or of the newest one prepared."""
    root = tfds_dir(config.data_dir)
    if config.data_dir and not root.is_dir():
        raise UserError(f"--data_dir={config.data_dir} is not a directory")
    match = re.fullmatch(r"(\w+(?:/[\w.+-]+)?)(?::(\d+\.\d+\.\d+))?", config.dataset)
    if not match:
        _refuse_path(config.dataset)
        raise UserError(
            f"--dataset={config.dataset!r} is not of the form name or name:1.2.3; a path is for "
            "--data_dir, beside --dataset=folder"
        )
    name, version = match.groups()
    versions = [path for path in _prepared(root / name) if version in (None, path.name)]
    if not versions:
        raise _not_found(name, version, root, built_in)
    return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])


def _prepared(folder: Path) -> list[Path]:
    """The directories of the versions below; of an interrupted preparation the name differs."""
    folders = (path.parent for path in sorted(folder.glob("*/dataset_info.json")))
    return [path for path in folders if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]


def _refuse_path(name: str) -> None:
    """Raises UserError if it is not the name of a data set but a place on this machine."""
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        kinds = "folder, which is of images, or wav, which is of sounds"
    elif path.is_file():
        kinds = "arrays, which is an .npz file, or points, which is a .csv, .npy or .npz file"
    else:
        return
    raise UserError(f"--dataset={name} is a path: give --data_dir={name} and --dataset={kinds}")


def _not_found(name: str, version: str | None, root: Path, built_in: tuple[str, ...]) -> UserError:
    import tensorflow_datasets as tfds

    _refuse_path(name)
    names = sorted([*root.glob("*"), *root.glob("*/*")])  # a set, or a configuration of one
    folders = [path.relative_to(root) for folder in names for path in _prepared(folder)]
    here = [f"{folder.parent.as_posix()}:{folder.name}" for folder in folders]
    known = {*built_in, *tfds.list_builders(with_community_datasets=False)}
    known |= {prepared.split(":")[0] for prepared in here}
    if name.split("/")[0] not in {other.split("/")[0] for other in known}:
        near = difflib.get_close_matches(name, sorted(known), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "it is not a TFDS data set either"
        return UserError(f"unknown --dataset={name}; {hint} (built in: {', '.join(built_in)})")
    wanted = f"{name}:{version}" if version else name
    return UserError(
        f"--dataset={wanted} is not prepared: no {root}/{name}/{version or '*'}/dataset_info.json "
        f"(there: {', '.join(here) or 'nothing'}). Run `jaxgen prepare {wanted} --data_dir {root}`,"
        " or name another TFDS directory with --data_dir"
    )
