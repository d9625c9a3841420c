"""A user's file of arrays, as NumPy writes it."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.arrays import Stored, array_source, described
from jaxgen.data.sources.base import Source
from jaxgen.data.splits import SPLITS
from jaxgen.errors import UserError

COLUMNS = "x", "label", "source"
OTHER_KEYS = {
    "levels": "one integer, the number of levels of x (of points: bins a coordinate)",
    "class_names": "a name for each class, [classes]",
    "paired": "True, or False where sources stand apart from x",
}
"""What a file may say beside its columns, as the arguments of `array_source`."""


def read_columns(path: Path) -> tuple[Stored, dict[str, Any]]:
    """Returns what a .npy or .npz file holds: columns by split, and what else it says.

    The keys of an .npz file are x, label and source, alone (of train) or as train_x,
    validation_x, …, and OTHER_KEYS. arr_0, NumPy's name for an array that was given none, is x
    where there is no other, and else what x is shown by. A .npy file is x alone.
    """
    if not path.is_file():
        raise UserError(f"--data_dir={path} is not a file")
    try:
        # No pickles: a file of data must not be able to run code.
        file = np.load(path, allow_pickle=False)
        held = {"x": file} if isinstance(file, np.ndarray) else {k: file[k] for k in file.files}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
        raise UserError(f"{path} is not a readable .npy or .npz file ({error})") from error
    nameless = held.pop("arr_0", None)
    if nameless is not None and not {"x", "train_x"} & held.keys():
        held["x"] = nameless
    other = {key: held.pop(key) for key in OTHER_KEYS if key in held}
    stored: dict[str, dict[str, np.ndarray]] = {}
    for key, array in held.items():
        split, _, column = key.rpartition("_")
        if column not in COLUMNS or split not in ("", *SPLITS):
            raise UserError(
                f"{path} has the key {key!r}; there are {', '.join(COLUMNS)}, each alone or as "
                f"train_x, validation_x, test_x, …, and {', '.join(OTHER_KEYS)}"
            )
        columns = stored.setdefault(split or "train", {})
        if column in columns:
            raise UserError(f"{path} has both {column} and train_{column}: keep one")
        columns[column] = array
    for split in ("train", *stored):
        if "x" not in stored.get(split, {}):
            raise UserError(f"{path} has no x of {split}: store it as {split}_x")
    return stored, {key: _plain(path, key, value) for key, value in other.items()}


def _plain(path: Path, key: str, value: np.ndarray) -> Any:
    """What an array under one of OTHER_KEYS means."""
    if key == "class_names" and value.ndim == 1:
        return tuple(map(str, value))
    if key != "class_names" and value.ndim == 0 and value.dtype.kind in "iub":
        return bool(value) if key == "paired" else int(value)
    raise UserError(f"{path}: {key} is {described(value)}; it must be {OTHER_KEYS[key]}")


def npz_source(config: DataConfig) -> Source:
    """Returns the arrays of the file --data_dir."""
    path = Path(config.data_dir or "")
    stored, other = read_columns(path)
    return array_source(f"arrays:{path.stem}", stored, **other)
