"""The command line: a command's name to what it does, and its mistakes to a message."""

import sys
from collections.abc import Sequence

import jax

from jaxgen.cli.commands import COMMANDS, OTHERS, usage
from jaxgen.cli.describe import describe_model, list_models
from jaxgen.cli.parse import parse
from jaxgen.cli.prepare import prepare
from jaxgen.cli.train import train
from jaxgen.errors import Stopped, UserError, warn
from jaxgen.parallel.compiling import keep_compiled
from jaxgen.report.text import on_any_terminal


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command. Exit codes: 0 done, 1 stopped, 2 a user's mistake, 128+n signal n."""
    on_any_terminal()
    argv = list(sys.argv[1:] if argv is None else argv)
    wanted = [word for word in argv if word.replace("-", "_") != "__no_compilation_cache"]
    if wanted == argv:
        keep_compiled()
    argv = wanted
    try:
        _dispatch(argv)
    except UserError as error:
        sys.exit(_complain(f"error: {error}", 2))
    except Stopped as stopped:
        sys.exit(_complain(str(stopped), stopped.code))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told = f"out of memory ({' '.join(str(error).split())[:200]}): "
        sys.exit(_complain(told + "a smaller model, or less data at once, needs less", 1))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))
    except BrokenPipeError:
        sys.exit(0)


def train_main() -> None:
    """`python train.py ...` is `jaxgen train ...`."""
    main(["train", *sys.argv[1:]])


def _complain(message: str, code: int) -> int:
    warn(message)
    return code


def _dispatch(argv: list[str]) -> None:
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    others = {"train": train, "list": list_models, "describe": describe_model, "prepare": prepare}
    helped = name in ("", "-h", "--help", "help")
    # Which flags there are depends on the model, which `describe` also takes as its first word.
    nameless = not any(word.split("=")[0] == "--model" for word in rest) and (
        name == "train" or (name == "describe" and rest[:1] and rest[0].startswith("-"))
    )
    if helped or (nameless and {"-h", "--help"} & set(rest)):
        print(usage())
    elif name in others:
        others[name](rest)
    elif name in COMMANDS:
        parse(COMMANDS[name], rest, f"jaxgen {name}")()
    else:
        first, *rest = (line.split()[0] for line in OTHERS)
        names = [first, *COMMANDS, *rest]
        raise UserError(f"unknown command {name!r}; choose from {', '.join(names)}")
