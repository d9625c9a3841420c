"""Folders of images: labels, splits, sizes, and every message."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from stored import SPLITS, all_images, folder_config, pictures, rows, write_folder

from jaxgen.data.loading import load
from jaxgen.errors import UserError


def test_folder_with_labels(tmp_path):
    images = pictures(12, channels=3)
    names = [f"{'cat' if i % 2 else 'dog'}/{i:02}.png" for i in range(12)]
    data = load(folder_config(write_folder(tmp_path / "pets", images, names), conditional=True))
    assert data.name == "folder:pets" and data.class_names == ("cat", "dog")
    assert data.spec.num_classes == 2 and data.spec.channels == 3
    assert [len(data.splits[name].x) for name in SPLITS] == [8, 2, 2]
    assert rows(all_images(data)) == rows(images)
    expected = {image.tobytes(): (i + 1) % 2 for i, image in enumerate(images)}
    for split in data.splits.values():
        assert [expected[image.tobytes()] for image in split.x] == split.label.tolist()


def test_folder_with_splits(tmp_path):
    images = pictures(9)
    names = [f"{('train', 'test', 'validation')[i % 3]}/{'ab'[i % 2]}/{i}.png" for i in range(9)]
    root = write_folder(tmp_path / "in", images, names)
    data = load(folder_config(root))
    for k, name in enumerate(("train", "test", "validation")):
        assert rows(data.splits[name].x) == rows(images[k::3])
    assert data.class_names == ("a", "b") and "carved" not in data.protocol
    write_folder(root, images[:1], ["elsewhere/x.png"])
    with pytest.raises(UserError, match="elsewhere/x.png"):
        load(folder_config(root))


def test_folder_grey_unless_one_is_coloured(tmp_path):
    grey = pictures(12)
    root = write_folder(tmp_path / "in", grey, [f"{i:02}.png" for i in range(12)])
    assert rows(all_images(load(folder_config(root)))) == rows(grey)
    colour = pictures(1, channels=3)
    write_folder(root, colour, ["new.png"])
    mixed = load(folder_config(root))
    assert rows(all_images(mixed)) == rows([*np.repeat(grey[..., None], 3, -1), *colour])
    luma = np.asarray(Image.fromarray(colour[0]).convert("L"))
    assert rows(all_images(load(folder_config(root, grey=True)))) == rows([*grey, luma])


@pytest.mark.parametrize("white", [1, 255])
def test_binary_images_have_two_levels(tmp_path, white):
    bits = pictures(12) // 128
    root = write_folder(tmp_path / "in", bits * white, [f"{i:02}.png" for i in range(12)])
    data = load(folder_config(root))
    assert data.spec.levels == 2 and rows(all_images(data)) == rows(bits.astype(np.uint8))
    with pytest.raises(UserError, match="--levels=4"):
        load(folder_config(root, levels=4))
    write_folder(root, np.full((1, 6, 6), 7, np.uint8), ["grey.png"])
    assert load(folder_config(root)).spec.levels == 256


def test_fits(tmp_path):
    image = np.repeat(np.arange(4, dtype=np.uint8)[:, None] * 50, 8, 1)
    image[:, :2], image[:, 6:] = 255, 255  # white margins left and right of a 4x4 ramp
    root = write_folder(tmp_path / "in", [image] * 3, ["a.png", "b.png", "c.png"])

    def fitted(size, fit):
        return load(folder_config(root, size=size, fit=fit)).splits["train"].x[0, ..., 0]

    np.testing.assert_array_equal(fitted(4, "resize"), image[:, 2:6])
    np.testing.assert_array_equal(fitted(2, "crop"), image[1:3, 3:5])
    padded = np.zeros((10, 10), np.uint8)
    padded[3:7, 1:9] = image
    np.testing.assert_array_equal(fitted(10, "pad"), padded)
    scaled = np.asarray(Image.fromarray(image).resize((4, 2), Image.Resampling.LANCZOS))
    assert np.abs(fitted(2, "resize").astype(int) - scaled[:, 1:3]).max() <= 1
    for size, fit in ((5, "crop"), (7, "pad")):
        with pytest.raises(UserError, match=f"--fit={fit}.*--size={size}"):
            fitted(size, fit)


def test_folder_errors(tmp_path):
    def message(root, **fields) -> str:
        with pytest.raises(UserError) as error:
            load(folder_config(root, **fields))
        return str(error.value)

    assert "--data_dir" in message(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert "no images" in message(tmp_path / "empty")
    root = write_folder(tmp_path / "in", pictures(12), [f"{i:02}.png" for i in range(12)])
    assert "--conditional" in message(root, conditional=True)
    write_folder(root, pictures(1, 5, 7), ["odd.png"])
    text = message(root)
    assert "00.png" in text and "odd.png" in text and "--size" in text and "5x7x1" in text
    data = (root / "odd.png").read_bytes()
    for broken in (b"", b"not an image", data[: len(data) // 2]):
        (root / "odd.png").write_bytes(broken)
        assert str(root / "odd.png") in message(root, size=6)
    Image.fromarray(np.full((6, 6), 40_000, np.uint16)).save(root / "odd.png")
    assert "8-bit" in message(root)
    few = write_folder(tmp_path / "few", pictures(2), ["a.png", "b.png"])
    assert "too few images" in message(few)


@pytest.mark.parametrize("levels", [2, 3, 8, 255, 256])
def test_levels_of_a_folder(tmp_path, levels):
    images = np.arange(256, dtype=np.uint8).repeat(6).reshape(6, 16, 16)
    root = write_folder(tmp_path / "grey", images, [f"{i}.png" for i in range(6)])
    data = load(folder_config(root, levels=levels))
    exact = sorted(int(x) * levels // 256 for x in images.ravel())
    assert np.sort(all_images(data), axis=None).tolist() == exact


def test_fingerprint_is_of_the_content(tmp_path):
    names = [f"{i:02}.png" for i in range(12)]
    here, there = (write_folder(tmp_path / name, pictures(12), names) for name in ("a", "b"))
    one, two = load(folder_config(here)), load(folder_config(there))
    assert one.fingerprint == two.fingerprint
    image = pictures(12)[3]
    image[0, 0] ^= 1
    write_folder(there, [image], [names[3]])
    assert load(folder_config(there)).fingerprint != one.fingerprint
    assert len(one.fingerprint) == len(hashlib.sha256().hexdigest())
