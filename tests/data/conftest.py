"""A cache of each test's own, and the prepared TFDS directory where there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """The prepared TFDS directory, and a cache that the tests share."""
    root = os.environ.get("TFDS_DATA_DIR")
    if not root or not Path(root, "mnist").is_dir():
        pytest.skip("TFDS_DATA_DIR names no directory with a prepared mnist")
    return {"data_dir": root, "cache_dir": str(tmp_path_factory.mktemp("cache"))}
