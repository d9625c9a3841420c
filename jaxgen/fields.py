"""Fields of a configuration that have an effect only beside others."""

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
