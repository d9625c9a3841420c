"""Fields of a configuration: those that have an effect only beside others, and those too large."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from jaxgen.errors import UserError


class Only(NamedTuple):
    """When a field has an effect."""

    otherwise: str
    """Where it has none, for people, such as: without `architecture`=conv."""
    holds: Callable[[Any], bool]
    """Whether it has one in a configuration."""


def refuse_idle(config: Any) -> None:
    """Raises UserError for a field that is set, and to which the other fields leave no effect.

    A class declares them beside its fields, as `only`: a mapping from fields to `Only`, to which
    its base classes add theirs. What is at its default was not set.
    """
    only: dict[str, Only] = {}
    for kind in reversed(type(config).__mro__):
        only |= vars(kind).get("only", {})
    for field in fields(config):
        value, rule = getattr(config, field.name), only.get(field.name)
        if rule and value != field.default and not rule.holds(config):
            raise UserError(
                f"`{field.name}`={value} has no effect {rule.otherwise}: change that, or leave "
                f"`{field.name}` out"
            )


LARGEST = 2**16
"""The largest size that a network is given."""


def refuse_huge(config: Any) -> None:
    """Raises UserError for a size of a network that no memory holds, before it is built.

    Sizes are the whole numbers, alone or in a tuple, that are positive by default: numbers that are
    0 by default count steps or name seeds, and so do those that a class names as its `clock`.
    """
    clock = getattr(config, "clock", ())
    for field in fields(config):
        if field.name in clock:
            continue
        value = getattr(config, field.name)
        one = type(field.default) is int and field.default > 0
        several = isinstance(field.default, tuple)
        sizes = (value,) if one else value if several else ()
        if any(n > LARGEST for n in sizes):
            raise UserError(f"`{field.name}` must be at most {LARGEST}; got {value}")
