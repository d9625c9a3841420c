"""Flags to configurations: the only file, beside `prepare`, that knows the parser."""

import contextlib
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxgen.cli.flags import flags_of, spelling, switched
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.parallel.mesh import all_devices
from jaxgen.registry import MODELS, preset
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.spec import DataSpec

_RULES = tyro.constructors.ConstructorRegistry()


@_RULES.primitive_rule
def _whole(info: Any) -> Any:
    """Whole numbers may be written as 1e4."""
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole_number(words[0]),
        is_instance=lambda x: isinstance(x, int),
        str_from_instance=lambda number: [str(number)],
    )


def whole_number(word: str) -> int:
    """The number that 10000, or 1e4, is; raises ValueError for what is none, or not whole."""
    try:
        return int(word)
    except ValueError:
        with contextlib.suppress(ValueError):
            if float(word).is_integer():
                return int(float(word))
        raise ValueError(f"{word!r} is no whole number") from None


def parse(
    kind: Any,
    argv: Sequence[str],
    prog: str,
    description: str | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Any:
    """The configuration that the words describe; `flags` are those it has, if not of its fields."""
    return tyro.cli(
        kind,
        prog=prog,
        args=switched(argv, flags_of(kind) if flags is None else flags),
        description=description,
        use_underscores=True,
        registry=_RULES,
    )


def parse_run(argv: list[str], prog: str) -> tuple[Run, Path, Dataset]:
    """The Run that the flags describe, its directory, and its data set, loaded."""
    name = model_name(argv)
    with spelling(type(preset(name).model), name, argv):
        return _parsed(name, argv, prog)


def model_name(argv: Sequence[str]) -> str:
    """What --model names."""
    name = _peek(argv, "model")
    if name is None:
        raise UserError(f"--model is missing; choose from {', '.join(MODELS)}")
    return name


def _parsed(name: str, argv: list[str], prog: str) -> tuple[Run, Path, Dataset]:
    chosen = preset(name)
    flags = _flags_of(type(chosen.model))
    shown = _unchecked(flags, chosen.model)
    what = tyro.conf.arg(help="What to train; `jaxgen list` says what each is.")
    where = tyro.conf.arg(
        help="Run directory; the same command on it resumes. Default: runs/MODEL-DATASET."
    )
    arguments = make_dataclass(
        "Arguments",
        [
            ("model", Annotated[Literal[tuple(MODELS)], what], name),
            ("run", Annotated[str | None, where], None),
            ("net", Annotated[flags, tyro.conf.arg(name=name)], field(default=shown)),
            ("data", Annotated[DataConfig, tyro.conf.arg(name="")], field(default=chosen.data)),
            ("train", Annotated[TrainConfig, tyro.conf.arg(name="")], field(default=chosen.train)),
        ],
    )
    known = {**flags_of(flags, name), **flags_of(DataConfig), **flags_of(TrainConfig)}
    parsed: Any = parse(arguments, argv, prog, type(chosen.model).__doc__, known)
    if parsed.model != name:
        raise UserError(f"--model is given twice, as {name} and {parsed.model}; give one")
    of = parsed.data.dataset.replace(":", "-").replace("/", "-")
    named = f"runs/{name}-{of}" if parsed.run is None else parsed.run
    directory = user_path(named, "--run")
    all_devices()  # fails before a data set is read
    dataset = load(parsed.data)
    kind = type(chosen.model)
    model = kind(spec=dataset.spec, **_built(kind, parsed.net))
    return Run(name, model, parsed.data, parsed.train), directory, dataset


def _peek(argv: Sequence[str], flag: str) -> str | None:
    """The value of --flag, before the rest can be parsed."""
    for i, word in enumerate(argv):
        if word.startswith(f"--{flag}="):
            return word.split("=", 1)[1]
        if word == f"--{flag}" and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _flags_of(kind: type) -> type:
    """A configuration's fields as flags: without a `spec`, which comes from the data, and without
    checks, those of configurations in it included: `_built` makes them, where an error can be
    told under the name of its flag."""
    hints = typing.get_type_hints(kind)
    body: dict[str, Any] = {"__post_init__": lambda self: None, "__doc__": kind.__doc__}
    annotations: dict[str, Any] = {}
    for field_ in dataclasses.fields(kind):
        if field_.name == "spec":
            annotations["spec"] = tyro.conf.Suppress[tyro.conf.Fixed[DataSpec]]
        elif _is_config(hints[field_.name]):
            annotations[field_.name] = _flags_of(hints[field_.name])
            body[field_.name] = _unchecked(annotations[field_.name], field_.default)
    body |= {"__annotations__": annotations, "__module__": kind.__module__}
    return dataclass(frozen=True)(type(kind.__name__, (kind,), body))


def _unchecked(flags: type, config: Any) -> Any:
    """The values of a configuration, as its flags."""
    hints = typing.get_type_hints(flags)
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    nested = {n: _unchecked(hints[n], v) for n, v in values.items() if _is_config(hints[n])}
    return flags(**{**values, **nested})


def _built(kind: type, flags: Any) -> dict[str, Any]:
    """The fields of a configuration that flags describe, those that are configurations checked."""
    hints = typing.get_type_hints(kind)
    values = {f.name: getattr(flags, f.name) for f in dataclasses.fields(kind)}
    return {
        name: hints[name](**_built(hints[name], value)) if _is_config(hints[name]) else value
        for name, value in values.items()
        if name != "spec"
    }


def _is_config(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint is not DataSpec
