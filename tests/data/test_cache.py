"""The cache of decoded images: whole or absent, and made once."""

import errno
import json
import os
import shutil
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


def _array(name, change):
    """Stores an array of the cache changed."""

    def damage(folder):
        path = folder / f"{name}.npy"
        np.save(path, change(np.load(path)))

    return damage


def _meta(**values):
    """Changes what is known beside the arrays."""

    def damage(folder):
        held = json.loads((folder / "meta.json").read_text())
        held["meta"] |= values
        (folder / "meta.json").write_text(json.dumps(held))

    return damage


def _text(text):
    return lambda folder: (folder / "meta.json").write_text(text)


def _swapped(folder):
    (folder / "test_images.npy").rename(folder / "x")
    (folder / "validation_images.npy").rename(folder / "test_images.npy")
    (folder / "x").rename(folder / "validation_images.npy")


def _linked(folder):
    folder.rename(folder.with_name("elsewhere"))
    os.symlink("elsewhere", folder)
    _text("{}")(folder)


def _a_file(folder):
    shutil.rmtree(folder)
    folder.touch()


def _huge(folder):
    """A header that promises 16 TiB of labels."""
    data = (folder / "test_labels.npy").read_bytes()
    (folder / "test_labels.npy").write_bytes(data.replace(b"(2,), ", b"(4398046511104,), "))


DAMAGES = {
    "no labels": lambda folder: (folder / "train_labels.npy").unlink(),
    "fewer labels": _array("test_labels", lambda x: x[:1]),
    "labels out of range": _array("test_labels", lambda x: x + 7),
    "other labels": _array("test_labels", lambda x: 1 - x),
    "another type of labels": _array("test_labels", lambda x: x.astype(np.uint32)),
    "huge labels": _huge,
    "one pixel": _array("train_images", lambda x: x ^ (np.arange(x.size).reshape(x.shape) == 70)),
    "fewer images": _array("train_images", lambda x: x[:-1]),
    "another shape": _array("train_images", lambda x: x.reshape(-1, 3, 12, 1)),
    "another type": _array("train_images", lambda x: x.view(np.int8)),
    "splits swapped": _swapped,
    "levels": _meta(levels=4),
    "stored levels": _meta(stored_levels=2),
    "digest": _meta(digest="0" * 64),
    "what was done": _meta(done={"images made up": 3}),
    "empty": _text(""), "{}": _text("{}"), "[]": _text("[]"), "null": _text("null"),
    "deep": _text("[" * 100_000), "types": _text('{"meta": 3, "sha256": []}'),
    "no text": lambda folder: (folder / "meta.json").write_bytes(bytes(range(256))),
    "a folder": lambda folder: (folder / "meta.json").unlink() or (folder / "meta.json").mkdir(),
    "a file": _a_file, "a link": _linked,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again_and_that_is_said(tmp_path, capsys, damage):
    root = write_folder(tmp_path / "in", pictures(12), [f"{i % 2}/{i}.png" for i in range(12)])
    config = folder_config(root, cache_dir=str(tmp_path / "c"), conditional=True)
    good = load(config)
    held = {name: (np.array(s.x), np.array(s.label)) for name, s in good.splits.items()}
    [folder] = (tmp_path / "c").iterdir()
    assert load(config).fingerprint == good.fingerprint and capsys.readouterr().err == ""
    DAMAGES[damage](folder)
    again = load(config)
    assert capsys.readouterr().err == f"{folder} is damaged, and is made again\n"
    assert (again.fingerprint, again.protocol) == (good.fingerprint, good.protocol)
    for name, split in again.splits.items():
        np.testing.assert_array_equal(split.x, held[name][0])
        np.testing.assert_array_equal(split.label, held[name][1])
    assert load(config).spec == good.spec and capsys.readouterr().err == ""


def test_a_folder_with_a_long_name_has_a_cache(tmp_path):
    names = [f"{i:02}.png" for i in range(12)]
    root = write_folder(tmp_path / ("é" * 127), pictures(12), names)
    assert rows(all_images(load(folder_config(root)))) == rows(pictures(12))


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
