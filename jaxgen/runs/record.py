"""Runs that were trained: a run directory to a model and its state, without the data set."""

import dataclasses
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

    Raises UserError if a field is missing or unknown: another version of jaxgen wrote it.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}
    if fields != set(values):
        odd = ", ".join(sorted(fields ^ set(values)))
        raise UserError(
            f"run.json does not describe a {cls.__name__} of this version ({odd}): "
            "use the jaxgen that wrote it, or train again"
        )
    return cls(**{name: _value(hints[name], value) for name, value in values.items()})


def _value(hint: Any, value: Any) -> Any:
    """What JSON made of a value of that type, as it was."""
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    if origin in (types.UnionType, typing.Union):
        [kind] = [kind for kind in kinds if kind is not type(None)]
        return None if value is None else _value(kind, value)
    if origin is tuple:
        each = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        return tuple(_value(kind, item) for kind, item in zip(each, value, strict=True))
    return value
