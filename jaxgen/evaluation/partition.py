"""The constant of a density that is known up to one, estimated."""

from dataclasses import dataclass

import numpy as np

from jaxgen.evaluation.subject import Subject


@dataclass(frozen=True)
class Partition:
    """log Z in nats, with its interval of three standard errors of the mean of the runs (as
    Salakhutdinov & Murray 2008, doi:10.1145/1390156.1390266, report it)."""

    log_z: float
    low: float | None
    """None where the errors exceed the mean: there is no lower end."""
    high: float
    runs: int
    effective: float
    """(sum of the runs' weights)² / sum of their squares: close to 1 where one outweighs all."""

    def __str__(self) -> str:
        low = "-inf" if self.low is None else f"{self.low:.2f}"
        return (
            f"log Z = {self.log_z:.2f} nats (three standard errors: {low} to {self.high:.2f}), by "
            f"{self.runs} runs of annealed importance sampling, effectively {self.effective:.0f}; "
            "where runs miss a part of the density, Z is too small, and the likelihood too high."
        )


def partition(subject: Subject) -> Partition:
    """That of the model, of as many runs as a bound would have draws."""
    return of_runs(subject.able("log_partition", subject.draws).astype(np.float64))


def of_runs(log_weights: np.ndarray) -> Partition:
    """The estimate of runs [n] whose weights are exp(log_weights), and have the mean Z."""
    largest, num = log_weights.max(), len(log_weights)
    weights = np.exp(log_weights - largest)
    mean = weights.mean()
    error = 3 * weights.std(ddof=1) / num**0.5 if num > 1 else 0.0
    return Partition(
        log_z=float(largest + np.log(mean)),
        low=float(largest + np.log(mean - error)) if mean > error else None,
        high=float(largest + np.log(mean + error)),
        runs=num,
        effective=float(weights.sum() ** 2 / (weights**2).sum()),
    )
