"""The likelihood of a model beside that of baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxgen.abilities import Bounds, Unnormalized, bounded
from jaxgen.evaluation.bounds import importance_weighted, ladder
from jaxgen.evaluation.fitted import baselines_of
from jaxgen.evaluation.partition import Partition, partition
from jaxgen.evaluation.sections import About, Headline, Mean, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.media.kinds import ONE
from jaxgen.media.points import in_units
from jaxgen.model import Metric
from jaxgen.parallel.inference import examples, mean_and_error
from jaxgen.spec import DataSpec, bits_per_dim

NLL = "negative log-likelihood"


@dataclass(frozen=True)
class Nats:
    """A mean negative log-likelihood over a split, and the standard error of that mean."""

    nats: float | None
    nats_se: float | None
    bits_per_dim: float | None
    bits_per_dim_se: float | None

    def cells(self) -> tuple[Mean, Mean]:
        """It in nats, and in bits per dimension."""
        return Mean(self.nats, self.nats_se), Mean(self.bits_per_dim, self.bits_per_dim_se)


@dataclass(frozen=True)
class Draws:
    """An importance-weighted bound of k draws."""

    k: int
    nll: Nats
    effective: float | None
    """The mean effective sample size of the k draws."""


@dataclass(frozen=True)
class Likelihood(Section):
    """The negative log-likelihood of a split, exact or bounded, in the data's own units."""

    name: ClassVar = "likelihood"

    kind: str
    """exact, or the name of the bound."""
    unit: str
    model: Nats
    baselines: Mapping[str, Nats]
    protocol: str
    """How the baselines were fitted."""
    truth: Nats | None
    """That of the density which the data were drawn from, where it is known: what no model can
    beat, but by chance."""
    bounds: tuple[Draws, ...]
    """The bound by its number of draws, which is what k it is tight at; none if it is exact."""
    partition: Partition | None
    """The constant of a density that is known up to one."""

    def tables(self, about: About) -> tuple[Table, ...]:
        models = {f"{about.model} ({self.kind})": self.model, **self.baselines}
        models |= {"the true density": self.truth} if self.truth else {}
        where = f"{about.split} split, {about.counted}"
        error = f"± one standard error of the mean over the {about.datum}s. " * (about.images > 1)
        constant = str(self.partition) if self.partition else ""
        ours = Table(
            f"Likelihood on the {where}; lower is better",
            (NLL, self.unit, "bits per dimension"),
            tuple((name, *nll.cells()) for name, nll in models.items()),
            " ".join(filter(None, (error.strip(), constant, self.protocol))),
            ranked=True,
        )
        if len(self.bounds) < 2:
            return (ours,)
        draws = Table(
            "The bound by its number of draws, from the same draws",
            ("draws k", self.unit, "bits per dimension", "effective draws"),
            tuple((str(d.k), *d.nll.cells(), d.effective) for d in self.bounds),
            "The bound has settled where more draws do not lower it. effective draws: (sum of the "
            f"weights)² / sum of their squares, a mean over the {about.datum}s; close to 1 where "
            "one draw outweighs all others.",
        )
        return ours, draws

    def headlines(self, about: About) -> tuple[Headline, ...]:
        nats, bits = self.model.cells()
        ours = Headline(nats, f"{self.unit} ({self.kind})"), Headline(bits, "bits per dimension")
        known = {n: x.nats for n, x in self.baselines.items() if x.nats is not None}
        if not known:
            return ours
        best = min(known, key=lambda name: known[name])
        return *ours, Headline(known[best], f"{self.unit}, {best} baseline")

    def numbers(self) -> Mapping[str, Number]:
        nats = Metric(NLL, self.unit, "lower")
        return {
            "nats": Number(nats, self.model.nats),
            "bits_per_dim": Number(
                nats._replace(unit="bits per dimension"), self.model.bits_per_dim
            ),
        }


def likelihood(subject: Subject) -> Likelihood | None:
    """The metric that a model declares to be its likelihood, its importance-weighted bound, or its
    density over the constant's estimate, on the whole split."""
    model, spec, datum = subject.model, subject.dataset.spec, ONE[subject.dataset.spec.kind]
    bounds: tuple[Draws, ...] = ()
    constant = None
    if isinstance(model, Unnormalized):
        constant = partition(subject)
        given = examples(subject.data, model.spec, slice(None))
        relative = subject.able("log_unnormalized", len(subject.data), given)
        nll, kind = _nats(constant.log_z - relative.astype(np.float64), spec), "estimated"
    elif bounded(model):
        bounds = _bounds(subject)
        nll, draws = bounds[-1].nll, bounds[-1].k
        kind = model.kind if draws == 1 else f"importance-weighted bound, k = {draws}"
    else:
        exact = [n for n, metric in model.metrics.items() if metric.likelihood]
        if not exact or exact[0] not in subject.values:
            return None
        nll = _nats(subject.values[exact[0]], spec)
        kind = model.kind if isinstance(model, Bounds) else "exact"
    baselines = baselines_of(subject.dataset, subject.directory)
    others = baselines.nll(np.asarray(subject.data.x))
    # log p(x | label) is not what the baselines measure: say so beside it.
    kind += ", given the label" if model.spec.num_classes else ""
    return Likelihood(
        kind=kind,
        unit=f"nats per {datum}" + (", in the data's own units" if spec.ranges else ""),
        model=nll,
        baselines={name: _nats(values, spec) for name, values in others.items()},
        protocol=baselines.protocol,
        truth=_truth(subject),
        bounds=bounds,
        partition=constant,
    )


def _bounds(subject: Subject) -> tuple[Draws, ...]:
    """The model's bounds, of 1 to all draws."""
    bound = importance_weighted(
        subject.model,
        subject.mesh,
        subject.keys.evaluate,
        subject.state,
        subject.data,
        subject.run.train.batch_size,
        ladder(subject.draws),
    )
    columns = zip(bound.ks, bound.values.T, bound.effective.mean(0), strict=True)
    spec = subject.dataset.spec
    return tuple(Draws(k, _nats(-values, spec), float(ess)) for k, values, ess in columns)


def _truth(subject: Subject) -> Nats | None:
    """The true density's, where the data set knows it; bins count by their middle, and where that
    has no density there is no number."""
    dataset = subject.dataset
    if dataset.density is None:
        return None
    values = -dataset.density(in_units(subject.data.x, dataset.spec))
    if not np.isfinite(values).all():
        return None
    return _nats(values - dataset.spec.log_volume, dataset.spec)


def _nats(values: np.ndarray, spec: DataSpec) -> Nats:
    """The mean of NLLs [n] of arrays, in nats, with its error; the one place that turns them into
    the data's own units."""
    measured = mean_and_error({"nats": values + spec.log_volume})
    bits = {n: float(bits_per_dim(x, spec.dims)) for n, x in measured.items()}
    return Nats(measured["nats"], measured["nats_se"], bits["nats"], bits["nats_se"])
