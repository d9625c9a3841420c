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
class Member:
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
    """Returns (the progress of every member, step) of the newest step that all have saved.

    A stop between the members' saves leaves some a step ahead; what they have beyond the common
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


def means(found: Sequence[dict[str, float]]) -> str:
    """The members' metrics for people: the mean, and of several the standard deviation."""

    def told(values: np.ndarray) -> str:
        spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
        return f"{values.mean():.4g}{spread}"

    return ", ".join(f"{n} {told(np.array([f[n] for f in found]))}" for n in found[0])
