"""Downloads a TFDS data set and writes it as array_record files.

That is the one thing for which TFDS needs TensorFlow, so it happens in a process of its own:
`python -m jaxgen.data.sources.prepare NAME DIR`.
"""

import importlib.util
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from jaxgen.data.sources.tfds import tfds_dir
from jaxgen.errors import UserError


def prepare(name: str, data_dir: str | None = None) -> Path:
    """Returns the TFDS directory that then holds the data set `name` (or name:version)."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "preparing a data set needs TensorFlow, in a process of its own: "
            "`pip install '.[prepare]'` and run this again; nothing else in jaxgen needs it"
        )
    root = tfds_dir(data_dir)
    # A checkout that is not installed is found by the child too.
    package = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", __name__, name, str(root)]
    code, last = _run(command, {**os.environ, "PYTHONPATH": path})
    if code:
        raise UserError(f"preparing {name} in {root} failed: {last or f'exit code {code}'}")
    return root


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Returns the exit code and the last line of stderr, which passes through as it comes."""
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    last = ""
    for line in child.stderr:
        sys.stderr.write(line)
        last = line.strip() or last
    return child.wait(), last


def build(name: str, root: Path) -> None:
    """Downloads and prepares; imports TensorFlow."""
    import tensorflow_datasets as tfds

    write(tfds.builder(name, data_dir=root, file_format="array_record"), root)


def write(builder: Any, root: Path) -> None:
    """Prepares a TFDS builder, downloading to a folder of its own.

    Image sets share file names (MNIST and Fashion-MNIST do), and in a shared folder one is
    silently made from the other's pixels.
    """
    builder.download_and_prepare(download_dir=root / "downloads" / builder.info.full_name)


if __name__ == "__main__":
    try:
        build(sys.argv[1], Path(sys.argv[2]))
    except Exception as error:
        traceback.print_exc()
        # Some TFDS messages list all data sets: their first line is the one to end on.
        sys.exit(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
