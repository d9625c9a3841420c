"""The log interval under way: what a row is made of, and what a checkpoint has to keep of it."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Interval:
    """One seed's metrics since the last row, as plain numbers: JSON brings them back exactly."""

    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    """The sum of each metric over the applied steps that measured it, and how many these are."""
    skipped: int = 0
    """Steps that were not applied."""

    def add(self, metrics: dict[str, np.ndarray], applied: np.ndarray) -> None:
        """Takes in some steps: each metric [steps], and whether each step was applied [steps]."""
        self.skipped += int((~applied).sum())
        for name, values in metrics.items():
            total, steps = self.sums.get(name, (0.0, 0))
            taken = values[applied].astype(np.float64)
            # Step after step: wherever a dispatch or a stop cuts them, the sum is the same.
            total = float(np.add.accumulate(np.append(total, taken))[-1])
            self.sums[name] = total, steps + len(taken)

    def row(self) -> dict[str, float]:
        """The mean of each metric, NaN if no step was applied, and the steps skipped."""
        means = {
            n: total / steps if steps else float("nan") for n, (total, steps) in self.sums.items()
        }
        return {**means, "skipped": self.skipped}
