"""The commands `list` and `describe`."""

from jaxgen.cli.parse import parse_run
from jaxgen.errors import UserError
from jaxgen.evaluation.describe import describe
from jaxgen.registry import MODELS


def list_models(argv: list[str]) -> None:
    """Prints the models there are, a line each."""
    if set(argv) - {"-h", "--help"}:
        raise UserError(f"jaxgen list takes no arguments; got {' '.join(argv)}")
    for name, chosen in MODELS.items():
        summary = (type(chosen.model).__doc__ or "").strip().splitlines()[0]
        print(f"{name:10s} {summary}")


def describe_model(argv: list[str]) -> None:
    """Prints what a model that the flags describe is made of."""
    if argv and not argv[0].startswith("-"):
        argv = [f"--model={argv[0]}", *argv[1:]]
    run, _, dataset = parse_run(argv, "jaxgen describe")
    print(describe(run, dataset.protocol))
