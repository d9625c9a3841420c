"""A user's file of points: a table of numbers, a row for each."""

import csv
from pathlib import Path

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.arrays import array_source
from jaxgen.data.sources.base import Source
from jaxgen.data.sources.npz import read_columns
from jaxgen.errors import UserError

DELIMITERS = ",;\t"
"""The separator of a .csv file is the first of these that its first line has."""


def points_source(config: DataConfig) -> Source:
    """Returns the points of the file --data_dir: a .csv, or a .npy or .npz of [n d]."""
    path = Path(config.data_dir or "")
    name = f"points:{path.stem}"
    if path.suffix.lower() == ".csv":
        points, names = read_table(path)
        return array_source(name, {"train": {"x": points}}, coordinates=names)
    stored, other = read_columns(path)
    shaped = {
        split: {**columns, "x": _points(path, columns["x"])} for split, columns in stored.items()
    }
    return array_source(name, shaped, **other)


def _points(path: Path, x: np.ndarray) -> np.ndarray:
    number = np.issubdtype(x.dtype, np.integer) or np.issubdtype(x.dtype, np.floating)
    if not number or x.ndim not in (1, 2):
        raise UserError(
            f"{path} holds {x.dtype} of shape {x.shape}: points are numbers [n d]; images are for "
            "--dataset=arrays"
        )
    return x.astype(np.float64)


def read_table(path: Path) -> tuple[np.ndarray, list[str]]:
    """Returns the numbers of a .csv file, float64 [n d], and the names of its columns.

    A first line in which nothing is a number names the columns; else they are numbered from 1.
    Raises UserError naming the row and the column of what is no number, or not finite.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = next((mark for mark in DELIMITERS if mark in first), ",")
            reader = csv.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--data_dir={path} is not a readable .csv file ({error})") from error
    header = bool(lines) and all(_number(cell) is None for cell in lines[0][1])
    names = [name.strip() for name in lines.pop(0)[1]] if header else []
    if not lines:
        raise UserError(f"{path} holds no rows of numbers")
    names = names or [f"{i}" for i in range(1, len(lines[0][1]) + 1)]
    points = np.empty((len(lines), len(names)))
    for i, (line, row) in enumerate(lines):
        if len(row) != len(names):
            raise UserError(f"{path} line {line} has {len(row)} columns, and others {len(names)}")
        for j, cell in enumerate(row):
            number = _number(cell)
            if number is None or not np.isfinite(number):
                raise UserError(
                    f"{path} line {line}, column {names[j]}: {cell.strip()!r} is not "
                    "a finite number; mend the row or remove it"
                )
            points[i, j] = number
    return points, [f"{path} column {name}" for name in names]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
