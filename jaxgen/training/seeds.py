"""The runs that train together, one a seed: what each reads, writes and reports by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgen.errors import UserError
from jaxgen.runs.checkpoint import Checkpoints, NoCheckpoint
from jaxgen.runs.config import Run
from jaxgen.runs.log import Log
from jaxgen.runs.state import Keys, Progress


@dataclass(frozen=True)
class SeedRun:
    """A run of one seed, while it trains."""

    run: Run
    directory: Path
    keys: Keys
    checkpoints: Checkpoints
    log: Log

    @property
    def seed(self) -> int:
        return self.run.train.seed


def restore(checkpoints: Sequence[Checkpoints], fresh: list[Progress]) -> tuple[list, int]:
    """Returns (the progress of every seed, step) of the newest step that all have saved.

    A stop between the seeds' saves leaves some a step ahead; what they have beyond the common
    step stays on disk. All start afresh, at step 0, if one of them has nothing to start from.
    Raises UserError if all have checkpoints but no step in common.
    """
    try:
        if len(checkpoints) == 1:
            progress, step = checkpoints[0].restore(fresh[0])
            return [progress], step
        while common := set.intersection(*(set(c.steps()) for c in checkpoints)):
            step = max(common)
            try:
                pairs = zip(checkpoints, fresh, strict=True)
                return [c.restore(state, step)[0] for c, state in pairs], step
            except NoCheckpoint:  # it is damaged, has said so, and is out of the way
                continue
    except NoCheckpoint:
        return fresh, 0
    if not all(c.steps() for c in checkpoints):
        return fresh, 0
    have = "\n".join(f"  {c.directory.parent}: {c.steps()}" for c in checkpoints)
    raise UserError(
        f"--seeds={len(checkpoints)}: the seeds have no checkpoint of the same step:\n{have}\n"
        "finish each alone, with its own --seed and --run, and run the same command again; or "
        "choose another --run"
    )


def means(by_seed: Sequence[dict[str, float]]) -> str:
    """The seeds' metrics for people: the mean, and of several the standard deviation."""

    def shown(values: np.ndarray) -> str:
        spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
        return f"{values.mean():.4g}{spread}"

    return ", ".join(
        f"{name} {shown(np.array([metrics[name] for metrics in by_seed]))}" for name in by_seed[0]
    )
