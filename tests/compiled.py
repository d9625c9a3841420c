"""Runs of one model share what is compiled, which depends on nothing else."""

import contextlib
import functools
from typing import Any

import pytest
from tiny import data_of

from jaxgen.cli import parse
from jaxgen.data.loading import load
from jaxgen.report import finish
from jaxgen.runs import saved, state
from jaxgen.training import memory, steps, trainer


@contextlib.contextmanager
def shared_by_trainers():
    """The train steps, and the making of the first state."""
    made: dict[Any, Any] = {}
    compile_steps, begin = steps.compile_steps, trainer.Trainer.__init__

    def compile_once(model, feed, mesh):
        data = (id(feed._dataset), feed._examples, feed.capacity, feed.resident, feed.seeds)
        name = (model, mesh, *data)
        if name not in made:
            made[name] = feed, compile_steps(model, feed, mesh)  # kept, so that ids stay unique
        return made[name][1]

    def begin_alike(self, run, *args, **kwargs):
        begin(self, run, *args, **kwargs)
        self._init = made.setdefault(run.model, self._init)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compile_steps", compile_once)
        patch.setattr(trainer.Trainer, "__init__", begin_alike)
        yield


@contextlib.contextmanager
def shared_by_commands(files_change=True):
    """The same, where commands train; and the shapes of a model's state, for which its network is
    traced each time that a run is loaded. Data sets are loaded once, but for files that change."""
    shapes = functools.cache(state.shapes)

    def load_once(config):
        return load(config) if config.data_dir and files_change else data_of(config)

    with shared_by_trainers(), pytest.MonkeyPatch.context() as patch:
        for module in (finish, memory, saved):
            patch.setattr(module, "shapes", shapes)
        patch.setattr(parse, "load", load_once)
        yield
