"""TFDS image data sets: what is read, and every message."""

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stored import LABEL, SPLITS, all_images, image_feature, pictures, rows, tiny_config, write_tfds

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.data.sources.prepare import prepare
from jaxgen.errors import UserError


@pytest.mark.slow
def test_mnist_is_the_stored_pixels(real):
    import tensorflow_datasets as tfds

    data = load(DataConfig(dataset="mnist", conditional=True, **real))
    assert [len(data.splits[name].x) for name in SPLITS] == [50_000, 10_000, 10_000]
    assert data.name == "mnist:3.0.1" and data.spec.levels == 256 and data.spec.num_classes == 10
    assert "validation 10000 (carved from train, seed 0)" in data.protocol
    builder = tfds.builder_from_directory(Path(real["data_dir"], "mnist", "3.0.1"))
    held_out = np.sort(np.random.default_rng(0).permutation(60_000)[:10_000])
    kept = np.setdiff1d(np.arange(60_000), held_out)
    places = {"train": ("train", kept), "validation": ("train", held_out), "test": ("test", None)}
    for name, (stored, ids) in places.items():
        source = builder.as_data_source(
            split=stored, decoders={"image": tfds.decode.SkipDecoding()}
        )
        for place in (0, 1, 777, len(data.splits[name].x) - 1):
            record = source[int(place if ids is None else ids[place])]
            pixels = np.asarray(Image.open(io.BytesIO(record["image"])))
            np.testing.assert_array_equal(data.splits[name].x[place, ..., 0], pixels)
            assert data.splits[name].label[place] == record["label"]


@pytest.mark.slow
def test_binarized_mnist_is_found_to_be_binary(real):
    if not Path(real["data_dir"], "binarized_mnist").is_dir():
        pytest.skip("binarized_mnist is not prepared in TFDS_DATA_DIR")
    data = load(DataConfig(dataset="binarized_mnist", **real))
    assert data.spec.levels == 2 and "stored binary" in data.protocol
    assert [len(data.splits[name].x) for name in SPLITS] == [50_000, 10_000, 10_000]
    # The ink of this data set's train split: 13.1 % of the pixels.
    assert abs(data.splits["train"].x[:2000].mean() - 0.131) < 0.01
    with pytest.raises(UserError, match="--binarize=dynamic"):
        load(DataConfig(dataset="binarized_mnist", binarize="dynamic", **real))
    with pytest.raises(UserError, match="--conditional"):
        load(DataConfig(dataset="binarized_mnist", conditional=True, **real))


