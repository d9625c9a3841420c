"""What a measure returns: typed numbers with their names and units, and the tables they make."""

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from jaxgen.model import Metric


@dataclass(frozen=True)
class Mean:
    """A mean over examples, and the standard error of that mean; None = not finite, and no error
    is known of a mean over one example."""

    mean: float | None
    se: float | None


Cell = str | float | Mean | None
"""An entry of a table; None = a number that is not finite."""


class Table(NamedTuple):
    """Numbers and words in rows, for the terminal and for the report."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    """The protocol."""
    ranked: bool = False
    """Whether the first row is the model's own, and the others stand beside it."""


def shown(cell: Cell) -> str:
    """An entry as people read it: a mean with its standard error to two significant digits of the
    latter, a number to four."""
    match cell:
        case str():
            return cell
        case Mean(mean=float() as mean, se=float() as se):
            if se <= 1e-9 * abs(mean):  # a constant, but for rounding; also zero
                return shown(mean)
            decimals = max(0, 1 - math.floor(math.log10(se)))
            return f"{mean:.{decimals}f} ± {se:.{decimals}f}"
        case Mean(mean=float() as mean, se=None):
            return shown(mean)
        case float() | int():
            whole = float(cell).is_integer() and abs(cell) < 1e15
            return f"{cell:.0f}" if whole else f"{cell:.4g}"
        case _:
            return "not finite"


class Headline(NamedTuple):
    """A number to read first, and what it is."""

    value: Cell
    label: str


class Number(NamedTuple):
    """A number that a model is measured by; None = not finite."""

    metric: Metric
    value: float | None


@dataclass(frozen=True)
class About:
    """What was measured, and on what."""

    model: str
    """Its name in the registry."""
    parameters: int
    step: int
    """The step of the checkpoint."""
    monitor: str
    """What chose the checkpoint."""
    seed: int
    dataset: str
    protocol: str
    fingerprint: str
    split: str
    images: int
    """Examples in the split."""
    datum: str
    """What one example is called: image, clip, point."""

    @property
    def counted(self) -> str:
        """How many examples, in words: 447 images, or one image."""
        return f"{self.images} {self.datum}s" if self.images > 1 else f"one {self.datum}"


@dataclass(frozen=True)
class Section(abc.ABC):
    """What one measure has to say: fields that JSON can hold, and None for what is not finite."""

    name: ClassVar[str]
    """Its key in results.json."""

    @abc.abstractmethod
    def tables(self, about: About) -> tuple[Table, ...]:
        """Returns all of it, as tables."""

    @abc.abstractmethod
    def headlines(self, about: About) -> tuple[Headline, ...]:
        """Returns the numbers to read first."""

    @abc.abstractmethod
    def numbers(self) -> Mapping[str, Number]:
        """Returns the model's own numbers, by the names under which several seeds are compared."""
