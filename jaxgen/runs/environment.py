"""What ran: versions, device, command line, commit."""

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("jaxgen", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment() -> dict[str, Any]:
    """What ran: versions, device, command line, and the commit if run from a git checkout."""
    import jax

    device = jax.devices()[0]
    facts = {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "device": device.device_kind,
        "backend": device.platform,
        "device_count": jax.device_count(),
        "cpu_count": os.cpu_count(),
    }
    commit = _commit()
    return {**facts, "commit": commit} if commit else facts


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _commit() -> str | None:
    """The git commit of this package, marked if the files differ from it; None outside git."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(here.parent), *args]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    here = Path(__file__).resolve()
    try:
        # An installed copy may lie inside someone else's checkout: only a tracked file counts.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