def test_tfds_without_tensorflow(tmp_path):
    root = write_tfds(tmp_path, {"train": pictures(12)})
    code = (
        "import sys; from jaxgen.data.config import DataConfig\n"
        "from jaxgen.data.loading import load\n"
        "heavy = {'tensorflow_datasets', 'sklearn', 'PIL', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        f"load(DataConfig(dataset='tiny', data_dir={str(root)!r}))\n"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_tfds_newest_version_and_the_one_asked_for(tmp_path):
    for version, seed in (("1.0.0", 1), ("1.10.0", 2), ("1.9.0", 3)):
        write_tfds(tmp_path, {"train": pictures(12, seed=seed)}, version=version)
    newest, old = (
        load(tiny_config(tmp_path)),
        load(DataConfig(dataset="tiny:1.0.0", data_dir=str(tmp_path))),
    )
    assert newest.name == "tiny:1.10.0" and old.name == "tiny:1.0.0"
    assert rows(all_images(newest)) == rows(pictures(12, seed=2))
    assert rows(all_images(old)) == rows(pictures(12, seed=1))


@pytest.mark.parametrize("stored", [("train",), ("train", "test"), ("train", "validation"), SPLITS])
def test_carving_is_disjoint_complete_and_deterministic(tmp_path, stored):
    images = {name: pictures(30, seed=i) for i, name in enumerate(stored)}
    write_tfds(tmp_path, images)
    one = load(tiny_config(tmp_path, cache_dir=str(tmp_path / "a")))
    two = load(tiny_config(tmp_path, cache_dir=str(tmp_path / "b")))
    assert one.fingerprint == two.fingerprint
    carved = [name for name in SPLITS if name not in stored]
    for name in SPLITS:
        np.testing.assert_array_equal(one.splits[name].x, two.splits[name].x)
        assert (f"{name} 5 (carved" in one.protocol) == (name in carved)
        if name in stored and name != "train":
            np.testing.assert_array_equal(one.splits[name].x[..., 0], images[name])
    parts = [one.splits[name].x for name in ("train", *carved)]
    assert [len(part) for part in parts] == [30 - 5 * len(carved)] + [5] * len(carved)
    assert rows(np.concatenate(parts)) == rows(images["train"])  # distinct: none twice, none lost
    order = {image.tobytes(): i for i, image in enumerate(images["train"])}
    places = [order[image.tobytes()] for image in one.splits["train"].x]
    assert places == sorted(places)
    labels = one.splits["train"].label
    np.testing.assert_array_equal(labels, np.array(places) % 3)


def test_tfds_errors(tmp_path):
    def message(**fields) -> str:
        with pytest.raises(UserError) as error:
            load(DataConfig(**{"dataset": "tiny", "data_dir": str(tmp_path), **fields}))
        return str(error.value)

    write_tfds(tmp_path, {"train": pictures(12)})
    missing = message(dataset="mnist")
    assert f"`jaxgen prepare mnist --data_dir {tmp_path}`" in missing and "tiny:1.0.0" in missing
    assert f"{tmp_path}/mnist/*/dataset_info.json" in missing
    assert "jaxgen prepare tiny:2.0.0" in message(dataset="tiny:2.0.0")
    assert "did you mean fashion_mnist" in message(dataset="fashion_mnst")
    assert "did you mean digits" in message(dataset="digit")
    assert "name:1.2.3" in message(dataset="tiny:one")
    assert f"--data_dir={tmp_path / 'no'}" in message(data_dir=str(tmp_path / "no"))

    write_tfds(tmp_path, {"train": pictures(12)}, "some/config")
    assert "some/config:1.0.0" in message(dataset="some")

    write_tfds(tmp_path, {"test": pictures(12)}, "no_train")
    assert "no train split" in message(dataset="no_train")
    write_tfds(tmp_path, {"train": pictures(2)}, "few")
    assert "too few images" in message(dataset="few")
    two = {"image": image_feature(), "mask": image_feature()}
    write_tfds(tmp_path, {"train": pictures(12)}, "two", features=two)
    assert "2 (image, mask)" in message(dataset="two")
    write_tfds(tmp_path, {"train": pictures(12)}, "none", features={"label": LABEL})
    assert "none" in message(dataset="none")
    deep = {"image": image_feature(dtype="uint16")}
    write_tfds(tmp_path, {"train": pictures(12)}, "deep", features=deep)
    assert "uint16" in message(dataset="deep")
    write_tfds(tmp_path, {"train": pictures(12)}, "other", file_format="tfrecord")
    assert "array_record" in message(dataset="other")
    write_tfds(tmp_path, {"train": pictures(12)}, "unlabelled", label=-1)
    assert "--conditional" in message(dataset="unlabelled", conditional=True)
    mixed = [*pictures(6), *pictures(6, 5, 7)]
    write_tfds(tmp_path, {"train": mixed}, "mixed")
    assert "--size" in message(dataset="mixed") and "5x7x1" in message(dataset="mixed")


def test_damaged_records(tmp_path):
    write_tfds(tmp_path, {"train": pictures(12)})
    [file] = tmp_path.glob("tiny/1.0.0/*array_record*")
    data = file.read_bytes()
    file.write_bytes(data[:700] + bytes(200) + data[900:])
    with pytest.raises(UserError, match="damaged.*prepare it again"):
        load(tiny_config(tmp_path))
    file.unlink()
    with pytest.raises(UserError, match="missing.*prepare it again"):
        load(tiny_config(tmp_path))


def test_preparing_needs_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs TensorFlow.*pip install '\.\[prepare\]'"):
        prepare("mnist", str(tmp_path))


def test_a_failed_preparation_tells_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.chdir(tmp_path)  # the child finds jaxgen wherever it is started
    # Without TensorFlow the child fails on it; with it, the name is unknown.
    with pytest.raises(UserError, match=f"preparing no_such_set in {tmp_path} failed: .+") as error:
        prepare("no_such_set", str(tmp_path))
    assert "jaxgen" not in str(error.value), "the child must find its module"


def test_prepared_sets_can_be_read(tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    code = f"""
import numpy as np, pathlib, tensorflow_datasets as tfds
from jaxgen.data.sources.prepare import write

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({{"image": tfds.features.Image(shape=(4, 4, 1))}}))
    def _split_generators(self, manager):
        return {{"train": self._generate_examples()}}
    def _generate_examples(self):
        for i in range(12):
            yield i, {{"image": np.full((4, 4, 1), i, np.uint8)}}

root = pathlib.Path({str(tmp_path)!r})
write(Tiny(data_dir=root, file_format="array_record"), root)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    data = load(tiny_config(tmp_path))
    assert sorted(all_images(data)[:, 0, 0, 0]) == list(range(12))
