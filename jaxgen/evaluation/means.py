"""What else a model measures of every example."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxgen.evaluation.sections import About, Headline, Mean, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.model import Metric
from jaxgen.parallel.inference import mean_and_error


@dataclass(frozen=True)
class Measured:
    """A mean over a split, the standard error of that mean, and what it is a mean of."""

    mean: float | None
    se: float | None
    label: str
    unit: str
    better: Literal["lower", "higher", ""]

    @property
    def metric(self) -> Metric:
        return Metric(self.label, self.unit, self.better)


@dataclass(frozen=True)
class Means(Section):
    """The metrics of `eval_step` over a split, but for the likelihood."""

    name: ClassVar = "metrics"

    values: Mapping[str, Measured]

    def tables(self, about: About) -> tuple[Table, ...]:
        rows = tuple((str(x.metric), Mean(x.mean, x.se)) for x in self.values.values())
        where = f"{about.split} split, {about.counted}"
        return (Table(f"Further means over the {where}", ("metric", "mean"), rows),) if rows else ()

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return ()

    def numbers(self) -> Mapping[str, Number]:
        return {name: Number(x.metric, x.mean) for name, x in self.values.items()}


def means(subject: Subject) -> Means | None:
    """The mean of every metric per example but the likelihood."""
    values = {}
    for name, each in subject.values.items():
        metric = subject.metrics.get(name, Metric(name))
        if metric.likelihood:
            continue
        of_all = mean_and_error({"mean": each})
        about = metric.label, metric.unit, metric.better
        values[name] = Measured(of_all["mean"], of_all["mean_se"], *about)
    return Means(values)
