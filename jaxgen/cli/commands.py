"""The commands on a trained run: the one list of them, and the usage page that follows from it."""

from jaxgen.cli.command import Command, able
from jaxgen.cli.complete import Complete
from jaxgen.cli.compress import Compress, Decompress
from jaxgen.cli.evaluate import Evaluate
from jaxgen.cli.features import Features, Probe
from jaxgen.cli.interpolate import Interpolate
from jaxgen.cli.latents import Attribute, Manifold, Traverse
from jaxgen.cli.outliers import Outliers
from jaxgen.cli.project import Project
from jaxgen.cli.reconstruct import Reconstruct
from jaxgen.cli.sample import Sample
from jaxgen.cli.translate import Translate
from jaxgen.model import Model
from jaxgen.registry import MODELS

COMMANDS: dict[str, type[Command]] = {
    "sample": Sample,
    "evaluate": Evaluate,
    "interpolate": Interpolate,
    "complete": Complete,
    "reconstruct": Reconstruct,
    "project": Project,
    "traverse": Traverse,
    "manifold": Manifold,
    "attribute": Attribute,
    "translate": Translate,
    "features": Features,
    "probe": Probe,
    "outliers": Outliers,
    "compress": Compress,
    "decompress": Decompress,
}

OTHERS = {
    "train --model=NAME [flags]": "train a model, or go on with the same command",
    "list": "the models there are",
    "describe NAME [flags]": "parameters, FLOPs, receptive field or latents",
    "prepare DATASET": "download and prepare a TFDS data set",
}
"""The commands that need no trained run."""


def usable(model: Model) -> list[str]:
    """The names of the commands that a model is able to do, but for the inverse of one of them."""
    return [name for name, kind in COMMANDS.items() if able(kind, model) and name != "decompress"]


def usage() -> str:
    """The page that `jaxgen --help` prints."""
    rows = dict(OTHERS)
    for name, kind in COMMANDS.items():
        models = [n for n, preset in MODELS.items() if able(kind, preset.model)]
        limit = "" if len(models) == len(MODELS) else f" ({', '.join(models) or 'no model yet'})"
        rows[f"{name} --run=DIR"] = kind.does + limit
    width = max(map(len, rows)) + 2
    lines = [f"  jaxgen {left:{width}s}{right}" for left, right in rows.items()]
    return (
        "jaxgen: deep generative models in JAX\n\n"
        + "\n".join(lines)
        + "\n\nEach takes --help; `jaxgen train --model=NAME --help` shows the flags of that model."
        "\n--no_compilation_cache, anywhere, leaves compiled programs out of the user's cache."
    )
