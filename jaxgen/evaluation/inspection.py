"""Numbers that a model shows of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxgen.evaluation.sections import About, Headline, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.model import Metric


@dataclass(frozen=True)
class Inspected(Section):
    """The numbers of `Model.inspect`, by names that have their units."""

    name: ClassVar = "inspection"

    values: Mapping[str, float | None]

    def tables(self, about: About) -> tuple[Table, ...]:
        title = "Measured on the first examples of the validation split"
        rows = tuple(self.values.items())
        return (Table(title, ("measure", "value"), rows),) if rows else ()

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return ()

    def numbers(self) -> Mapping[str, Number]:
        return {name: Number(Metric(name), value) for name, value in self.values.items()}


def inspection(subject: Subject) -> Inspected | None:
    """What the model is inspected for, as numbers."""
    return Inspected({n: float(np.asarray(x)) for n, x in subject.inspection.numbers.items()})
