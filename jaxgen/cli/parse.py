"""Flags to configurations: the only file, beside `prepare`, that knows the parser."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxgen.cli.usage import USAGE
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.model import Model
from jaxgen.registry import MODELS, preset
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.spec import ImageSpec


def parse(kind: Any, argv: Sequence[str], prog: str, description: str | None = None) -> Any:
    return tyro.cli(kind, prog=prog, args=argv, description=description, use_underscores=True)


def parse_run(argv: list[str], prog: str) -> tuple[Run, Path, Any]:
    """The Run that the flags describe, its directory, and its data set, loaded."""
    name = _peek(argv, "model")
    if name is None:
        if {"-h", "--help"} & set(argv):
            print(USAGE)
            sys.exit(0)
        raise UserError(f"--model is missing; choose from {', '.join(MODELS)}")
    chosen = preset(name)
    flags = _flags_of(type(chosen.model))
    shown = {f.name: getattr(chosen.model, f.name) for f in dataclasses.fields(chosen.model)}
    what = tyro.conf.arg(help="What to train.")
    where = tyro.conf.arg(
        help="Run directory; the same command on it resumes. Default: runs/MODEL-DATASET."
    )
    arguments = make_dataclass(
        "Arguments",
        [
            ("model", Annotated[Literal[tuple(MODELS)], what], name),
            ("run", Annotated[str | None, where], None),
            ("net", Annotated[flags, tyro.conf.arg(name=name)], field(default=flags(**shown))),
            ("data", Annotated[DataConfig, tyro.conf.arg(name="")], field(default=chosen.data)),
            ("train", Annotated[TrainConfig, tyro.conf.arg(name="")], field(default=chosen.train)),
        ],
    )
    parsed: Any = parse(arguments, argv, prog, type(chosen.model).__doc__)
    if parsed.model != name:
        raise UserError(f"--model is given twice, as {name} and {parsed.model}; give one")
    dataset = load(parsed.data)
    values = {name: getattr(parsed.net, name) for name in shown}
    model = type(chosen.model)(**{**values, "spec": dataset.spec})
    directory = (
        parsed.run or f"runs/{name}-{parsed.data.dataset.replace(':', '-').replace('/', '-')}"
    )
    return Run(name, model, parsed.data, parsed.train), Path(directory), dataset


def _peek(argv: Sequence[str], flag: str) -> str | None:
    """The value of --flag, before the rest can be parsed."""
    for i, word in enumerate(argv):
        if word.startswith(f"--{flag}="):
            return word.split("=", 1)[1]
        if word == f"--{flag}" and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _flags_of(cls: type[Model]) -> type:
    """The model's fields as flags: without `spec`, which comes from the data, and without the
    checks that need it."""
    body = {
        "__annotations__": {"spec": tyro.conf.Suppress[tyro.conf.Fixed[ImageSpec]]},
        "__post_init__": lambda self: None,
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
    }
    return dataclass(frozen=True)(type(cls.__name__, (cls,), body))
