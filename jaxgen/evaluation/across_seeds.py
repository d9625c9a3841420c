"""The results of runs that differ in their seed alone: what they agree on, and how far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jaxgen.evaluation.encoding import finite, to_json
from jaxgen.evaluation.results import KINDS, Results
from jaxgen.evaluation.sections import About, Mean, Number, Table, shown

SAME = ("model", "parameters", "monitor", "dataset", "protocol", "fingerprint", "split", "datum")
"""The facts that the seeds share."""


@dataclass(frozen=True)
class Spread:
    """One number over the seeds; mean and standard deviation are None unless all are finite."""

    mean: float | None
    std: float | None
    """The deviation of one seed (with n - 1), not of the mean."""
    values: tuple[float | None, ...]
    """Each seed's."""
    label: str
    unit: str


@dataclass(frozen=True)
class Summary:
    """Every number of the model over the seeds, by section and name."""

    about: About
    """The first seed's."""
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    """The step of each one's checkpoint."""
    sections: Mapping[str, Mapping[str, Spread]]

    def to_json(self) -> dict[str, Any]:
        """What the results.json of several seeds holds."""
        facts = {f.name: getattr(self.about, f.name) for f in fields(About) if f.name in SAME}
        counts = {"seeds": list(self.seeds), "steps": list(self.steps)}
        return {**facts, **counts, **to_json(self.sections)}

    def table(self) -> Table:
        """All of it, a number a row."""
        seeds = ", ".join(map(str, self.seeds))
        rows = tuple(
            (f"{x.label} ({x.unit})" if x.unit else x.label, Mean(x.mean, x.std),
             ", ".join(map(shown, x.values)))
            for section in self.sections.values()
            for x in section.values()
        )  # fmt: skip
        title = f"{self.about.model} of seeds {seeds}, {self.about.split} split"
        note = "± one standard deviation over the seeds."
        return Table(title, ("metric", "mean", "each seed"), rows, note)


def summarize(results: Sequence[Results]) -> Summary:
    """The numbers of all seeds' results, which have the same sections."""
    numbers: list[dict[str, Mapping[str, Number]]] = [
        {s.name: s.numbers() for s in each.sections} for each in results
    ]
    sections = {
        kind.name: _spreads([seed.get(kind.name, {}) for seed in numbers]) for kind in KINDS
    }
    seeds, steps = zip(*((r.about.seed, r.about.step) for r in results), strict=True)
    return Summary(results[0].about, seeds, steps, sections)


def _spreads(numbers: list[Mapping[str, Number]]) -> dict[str, Spread]:
    """Every number that a seed has; of a seed that lacks it, it counts as not finite."""
    known = {name: number for seed in reversed(numbers) for name, number in seed.items()}
    return {
        name: _spread([seed.get(name, Number(number.metric, None)) for seed in numbers])
        for name, number in known.items()
    }


def _spread(numbers: list[Number]) -> Spread:
    values = tuple(number.value for number in numbers)
    known = [x for x in values if x is not None]
    metric = numbers[0].metric
    if len(known) < len(values):
        return Spread(None, None, values, metric.label, metric.unit)
    std = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return finite(Spread(float(np.mean(known)), std, values, metric.label, metric.unit))
