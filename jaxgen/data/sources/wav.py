"""A folder of .wav files, cut into clips of one length."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.sources.tree import TOLD, Tree, every, read_tree
from jaxgen.data.splits import SPLITS, carve
from jaxgen.errors import UserError, warn
from jaxgen.media.sound import mu_law_encode, read_wav, resample, resampled_size, wav_size

SUFFIXES = (".wav",)
LOUD = "clips with samples beyond full scale, which are clipped"


class Recording(NamedTuple):
    """A file, from its header."""

    path: Path
    """Relative to the folder."""
    rate: int
    clips: int
    """Whole clips in it."""


def wav_source(config: DataConfig) -> Source:
    """Returns the clips of --size samples in the .wav files under --data_dir, in the natural order
    of the files' paths; what is left over at a file's end is dropped, and so are shorter files.

    Sub-folders are splits and labels as in a folder of images. Where they name no splits, files,
    not clips, are divided: no file is in two splits.
    """
    tree, rate, recordings = _recordings(read_tree(config, SUFFIXES, "sounds"), config)
    name, root = f"wav:{tree.name}", tree.root
    sizes = {split: len(group) for split, group in tree.splits.items()}
    parts, carved = carve(name, sizes, "files", least=1)
    splits = {
        split: [recordings[tree.splits[part.stored][i]] for i in part.ids]
        for split, part in parts.items()
    }

    @lru_cache(maxsize=1)  # clips of a file are asked for one after another
    def levels(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
        old, wave = read_wav(root / recording.path)
        loud = np.abs(wave).max() > 1  # as stored: resampling overshoots by itself
        wave = resample(wave, old, rate)
        return mu_law_encode(wave), loud & (np.abs(wave) > 1)

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        ends = np.cumsum([recording.clips for recording in splits[split]])
        for i in ids:
            at = int(np.searchsorted(ends, i, side="right"))
            recording = splits[split][at]
            first = int(i - ends[at] + recording.clips) * config.size
            image, loud = (x[first : first + config.size] for x in levels(recording))
            where = f"{root / recording.path} at sample {first}"
            done = (LOUD,) * bool(loud.any())
            yield Example(where, image.reshape(1, -1, 1), tree.label(recording.path), done)

    counts = ", ".join(f"{split} {len(splits[split])}" for split in SPLITS)
    divided = ", divided by seed 0" if carved else ""
    return Source(
        name=name,
        stamp=[config.rate, *tree.stamp],
        sizes={split: sum(r.clips for r in group) for split, group in splits.items()},
        class_names=tree.class_names,
        levels=256,
        read=read,
        rate=rate,
        what="clips",
        note=f"clips of {len(recordings)} files ({counts}{divided})",
    )


def _recordings(tree: Tree, config: DataConfig) -> tuple[Tree, int, dict[Path, Recording]]:
    """The files that are long enough, the rate of all, and what each file's header says."""
    root, files = tree.root, tree.files
    headers = dict(zip(files, every(lambda file: wav_size(root / file), files), strict=True))
    rate = config.rate or headers[files[0]][0]
    found, short = {}, []
    for file, (stored, samples) in headers.items():
        if not config.rate and stored != rate:
            raise UserError(
                f"the files differ in their rate: {root / file} has {stored} samples a second, "
                f"and {files[0]} has {rate}; give --rate=N to resample them"
            )
        clips = resampled_size(samples, stored, rate) // config.size
        if clips:
            found[file] = Recording(file, stored, clips)
        else:
            short.append(file)
    if short:
        named = ", ".join(map(str, short[:TOLD])) + ", …" * (len(short) > TOLD)
        told = f"{len(short)} of {len(files)} files have fewer than --size={config.size} samples"
        if not found:
            raise UserError(f"{root}: {told} at {rate} Hz ({named}): give a smaller --size")
        warn(f"{root}: {told} at {rate} Hz, and are left out ({named})")
    return tree.only(found), rate, found
