"""The command `train`."""

import contextlib

from jaxgen.cli.parse import parse_run
from jaxgen.runs.config import members_of


def train(argv: list[str]) -> None:
    from jaxgen.evaluation.fitted import make_score
    from jaxgen.report.finish import finish_seeds
    from jaxgen.runs.directory import claim, lock
    from jaxgen.runs.record import record_of
    from jaxgen.training import trainer

    run, directory, dataset = parse_run(argv, "train.py")
    trainer.check(run, dataset)
    ignore = ("environment", "data.data_dir", "data.cache_dir", "train.devices")
    members = members_of(run, directory)
    with contextlib.ExitStack() as locks:
        # The parent of several comes first: what it refuses leaves its members untouched.
        for each, where in dict.fromkeys([(run, directory), *members]):
            locks.enter_context(lock(where))
            claim(where, record_of(each, dataset), ignore)
        score = None
        if run.model.monitor == "frechet":
            score = make_score(run, dataset, members[0][1])[1]
        trainer.Trainer(run, dataset, directory, score).train()
        finish_seeds(run, dataset, directory, print)
