"""A run: the model, the data and the schedule. It is the flags, the help and run.json at once."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from jaxgen.data.config import DataConfig
from jaxgen.errors import UserError
from jaxgen.model import Model


@dataclass(frozen=True)
class TrainConfig:
    """How long, on what batches, and how often to look."""

    steps: int = 1000
    """Optimization steps; a finished run is trained on to more of them."""
    batch_size: int = 100
    """Examples per step, over all devices (of a game, per discriminator step)."""
    seed: int = 0
    """Names the initial parameters, the batches, all noise and all samples."""
    seeds: int = 1
    """Models to train at once, of the seeds --seed, --seed + 1, ...; each is a run of its own."""
    log_every: int = 50
    """Steps between rows of metrics."""
    eval_every: int = 250
    """Steps between validations; each also saves a checkpoint and a picture of samples."""
    samples: int = 1000
    """Samples that the sample-based scores are computed on."""
    draws: int = 500
    """Draws of the importance-weighted bound in the final report, for models that have one."""
    max_skipped: int = 10
    """Steps in a row that are not finite, and so not applied, before the run is stopped."""
    rollback: float = 0.0
    """Go on from the best checkpoint when a validation is worse than so many times the best, as
    when a game collapses; 0 = never."""
    devices: int = 0
    """Devices to train on; 0 = as many as divide the batch size."""

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "seeds",
            "log_every",
            "eval_every",
            "draws",
            "max_skipped",
        ):
            if not 1 <= getattr(self, name) < 2**31:
                raise UserError(f"--{name} must lie in 1..2^31-1; got {getattr(self, name)}")
        if not 10 <= self.samples < 2**31:
            raise UserError(f"--samples must lie in 10..2^31-1; got {self.samples}")
        if self.rollback and not self.rollback > 1:
            raise UserError(f"--rollback must be 0 or more than 1; got {self.rollback}")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed must lie in 0..2^31-1; got {self.seed}")
        if self.seed + self.seeds > 2**31:
            raise UserError(
                f"--seeds={self.seeds}: the last seed would be {self.seed + self.seeds - 1}, and "
                "seeds lie in 0..2^31-1"
            )


@dataclass(frozen=True)
class Run:
    """Everything that determines the result."""

    name: str
    """The model's name in the registry."""
    model: Model
    data: DataConfig
    train: TrainConfig


def runs_by_seed(run: Run, directory: str | Path) -> list[tuple[Run, Path]]:
    """The runs of one seed each that a run consists of, with their directories.

    Of one seed it is the run itself; seed s of several lies in directory/seed_s, as the lone run
    of that seed would.
    """
    first, directory = run.train.seed, Path(directory)
    if run.train.seeds == 1:
        return [(run, directory)]
    return [
        (
            dataclasses.replace(run, train=dataclasses.replace(run.train, seed=seed, seeds=1)),
            directory / f"seed_{seed}",
        )
        for seed in range(first, first + run.train.seeds)
    ]
