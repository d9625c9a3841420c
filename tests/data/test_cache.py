"""The cache of decoded images: whole or absent, and made once."""

import errno
import os
import sys

import numpy as np
import pytest
from stored import all_images, folder_config, pictures, rows, tiny_config, write_folder, write_tfds

from jaxgen.data import build as building
from jaxgen.data import cache
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.files import cache_folder


def test_cache_is_reused_as_a_memory_map(tmp_path, monkeypatch):
    root = write_tfds(tmp_path, {"train": pictures(12)})
    first = load(tiny_config(root))

    def no_build(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(cache, "build", no_build)
    second = load(tiny_config(root, conditional=True))
    assert isinstance(second.splits["train"].x, np.memmap)
    assert not second.splits["train"].x.flags.writeable
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(all_images(first), all_images(second))
    for changed in ({"size": 3}, {"levels": 4}, {"size": 3, "fit": "crop"}, {"grey": True}):
        with pytest.raises(AssertionError, match="built again"):
            load(tiny_config(root, **changed))
    [file] = root.glob("tiny/1.0.0/*array_record*")
    os.utime(file, ns=(1, 1))
    with pytest.raises(AssertionError, match="built again"):
        load(tiny_config(root))


def test_half_a_cache_is_never_used(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "in", pictures(12), [f"{i:02}.png" for i in range(12)])
    config = folder_config(root, cache_dir=str(tmp_path / "c"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_sync", killed)
        with pytest.raises(KeyboardInterrupt):
            load(config)
    assert list((tmp_path / "c").iterdir()) == []
    data = load(config)
    [folder] = (tmp_path / "c").iterdir()
    for damage in ("train_images.npy", "meta.json"):
        os.truncate(folder / damage, (folder / damage).stat().st_size - 9)
        assert load(config).fingerprint == data.fingerprint
        assert rows(all_images(load(config))) == rows(pictures(12))


def test_two_processes_make_one_cache(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "in", pictures(12), [f"{i:02}.png" for i in range(12)])
    config = folder_config(root, cache_dir=str(tmp_path / "c"))
    build, calls = building.build, []

    def slow_build(*args):
        calls.append(1)
        if len(calls) == 1:
            load(config)  # another process is faster
        return build(*args)

    monkeypatch.setattr(cache, "build", slow_build)
    data = load(config)
    assert len(calls) == 2 and len(list((tmp_path / "c").iterdir())) == 1
    assert rows(all_images(data)) == rows(pictures(12))


def test_cache_errors(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "in", pictures(12), [f"{i:02}.png" for i in range(12)])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache_dir"):
        load(folder_config(root, cache_dir=str(tmp_path / "file" / "c")))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match="No space left.*--cache_dir"):
        load(folder_config(root))


def test_the_cache_is_where_the_system_keeps_caches(tmp_path, monkeypatch):
    assert cache.cache_dir(DataConfig()) == cache_folder() == tmp_path / "cache" / "jaxgen"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_dir(DataConfig(cache_dir="~/kept")) == tmp_path / "kept"
    if sys.platform == "linux":
        for unset in (lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""),
                      lambda: monkeypatch.delenv("XDG_CACHE_HOME")):  # fmt: skip
            unset()
            assert cache_folder() == tmp_path / ".cache" / "jaxgen"
