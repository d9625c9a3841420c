"""The command `prepare`."""

from dataclasses import dataclass

import tyro

from jaxgen.cli.parse import parse
from jaxgen.data.sources import prepare as sources


@dataclass(frozen=True)
class Prepare:
    """Download a TFDS data set and prepare it in array_record form (needs TensorFlow, once)."""

    name: tyro.conf.Positional[str]
    """The TFDS name, such as mnist or cifar10."""
    data_dir: str | None = None
    """Where to put it (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""


def prepare(argv: list[str]) -> None:
    """Downloads and prepares the data set that the flags name."""
    wanted = parse(Prepare, argv, "jaxgen prepare")
    print(f"prepared in {sources.prepare(wanted.name, wanted.data_dir)}")
