"""How many latents tell of data, over a whole split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxgen.abilities import Encodes, Generates
from jaxgen.evaluation.sections import About, Headline, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.model import Metric
from jaxgen.parallel.inference import examples

ACTIVE = 1e-2
"""The variance of a latent's codes above which it is active."""


@dataclass(frozen=True)
class Active(Section):
    """Active units: latents whose codes vary over the data, Var_x(E[z | x]) > 0.01 (Burda et al.
    2016, arXiv:1509.00519, section 5.2)."""

    name: ClassVar = "active"

    latents: int
    units: int
    """The active ones, of all parts."""
    parts: tuple[int, ...]
    """The active ones of each part of the latents, the topmost first."""
    sizes: tuple[int, ...]
    """How many latents each part has."""

    def tables(self, about: About) -> tuple[Table, ...]:
        where = f"{about.split} split, {about.counted}"
        rows = [("all", float(self.units), float(self.latents))]
        if len(self.parts) > 1:
            names = [f"layer {n}" for n in range(len(self.parts), 0, -1)]
            layers = zip(names, map(float, self.parts), map(float, self.sizes), strict=True)
            rows += layers
        note = (
            f"Active: the variance of its code over the split, the mean of what the encoder says, "
            f"is above {ACTIVE}."
        )
        title = f"Latents in use on the {where}"
        return (Table(title, ("latents", "active", "in all"), tuple(rows), note),)

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return ()

    def numbers(self) -> Mapping[str, Number]:
        return {"active_units": Number(Metric("active latents"), float(self.units))}


def active(subject: Subject) -> Active | None:
    """The active units of a model that encodes, and whose latents have a prior, on the whole
    split."""
    model = subject.model
    if not isinstance(model, Encodes) or not isinstance(model, Generates):
        return None
    given = examples(subject.data, model.spec, slice(None))
    codes = subject.able("encode", len(given["x"]), given)
    found = codes.astype(np.float64).var(0) > ACTIVE
    parts = np.split(found, np.cumsum(model.groups)[:-1])
    each = tuple(int(part.sum()) for part in parts)
    return Active(len(found), sum(each), each, tuple(model.groups))
