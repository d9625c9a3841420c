"""Frozen dataclasses of numbers to JSON and back, exactly.

A dataclass is an object of its fields; one whose only field is `values`, a mapping, is that
mapping.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Tree = TypeVar("Tree")


def finite(tree: Tree) -> Tree:
    """The tree of dataclasses, mappings and tuples with None for every float that is not finite,
    which JSON cannot hold."""
    value: Any = tree
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: finite(getattr(value, f.name)) for f in dataclasses.fields(value)}
        value = dataclasses.replace(value, **fields)
    elif isinstance(value, Mapping):
        value = {name: finite(item) for name, item in value.items()}
    elif isinstance(value, tuple):
        value = tuple(map(finite, value))
    elif isinstance(value, float) and not math.isfinite(value):
        value = None
    return value


def to_json(value: Any) -> Any:
    """The value as objects, lists, numbers, strings and null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return fields["values"] if list(fields) == ["values"] else fields
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, tuple) else value


def from_json(hint: Any, value: Any) -> Any:
    """The value of type `hint` that `to_json` gave this for.

    Types are dataclasses, tuple[X, ...], Mapping[str, X], X | None, and JSON's own.
    """
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        names = [f.name for f in dataclasses.fields(hint)]
        fields = {"values": value} if names == ["values"] else value
        return hint(**{name: from_json(hints[name], fields[name]) for name in names})
    if origin in (types.UnionType, typing.Union):
        [kind] = [kind for kind in kinds if kind is not type(None)]
        return None if value is None else from_json(kind, value)
    if origin is tuple:
        return tuple(from_json(kinds[0], item) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: from_json(kinds[1], item) for name, item in value.items()}
    return value
