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
    root = write_folder(tmp_path / "in", [image] * 4, ["a.png", "b.png", "c.png", "d.png"])

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
    assert "8 bits a channel are read: convert it first, such as by `magick" in message(root)
    few = write_folder(tmp_path / "few", pictures(2), ["a.png", "b.png"])
    assert "too few images" in message(few) and "give train 4 at least" in message(few)
    good = write_folder(tmp_path / "good", pictures(4), ["a.png", "b.png", "c.png", "d.png"])
    assert "--size=9999: images are at most 8192 x 8192" in message(good, size=9999)
    assert "--size must be 0 (as stored) or lie in 1..16777216" in message(good, size=2**32)


def test_all_damaged_images_are_named_at_once(tmp_path):
    root = write_folder(tmp_path / "in", pictures(12), [f"{i}.png" for i in range(12)])
    for i in (3, 8, 10):
        data = (root / f"{i}.png").read_bytes()
        (root / f"{i}.png").write_bytes(data[: len(data) // 2] if i > 3 else b"")
    for grey in (False, True):  # found in headers, and in pixels
        with pytest.raises(UserError) as error:
            load(folder_config(root, grey=grey))
        told = [line.split()[0] for line in str(error.value).splitlines()]
        assert told == [str(root / f"{i}.png") for i in (3, 8, 10)]


# As EXIF 2.32, 4.6.4 A, says where the stored picture's first row and column are to be seen.
STORED = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: np.transpose,
    6: np.rot90,
    7: lambda x: np.rot90(x, 2).T,
    8: lambda x: np.rot90(x, 3),
}


def test_pictures_of_a_turned_camera_are_upright(tmp_path):
    images = pictures(16)
    (tmp_path / "in").mkdir()
    for i, image in enumerate(images):
        exif = Image.Exif()
        exif[0x0112] = turned = i % 8 + 1
        stored = Image.fromarray(np.ascontiguousarray(STORED[turned](image)))
        stored.save(tmp_path / "in" / f"{i}.png", exif=exif)
    for _ in range(2):  # also from the cache
        data = load(folder_config(tmp_path / "in"))
        assert rows(all_images(data)) == rows(images)
        assert "images turned upright (EXIF): 14" in data.protocol


def test_what_is_transparent_shows_the_background(tmp_path):
    """Black ink on nothing, of which a row is half there."""
    ink = np.zeros((12, 6, 6, 4), np.uint8)
    ink[:, 2:4, :, 3] = 255
    ink[:, 4, :, 3] = 51
    root = write_folder(tmp_path / "ink", ink, [f"{i}.png" for i in range(12)])
    grey = write_folder(tmp_path / "grey", ink[..., 2:], [f"{i}.png" for i in range(12)])
    colours = {"white": [255] * 3, "black": [0] * 3, "#ff8000": [255, 128, 0]}
    for background, colour in colours.items():
        expected = np.broadcast_to(np.array(colour), (6, 6, 3)).copy()
        expected[2:4] = 0
        expected[4] = np.round(0.8 * expected[4])
        data = load(folder_config(root, background=background))
        np.testing.assert_array_equal(data.splits["test"].x[0], expected)
        assert f"transparent images laid on {background}: 12" in data.protocol
        data = load(folder_config(grey, background=background))
        plain = len(set(colour)) == 1
        assert data.spec.channels == (1 if plain else 3)
        np.testing.assert_array_equal(data.splits["test"].x[0], expected[..., : 1 if plain else 3])
    with pytest.raises(UserError, match="--background=wite is not a colour: give a name"):
        folder_config(root, background="wite")
    with pytest.raises(UserError, match="--background=#ffffff00 is not a colour"):
        folder_config(root, background="#ffffff00")


def test_opaque_pictures_have_no_background(tmp_path):
    grey = pictures(12)
    opaque = np.stack([grey, np.full_like(grey, 255)], -1)
    root = write_folder(tmp_path / "in", opaque, [f"{i}.png" for i in range(12)])
    data = load(folder_config(root))
    assert data.spec.channels == 1 and rows(all_images(data)) == rows(grey)
    assert "transparent" not in data.protocol


@pytest.mark.parametrize("end", ["gif", "tiff", "png", "webp"])
def test_the_first_of_several_pictures_is_taken_and_that_is_said(tmp_path, end):
    images = pictures(12) // 128 * 255
    (tmp_path / "in").mkdir()
    for i, image in enumerate(images):
        frames = [Image.fromarray(image), Image.fromarray(255 - image)]
        more = {"save_all": True, "append_images": frames[1:]} if i % 2 else {}
        more |= {"lossless": True} if end == "webp" else {}
        frames[0].save(tmp_path / "in" / f"{i}.{end}", **more)
    data = load(folder_config(tmp_path / "in", grey=True))
    assert rows(all_images(data)) == rows(images // 255)
    assert "files of several pictures, of which the first is taken: 6" in data.protocol


def test_tiff_and_others_are_read_and_labels_are_told(tmp_path):
    ends = (".tif", ".tiff", ".png", ".bmp")
    images = pictures(12)
    names = [f"{'bear' if i < 6 else 'cat'}/{i}{ends[i % 4]}" for i in range(12)]
    root = write_folder(tmp_path / "in", images, names)
    data = load(folder_config(root, conditional=True))
    assert rows(all_images(data)) == rows(images)
    assert data.labels == "labels: 0 = bear, 1 = cat"
    assert load(folder_config(root)).labels == ""  # a model is told none


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
