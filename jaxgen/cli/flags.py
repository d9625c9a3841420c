"""Fields to flags: what a message calls `r1` is --gan.r1 on the command line."""

import contextlib
import dataclasses
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxgen.errors import UserError

_FIELD = re.compile(r"`(\w+)`")


def flags_of(kind: type, prefix: str = "") -> dict[str, Any]:
    """The dotted flag of every field of a configuration, those of configurations in it included,
    and its type."""
    hints = typing.get_type_hints(kind)
    flags = {}
    for field in dataclasses.fields(kind):
        flag, hint = f"{prefix}.{field.name}".strip("."), hints[field.name]
        flags[flag] = hint
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            flags |= flags_of(hint, flag)
    return flags


def switched(argv: Sequence[str], flags: Mapping[str, Any]) -> list[str]:
    """The words with --flag=True and --flag=False of a switch as --flag and --no_flag."""
    words = []
    for word in argv:
        name, _, value = word.partition("=")
        flag = name.removeprefix("--").replace("-", "_")
        if flags.get(flag) is bool and value.lower() in ("true", "false"):
            group, dot, own = flag.rpartition(".")
            word = f"--{group}{dot}{'' if value.lower() == 'true' else 'no_'}{own}"
        words.append(word)
    return words


def spelled(message: str, flags: Iterable[str], argv: Sequence[str]) -> str:
    """The message with each `field` as the flag that sets it.

    Where several flags set a field of that name, those that were given are meant, if any was.
    """
    given = {word.split("=", 1)[0].lstrip("-").replace("-", "_") for word in argv}

    def flag(match: re.Match[str]) -> str:
        named = [f for f in flags if f.rsplit(".", 1)[-1] == match[1]]
        meant = [f for f in named if f in given] or named
        return " or ".join(f"--{f}" for f in meant) or match[0]

    return _FIELD.sub(flag, message)


@contextlib.contextmanager
def spelling(kind: type, prefix: str, argv: Sequence[str]) -> Iterator[None]:
    """Spells the fields in the messages of UserErrors as the flags of that configuration."""
    try:
        yield
    except UserError as error:
        raise UserError(spelled(str(error), flags_of(kind, prefix), argv)) from error
