"""A folder of .wav files, cut into clips of one length."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.sources.folder import files_below, folder_names, stamp, stored_splits
from jaxgen.data.splits import SPLITS, carve
from jaxgen.errors import UserError
from jaxgen.media.sound import mu_law_encode, read_wav, resample, resampled_size, wav_size

SUFFIXES = (".wav",)


class Recording(NamedTuple):
    """A file, from its header."""

    path: Path
    """Relative to the folder."""
    rate: int
    clips: int
    """Whole clips in it."""


def wav_source(config: DataConfig) -> Source:
    """Returns the clips of --size samples in the .wav files under --data_dir, in the order of
    the files' paths; what is left over at a file's end is dropped.

    Sub-folders are splits and labels as in a folder of images. Where they name no splits, files,
    not clips, are divided: no file is in two splits.
    """
    root = Path(config.data_dir or "").expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"--data_dir={config.data_dir} is not a directory")
    files = files_below(root, SUFFIXES)
    if not files:
        raise UserError(f"--data_dir={config.data_dir} holds no .wav files")
    name = f"wav:{root.name}"
    depth, stored = stored_splits(files, root)
    class_names = folder_names(files, depth)
    parts, carved = carve(name, {k: len(group) for k, group in stored.items()}, "files")
    rate = config.rate or wav_size(root / files[0])[0]
    splits = {
        split: [_recording(root, stored[part.stored][i], config, rate) for i in part.ids]
        for split, part in parts.items()
    }

    @lru_cache(maxsize=1)  # clips of a file are asked for one after another
    def levels(recording: Recording) -> np.ndarray:
        old, wave = read_wav(root / recording.path)
        return mu_law_encode(resample(wave, old, rate))

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        ends = np.cumsum([recording.clips for recording in splits[split]])
        for i in ids:
            at = int(np.searchsorted(ends, i, side="right"))
            recording = splits[split][at]
            first = int(i - ends[at] + recording.clips) * config.size
            image = levels(recording)[first : first + config.size].reshape(1, -1, 1)
            label = class_names.index(recording.path.parts[depth]) if class_names else -1
            yield Example(f"{root / recording.path} at sample {first}", image, label)

    counts = ", ".join(f"{split} {len(splits[split])}" for split in SPLITS)
    divided = ", divided by seed 0" if carved else ""
    return Source(
        name=name,
        stamp=[str(root), config.rate, *(stamp(root, file) for file in files)],
        sizes={split: sum(r.clips for r in group) for split, group in splits.items()},
        class_names=class_names,
        levels=256,
        read=read,
        rate=rate,
        note=f"clips of {len(files)} files ({counts}{divided})",
    )


def _recording(root: Path, file: Path, config: DataConfig, rate: int) -> Recording:
    stored, samples = wav_size(root / file)
    if not config.rate and stored != rate:
        raise UserError(
            f"the files differ in their rate: {root / file} has {stored} samples a second, and "
            f"another has {rate}; give --rate=N to resample them"
        )
    samples = resampled_size(samples, stored, rate)
    if samples < config.size:
        raise UserError(
            f"{root / file} has {samples} samples at {rate} Hz, fewer than --size={config.size}: "
            "give a smaller --size, or remove it"
        )
    return Recording(file, stored, samples // config.size)
