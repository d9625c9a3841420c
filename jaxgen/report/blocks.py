"""What a page consists of: sections of figures, charts, tables and words."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from jaxgen.evaluation.sections import Table


class Figure(NamedTuple):
    """A picture."""

    png: bytes
    caption: str


class Chart(NamedTuple):
    """A drawing in the page's own colours."""

    svg: str
    title: str


class Clips(NamedTuple):
    """Sounds to play."""

    wavs: tuple[bytes, ...]


class Pairs(NamedTuple):
    """Names and their values."""

    values: Mapping[str, Any]
    summary: str = ""
    """What is shown in place of them until the reader opens it; empty = they are shown."""


class Code(NamedTuple):
    """Commands to copy, a line each."""

    lines: tuple[str, ...]


Block = Figure | Chart | Clips | Pairs | Code | Table


class Look(NamedTuple):
    """A section of the page."""

    title: str
    blocks: tuple[Block, ...]
    layout: Literal["", "row", "small"] = ""
    """row: blocks side by side where there is room; small: many to a row."""
    notes: tuple[str, ...] = ()
    """Paragraphs before the blocks."""
