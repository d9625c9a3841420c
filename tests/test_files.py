"""What a user writes, as a path."""

import os
from pathlib import Path

import pytest

from jaxgen.errors import UserError
from jaxgen.files import user_path


def test_a_path_is_absolute_and_knows_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert user_path("~/runs", "--run") == tmp_path / "home/runs"
    assert user_path("a/../b", "--run") == tmp_path / "a/../b"  # a may be a link
    assert user_path(Path("c"), "--run") == tmp_path / "c"
    assert user_path("/d", "--run") == Path("/d")


@pytest.mark.parametrize("text, reason", [
    ("", "it is empty"),
    ("x" * 300, "File name too long"),
    ("x/" * 3000, "File name too long"),
    ("~nobody_of_this_name/x", "home"),
    ("loop/x", "symbolic links"),
    ("a\0b", "null"),
])  # fmt: skip
def test_what_is_no_path_is_refused_by_its_flag(tmp_path, monkeypatch, text, reason):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(UserError, match=rf"^--out=.* cannot be used .*{reason}") as told:
        user_path(text, "--out")
    assert len(str(told.value)) < 200
