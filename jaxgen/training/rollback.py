"""Back to the best checkpoint, for training that has collapsed."""

import dataclasses
import math

from jaxgen.runs.state import Progress
from jaxgen.training.seeds import SeedRun


def rolled_back(
    run: SeedRun, progress: Progress, step: int, monitor: float, times: float, since: int
) -> Progress | None:
    """Returns the state of the best checkpoint, where validation at `step` is more than `times` as
    far from zero as it was then, or not finite; else None, and always where `times` is 0.

    The clock goes on, so that the steps that follow have other batches and other noise than those
    that led to the collapse. It depends on what is on disk alone, so that a run that is resumed
    does the same. A checkpoint from before step `since`, of a model of other static fields, is not
    gone back to.
    """
    best = run.checkpoints.best() if times else None
    if best is None or best <= since:
        return None
    lowest = run.checkpoints.monitor(best)
    if monitor <= lowest + (times - 1) * abs(lowest):
        return None
    old, found = run.checkpoints.restore(progress, "best")
    if found != best:  # damaged, as has been said: what is older still is no better
        return None
    now = f"{monitor:.4g}" if math.isfinite(monitor) else "not finite"
    run.log.say(
        f"step {step}: {run.run.model.monitor} is {now}, and was {lowest:.4g} at step {best}: "
        f"seed {run.seed} goes on from there"
    )
    return dataclasses.replace(progress, state=old.state)
