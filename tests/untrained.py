"""Runs that took no step, for tests of what is done with a run: a train step takes longest to
compile."""

import pytest

from jaxgen.cli import main, train
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.training.trainer import Trainer


def untrained(*flags: str) -> None:
    """`jaxgen train` with these flags, but that its first state is its checkpoint, of step 1, and
    that there are no results."""

    def save(self):
        with Checkpoints(self.directory / "checkpoints") as checkpoints:
            checkpoints.save(1, self.fresh(), monitor=0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train", save)
        patch.setattr(train, "make_score", lambda *args: (None, None))
        patch.setattr(train, "finish_seeds", lambda *args: None)
        main.main(["train", *flags])
