"""The commands `list` and `describe`."""

import dataclasses

from jaxgen.cli.parse import parse_run
from jaxgen.errors import UserError
from jaxgen.evaluation.describe import describe
from jaxgen.model import Model
from jaxgen.registry import MODELS


def list_models(argv: list[str]) -> None:
    """Prints the models there are, a line each."""
    if set(argv) - {"-h", "--help"}:
        raise UserError(f"jaxgen list takes no arguments; got {' '.join(argv)}")
    width = max(map(len, MODELS))
    for name, (model, *_) in MODELS.items():
        summary = (type(model).__doc__ or "").strip().splitlines()[0]
        print(f"{name:{width}s} {summary}{_set(model)}")


def _set(model: Model) -> str:
    """The fields that a preset sets: by these, presets of one class differ."""
    given = ((f.name, getattr(model, f.name), f.default) for f in dataclasses.fields(model))
    plain = (str, bool, int, float)
    told = [f"{n}={v}" for n, v, default in given if v != default and type(v) in plain]
    return f" [{' '.join(told)}]" if told else ""


def describe_model(argv: list[str]) -> None:
    """Prints what a model that the flags describe is made of."""
    if argv and not argv[0].startswith("-"):
        argv = [f"--model={argv[0]}", *argv[1:]]
    run, _, dataset = parse_run(argv, "jaxgen describe")
    print(describe(run, dataset.protocol))
