"""The command line: the only file that knows the parser."""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxgen import commands, lossless
from jaxgen.data import DataConfig, load
from jaxgen.errors import Stopped, UserError
from jaxgen.model import ImageSpec, Model
from jaxgen.parallel import keep_compiled
from jaxgen.registry import MODELS, preset
from jaxgen.run import Run, TrainConfig, members_of

COMMANDS: dict[str, type[commands.Command]] = {
    "sample": commands.Sample,
    "evaluate": commands.Evaluate,
    "interpolate": commands.Interpolate,
    "complete": commands.Complete,
    "reconstruct": commands.Reconstruct,
    "compress": lossless.Compress,
    "decompress": lossless.Decompress,
}

USAGE = """jaxgen: deep generative models in JAX

  jaxgen train --model=NAME [flags]   train a model, or resume the same command
  jaxgen sample --run=DIR             new images: a grid, a folder of PNGs, .npz (sounds: .wav)
  jaxgen evaluate --run=DIR           numbers on a whole split, beside the baselines
  jaxgen interpolate --run=DIR        walks between latents (VAE, GAN)
  jaxgen complete --run=DIR           fill in missing parts (autoregressive models)
  jaxgen reconstruct --run=DIR        encode and decode images (VAE)
  jaxgen compress --run=DIR           images to a file of as many bits as the NLL (them, too)
  jaxgen decompress --run=DIR         that file back to the same images
  jaxgen list                         the models there are
  jaxgen describe NAME [flags]        parameters, FLOPs, receptive field or latents
  jaxgen prepare DATASET              download and prepare a TFDS data set

Each takes --help; `jaxgen train --model=NAME --help` shows the flags of that model.
--no_compilation_cache, anywhere, leaves compiled programs out of ~/.cache/jaxgen."""


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
        _train(rest)
    elif name == "list":
        _list(rest)
    elif name == "describe":
        _describe(rest)
    elif name == "prepare":
        _prepare(rest)
    elif name in COMMANDS:
        _parse(COMMANDS[name], rest, f"jaxgen {name}")()
    else:
        names = ["train", *COMMANDS, "list", "describe", "prepare"]
        raise UserError(f"unknown command {name!r}; choose from {', '.join(names)}")


def _parse(kind: Any, argv: Sequence[str], prog: str, description: str | None = None) -> Any:
    return tyro.cli(kind, prog=prog, args=argv, description=description, use_underscores=True)


def _train(argv: list[str]) -> None:
    from jaxgen import results, rundir, saved, seeds, trainer

    run, directory, dataset = _parse_run(argv, "train.py")
    trainer.check(run, dataset)
    ignore = ("environment", "data.data_dir", "data.cache_dir", "train.devices")
    members = members_of(run, directory)
    with contextlib.ExitStack() as locks:
        # The parent of several comes first: what it refuses leaves its members untouched.
        for each, where in dict.fromkeys([(run, directory), *members]):
            locks.enter_context(rundir.lock(where))
            rundir.claim(where, saved.record_of(each, dataset), ignore)
        score = None
        if run.model.monitor == "frechet":
            score = results.make_score(run, dataset, members[0][1])[1]
        trainer.Trainer(run, dataset, directory, score).train()
        seeds.finish(run, dataset, directory, print)


def _parse_run(argv: list[str], prog: str) -> tuple[Run, Path, Any]:
    """The Run that the flags describe, its directory, and its data set, loaded."""
    name = _peek(argv, "model")
    if name is None:
        if {"-h", "--help"} & set(argv):
            print(USAGE)
            sys.exit(0)
        raise UserError(f"--model is missing; choose from {', '.join(MODELS)}")
    chosen = preset(name)
    flags = _flags_of(type(chosen.model))
    shown = {f.name: getattr(chosen.model, f.name) for f in dataclasses.fields(chosen.model)}
    what = tyro.conf.arg(help="What to train.")
    where = tyro.conf.arg(
        help="Run directory; the same command on it resumes. Default: runs/MODEL-DATASET."
    )
    arguments = make_dataclass(
        "Arguments",
        [
            ("model", Annotated[Literal[tuple(MODELS)], what], name),
            ("run", Annotated[str | None, where], None),
            ("net", Annotated[flags, tyro.conf.arg(name=name)], field(default=flags(**shown))),
            ("data", Annotated[DataConfig, tyro.conf.arg(name="")], field(default=chosen.data)),
            ("train", Annotated[TrainConfig, tyro.conf.arg(name="")], field(default=chosen.train)),
        ],
    )
    parsed: Any = _parse(arguments, argv, prog, type(chosen.model).__doc__)
    if parsed.model != name:
        raise UserError(f"--model is given twice, as {name} and {parsed.model}; give one")
    dataset = load(parsed.data)
    values = {name: getattr(parsed.net, name) for name in shown}
    model = type(chosen.model)(**{**values, "spec": dataset.spec})
    directory = (
        parsed.run or f"runs/{name}-{parsed.data.dataset.replace(':', '-').replace('/', '-')}"
    )
    return Run(name, model, parsed.data, parsed.train), Path(directory), dataset


def _peek(argv: Sequence[str], flag: str) -> str | None:
    """The value of --flag, before the rest can be parsed."""
    for i, word in enumerate(argv):
        if word.startswith(f"--{flag}="):
            return word.split("=", 1)[1]
        if word == f"--{flag}" and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _flags_of(cls: type[Model]) -> type:
    """The model's fields as flags: without `spec`, which comes from the data, and without the
    checks that need it."""
    body = {
        "__annotations__": {"spec": tyro.conf.Suppress[tyro.conf.Fixed[ImageSpec]]},
        "__post_init__": lambda self: None,
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
    }
    return dataclass(frozen=True)(type(cls.__name__, (cls,), body))


def _list(argv: list[str]) -> None:
    if set(argv) - {"-h", "--help"}:
        raise UserError(f"jaxgen list takes no arguments; got {' '.join(argv)}")
    for name, chosen in MODELS.items():
        summary = (type(chosen.model).__doc__ or "").strip().splitlines()[0]
        print(f"{name:10s} {summary}")


def _describe(argv: list[str]) -> None:
    from jaxgen.describe import describe

    if argv and not argv[0].startswith("-"):
        argv = [f"--model={argv[0]}", *argv[1:]]
    run, _, dataset = _parse_run(argv, "jaxgen describe")
    print(describe(run, dataset.protocol))


@dataclass(frozen=True)
class Prepare:
    """Download a TFDS data set and prepare it in array_record form (needs TensorFlow, once)."""

    name: tyro.conf.Positional[str]
    """The TFDS name, such as mnist or cifar10."""
    data_dir: str | None = None
    """Where to put it (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""


def _prepare(argv: list[str]) -> None:
    from jaxgen.data.prepare import prepare

    asked = _parse(Prepare, argv, "jaxgen prepare")
    print(f"prepared in {prepare(asked.name, asked.data_dir)}")
