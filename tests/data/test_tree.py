"""Folders as splits and labels: what is found, in what order, and what is told of the rest."""

import os

import pytest

from jaxgen.data.config import DataConfig
from jaxgen.data.sources import tree
from jaxgen.data.sources.tree import every, read_tree
from jaxgen.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Makes empty files of those names, and reads the folder that they are in."""

    def read(*names):
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return read_tree(DataConfig("folder", str(tmp_path / "in")), (".png", ".tiff"), "images")

    return read


def names(found):
    return {split: [file.as_posix() for file in group] for split, group in found.splits.items()}


def test_label_k_is_folder_k_and_files_are_in_natural_order(read):
    found = read(*(f"{k}/{i}.png" for k in range(12) for i in (10, 9, 2)), "07/x.png")
    assert found.class_names == (*map(str, range(7)), "07", *map(str, range(7, 12)))
    in_order = ["11/2.png", "11/9.png", "11/10.png"]
    assert [file.as_posix() for file in found.files][-3:] == in_order
    assert [found.label(file) for file in found.files[-3:]] == [12] * 3


@pytest.mark.parametrize(
    "folders, splits",
    [
        (("train", "val"), {"train": "train", "validation": "val"}),
        (("train", "valid", "test"), {"train": "train", "validation": "valid", "test": "test"}),
        (("Train", "VALIDATION"), {"train": "Train", "validation": "VALIDATION"}),
        (("train",), {"train": "train"}),
    ],
)
def test_folders_may_be_splits(read, folders, splits):
    found = read(*(f"{folder}/{label}/1.png" for folder in folders for label in "ba"))
    expected = {split: [f"{folder}/{x}/1.png" for x in "ab"] for split, folder in splits.items()}
    assert names(found) == expected and found.class_names == ("a", "b")
    assert [found.label(file) for file in found.splits["train"]] == [0, 1]


def test_a_label_may_be_called_train(read):
    found = read("plane/1.png", "train/1.png", "car/1.png")
    assert found.class_names == ("car", "plane", "train") and found.splits.keys() == {"train"}


@pytest.mark.parametrize(
    "files, told",
    [
        (("train/1.png", "val/1.png", "cat/1.png"), "cat/1.png lies in none of the splits train"),
        (("train/1.png", "val/1.png", "1.png"), "in/1.png lies in none of the splits train, val"),
        (("train/1.png", "val/1.png", "valid/1.png"), "val and valid are both validation"),
        (("val/1.png", "test/1.png"), "has test and val, and no train"),
        (("a.txt", "b.txt"), r"holds no images \(images end in .png .tiff; it holds 2 .txt\)"),
    ],
)
def test_folders_that_are_no_splits_are_told(read, files, told):
    with pytest.raises(UserError, match=told):
        read(*files)


def test_what_is_left_out_is_said(read, capsys):
    found = read(
        *("a/1.png", "b/2.TIFF", "b/notes.txt", "b/x.xcf", "b/y.xcf", "b/README", "b/.2.png"),
        *(".ipynb_checkpoints/3.png", "__MACOSX/a/._1.png", ".DS_Store"),
    )
    assert names(found) == {"train": ["a/1.png", "b/2.TIFF"]} and found.class_names == ("a", "b")
    told = capsys.readouterr().err
    assert "left out 3 hidden, 2 .xcf, 1 without an ending, 1 .txt (images end in" in told
    found = read("3.png")
    assert found.class_names == () and found.label(found.files[0]) == -1
    assert "there are no labels, for 3.png lies in no folder of one" in capsys.readouterr().err


def test_links_are_followed(read, tmp_path):
    read("cat/1.png")
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "2.png").touch()
    os.symlink("../fox", tmp_path / "in" / "fox")
    os.symlink("../../fox/2.png", tmp_path / "in" / "cat" / "0.png")
    found = read()
    assert names(found) == {"train": ["cat/0.png", "cat/1.png", "fox/2.png"]}
    assert found.class_names == ("cat", "fox")


@pytest.mark.parametrize(
    "links, told",
    [
        ({"in/a/0.png": "gone.png"}, "0.png is a link to gone.png, and leads nowhere"),
        ({"in/b": "b"}, "in/b is a link to b, and leads nowhere"),
        ({"in/a/up": ".."}, "in/a/up is a link to .*in, a folder around it"),
        ({"in/a/top": "/"}, "in/a/top is a link to /, a folder around it"),
        ({"in/a/x": "../../b", "b/y": "../in/a"}, "y is a link to .*in/a, a folder around it"),
    ],
)
def test_links_without_an_end_are_named(read, tmp_path, links, told):
    read("a/1.png")
    (tmp_path / "b").mkdir()
    for name, target in links.items():
        os.symlink(target, tmp_path / name)
    with pytest.raises(UserError, match=told):
        read()
    for name in links:
        os.rename(tmp_path / name, (tmp_path / name).with_name(".hidden"))
    assert names(read()) == {"train": ["a/1.png"]}


def test_a_folder_that_cannot_be_read_is_named(read, tmp_path, monkeypatch):
    def denied(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tree.os, "scandir", denied)
    with pytest.raises(UserError, match=r"in cannot be read \(Permission denied\)"):
        read("a/1.png")


def test_names_that_are_no_text_are_escaped(read, tmp_path):
    read("bar/1.png")
    folder = os.fsencode(tmp_path) + b"/in/caf\xe9"
    os.mkdir(folder)
    open(folder + b"/1.png", "w").close()
    found = read()
    assert found.class_names == ("bar", r"caf\xe9")
    assert [found.label(file) for file in found.files] == [0, 1] and len(found.stamp) == 3
    assert "é" in read_tree(_renamed(tmp_path, "é"), (".png",), "images").name


def _renamed(tmp_path, name):
    (tmp_path / "in").rename(tmp_path / name)
    return DataConfig("folder", str(tmp_path / name))


def test_all_that_cannot_be_read_is_named_at_once():
    def fails(i):
        if i % 2:
            raise UserError(f"{i} is bad")
        return -i

    assert every(fails, [0, 2, 4]) == [0, -2, -4]
    with pytest.raises(UserError) as error:
        every(fails, range(13))
    expected = "1 is bad\n3 is bad\n5 is bad\n7 is bad\n9 is bad\nand 1 more like them"
    assert str(error.value) == expected
