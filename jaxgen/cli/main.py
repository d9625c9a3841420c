"""The command line: the only file that knows the parser."""

import sys
from collections.abc import Sequence

from jaxgen.cli import compress
from jaxgen.cli.command import Command
from jaxgen.cli.complete import Complete
from jaxgen.cli.describe import describe_model, list_models
from jaxgen.cli.evaluate import Evaluate
from jaxgen.cli.interpolate import Interpolate
from jaxgen.cli.parse import parse
from jaxgen.cli.prepare import prepare
from jaxgen.cli.reconstruct import Reconstruct
from jaxgen.cli.sample import Sample
from jaxgen.cli.train import train
from jaxgen.cli.usage import USAGE
from jaxgen.errors import Stopped, UserError
from jaxgen.parallel.compiling import keep_compiled

COMMANDS: dict[str, type[Command]] = {
    "sample": Sample,
    "evaluate": Evaluate,
    "interpolate": Interpolate,
    "complete": Complete,
    "reconstruct": Reconstruct,
    "compress": compress.Compress,
    "decompress": compress.Decompress,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command. Exit codes: 0 done, 1 stopped, 2 a user's mistake, 128+n signal n."""
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
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", 130))
    except BrokenPipeError:
        sys.exit(0)


def train_main() -> None:
    """`python train.py ...` is `jaxgen train ...`."""
    main(["train", *sys.argv[1:]])


def _complain(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _dispatch(argv: list[str]) -> None:
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("", "-h", "--help", "help"):
        print(USAGE)
    elif name == "train":
        train(rest)
    elif name == "list":
        list_models(rest)
    elif name == "describe":
        describe_model(rest)
    elif name == "prepare":
        prepare(rest)
    elif name in COMMANDS:
        parse(COMMANDS[name], rest, f"jaxgen {name}")()
    else:
        names = ["train", *COMMANDS, "list", "describe", "prepare"]
        raise UserError(f"unknown command {name!r}; choose from {', '.join(names)}")
