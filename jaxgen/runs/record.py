"""run.json: a run's configuration as JSON, and back."""

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from typing import Any

from jaxgen.data.config import DataConfig
from jaxgen.errors import UserError
from jaxgen.model import Model
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.environment import environment


def record_of(run: Run, dataset: Any) -> dict[str, Any]:
    """run.json: the whole resolved configuration, the data's fingerprint, and what ran."""
    return {
        "model_name": run.name,
        "model": to_dict(run.model),
        "data": to_dict(run.data),
        "train": to_dict(run.train),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "protocol": dataset.protocol,
            "class_names": list(dataset.class_names),
        },
        "environment": environment(),
    }


def run_of(record: dict[str, Any], kind: Callable[[str], type[Model]]) -> Run:
    """The Run that `record_of` described; `kind` gives the type of the model of that name."""
    try:
        name = record["model_name"]
        model = from_dict(kind(name), record["model"])
        data = from_dict(DataConfig, record["data"])
        train = from_dict(TrainConfig, record["train"])
        for fact in ("fingerprint", "protocol"):
            _value(str, record["dataset"][fact], fact)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"run.json is incomplete ({error}): restore it from a copy, or train again"
        ) from error
    return Run(name, model, data, train)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON holds it."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """The configuration of type `cls` that `to_dict` gave `values` for.

    Raises UserError if a field is missing or unknown, which another version of jaxgen wrote, or
    if a value is not of its field's type, or none of its choices.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}
    if fields != set(values):
        odd = ", ".join(sorted(fields ^ set(values)))
        raise UserError(
            f"run.json does not describe a {cls.__name__} of this version ({odd}): "
            "use the jaxgen that wrote it, or train again"
        )
    return cls(**{name: _value(hints[name], value, name) for name, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    """What JSON made of a field's value of that type, as it was."""
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        [kind] = [kind for kind in kinds if kind is not type(None)]
        return None if value is None else _value(kind, value, name)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return from_dict(hint, value)
    if origin is tuple and isinstance(value, list | tuple):
        each = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(each) == len(value):
            return tuple(_value(kind, x, name) for kind, x in zip(each, value, strict=True))
    elif origin is typing.Literal:
        if any(value == choice and type(value) is type(choice) for choice in kinds):
            return value
    elif type(value) is hint or (hint is float and type(value) is int):
        return value
    wanted = f"one of {', '.join(map(str, kinds))}" if origin is typing.Literal else _spelt(hint)
    raise UserError(
        f"run.json: `{name}` is {json.dumps(value)[:60]}, and must be {wanted}: restore run.json "
        "from a copy, or train again"
    )


def _spelt(hint: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(hint, "a list" if typing.get_origin(hint) is tuple else "an object")
