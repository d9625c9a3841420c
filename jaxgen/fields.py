"""Fields of a configuration: those that have an effect only beside others, and those too large."""

from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, NamedTuple

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
                f"`{field.name}`={value} has no effect {rule.otherwise}: change that, or "
                f"{mended(field.name, field.default)}"
            )


def mended(name: str, default: Any) -> str:
    """How to have a field at its default, which is not to leave it out where a preset sets it."""
    plain = isinstance(default, int | float | str | tuple) and not isinstance(default, bool)
    if not plain or default in ("", ()):
        return f"leave `{name}` out"
    several = isinstance(default, tuple)
    given = f"`{name}` {' '.join(map(str, default))}" if several else f"`{name}`={default}"
    return f"give {given}, its default"


LARGEST = 2**16
"""The largest size that a network is given."""
MOST = 2**9
"""The most of what is built one after another: every one more makes a program longer."""

Repeats = Annotated[int, MOST]
"""A field's type: how many layers, blocks, levels or turns are built one after another."""


def sizes(config: Any) -> dict[str, tuple[int, ...]]:
    """The fields of a configuration that are sizes of a network, and their values.

    They are the whole numbers, alone or in a tuple, but for those that a class or one of its bases
    names in its `clock`: they count steps or name seeds.
    """
    clock = {n for kind in type(config).__mro__ for n in vars(kind).get("clock", ())}
    found: dict[str, tuple[int, ...]] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in clock and type(field.default) is int:
            found[field.name] = (value,)
        elif field.name not in clock and isinstance(field.default, tuple):
            found[field.name] = value
    return found


def refuse_huge(config: Any) -> None:
    """Raises UserError for a size of a network that no memory holds, or no compiler ends with,
    before it is built."""
    repeated = {field.name for field in fields(config) if field.type is Repeats}
    for name, values in sizes(config).items():
        most = MOST if name in repeated else LARGEST
        if any(n > most for n in values):
            value = getattr(config, name)
            raise UserError(f"`{name}` must be at most {most}; got {value}")
