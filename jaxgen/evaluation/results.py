"""The results of a run: what was measured, typed here and JSON in results.json."""

import dataclasses
import time
import typing
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from jaxgen.evaluation.describe import parameters
from jaxgen.evaluation.encoding import finite, from_json, to_json
from jaxgen.evaluation.measures import MEASURES
from jaxgen.evaluation.sections import About, Section
from jaxgen.evaluation.subject import Subject
from jaxgen.media.kinds import ONE

S = TypeVar("S", bound=Section)

KINDS: tuple[type[Section], ...] = tuple(
    typing.get_args(typing.get_type_hints(measure)["return"])[0] for measure in MEASURES
)
"""The section that each measure returns, if it returns one."""


@dataclass(frozen=True)
class Results:
    """All numbers of a trained model on a whole split, with None for what is not finite.

    Nats are per example, bits per dimension; a standard error is that of a mean over examples.
    """

    about: About
    sections: tuple[Section, ...]
    """What the measures had to say, in their order."""
    seconds: float
    """How long it took."""

    def get(self, kind: type[S]) -> S | None:
        """The section of that type, if there is one."""
        return next((s for s in self.sections if isinstance(s, kind)), None)

    def to_json(self) -> dict[str, Any]:
        """What results.json holds: facts, then a section a key, null where there is none."""
        sections = {kind.name: to_json(self.get(kind)) for kind in KINDS}
        return {**to_json(self.about), **sections, "seconds": self.seconds}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The results that `to_json` wrote, exactly."""
        about = {f.name: values[f.name] for f in dataclasses.fields(About)}
        sections = [from_json(k, values[k.name]) for k in KINDS if values[k.name] is not None]
        return cls(from_json(About, about), tuple(sections), values["seconds"])


def final_results(subject: Subject) -> Results:
    """What all measures say of a trained model."""
    began = time.monotonic()
    run, dataset = subject.run, subject.dataset
    sections = tuple(s for measure in MEASURES if (s := measure(subject)) is not None)
    about = About(
        model=run.name,
        parameters=parameters(subject.state),
        step=subject.step,
        monitor=run.model.monitor,
        seed=run.train.seed,
        dataset=dataset.name,
        protocol=dataset.protocol,
        fingerprint=dataset.fingerprint,
        split=subject.split,
        images=len(subject.data),
        datum=ONE[dataset.spec.kind],
    )
    return Results(about, finite(sections), round(time.monotonic() - began, 1))
