"""Data: order, binarization, the three sources, the cache, and every message of theirs."""

import errno
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgen.data import build as building
from jaxgen.data import cache
from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset
from jaxgen.data.loading import load
from jaxgen.data.shuffle import _permutation, indices
from jaxgen.data.sources.prepare import prepare
from jaxgen.errors import UserError

SPLITS = ("train", "validation", "test")
DIGITS_FINGERPRINT = "fad861703c2713a49a1b341cfb1a7c4fdd95d3015f4fb18e7a0e0972d1a3b55c"


def pictures(num: int, height: int = 6, width: int = 6, channels: int = 0, seed: int = 0):
    shape = (num, height, width, channels) if channels else (num, height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_folder(root: Path, images, names) -> Path:
    for image, name in zip(images, names, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name)
    return root


def feature(kind: str, **proto) -> dict:
    return {"pythonClassName": f"tensorflow_datasets.core.features.{kind}", **proto}


def image_feature(channels=1, dtype="uint8") -> dict:
    shape = {"dimensions": ["-1", "-1", str(channels)]}
    return feature("image_feature.Image", image={"dtype": dtype, "shape": shape})


LABEL = feature("class_label_feature.ClassLabel", classLabel={"numClasses": "3"})


def write_tfds(root: Path, splits, name="tiny", version="1.0.0", file_format="array_record", **kw):
    """A prepared TFDS data set, written without TensorFlow; splits: name -> images."""
    module = pytest.importorskip("array_record.python.array_record_module")
    from tensorflow_datasets.proto import tf_example_pb2 as proto

    folder = root / name / version
    folder.mkdir(parents=True)
    features = kw.get("features", {"image": image_feature(), "label": LABEL})
    described = []
    for split, images in splits.items():
        file = folder / f"{name.split('/')[0]}-{split}.array_record-00000-of-00001"
        writer = module.ArrayRecordWriter(str(file), "group_size:1")
        for i, image in enumerate(images):
            png, example = io.BytesIO(), proto.Example()
            Image.fromarray(image).save(png, "PNG")
            for key, value in features.items():
                if "image" in value:
                    example.features.feature[key].bytes_list.value.append(png.getvalue())
                else:
                    label = kw.get("label", i % 3)
                    example.features.feature[key].int64_list.value.append(label)
            writer.write(example.SerializeToString())
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = [str(len(images))]
        described.append(
            {"name": split, "filepathTemplate": template, "shardLengths": lengths, "numBytes": "1"}
        )
    info = {"name": name, "version": version, "fileFormat": file_format, "splits": described}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    described = feature("features_dict.FeaturesDict", featuresDict={"features": features})
    (folder / "features.json").write_text(json.dumps(described))
    return root


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


def folder_config(root: Path, **fields) -> DataConfig:
    return DataConfig(dataset="folder", data_dir=str(root), **fields)


def tiny_config(root: Path, **fields) -> DataConfig:
    return DataConfig(dataset="tiny", data_dir=str(root), **fields)


def all_images(data: Dataset) -> np.ndarray:
    return np.concatenate([data.splits[name].images for name in SPLITS])


def rows(images) -> list[bytes]:
    return sorted(np.asarray(image).tobytes() for image in images)


@pytest.mark.parametrize("batch_size", [1, 7, 10, 23])
def test_every_epoch_holds_every_example_once(batch_size):
    num, epochs = 23, 10
    batches = [indices(3, step, batch_size, num) for step in range(num * epochs // batch_size)]
    ids = np.concatenate([batch[0] for batch in batches])
    epoch = np.concatenate([batch[1] for batch in batches])
    assert ids.dtype == epoch.dtype == np.int32
    np.testing.assert_array_equal(epoch, np.arange(len(ids)) // num)
    orders = [ids[epoch == e].tolist() for e in range(len(ids) // num)]
    assert all(sorted(order) == list(range(num)) for order in orders)
    assert len(set(map(tuple, orders))) == len(orders), "the order must change with the epoch"


def test_batches_are_a_function_of_seed_and_step():
    steps = [5, 2, 900, 2, 3, 5]  # any order, as after a resume; 10 of 23 straddles epochs
    first = {step: indices(1, step, 10, 23) for step in steps}
    _permutation.cache_clear()
    for step in reversed(steps):
        np.testing.assert_array_equal(indices(1, step, 10, 23), first[step])
    assert set(first[2][1]) == {0, 1}, "step 2 straddles"
    assert not np.array_equal(indices(1, 5, 10, 23)[0], indices(2, 5, 10, 23)[0])
    # Regrouping: the stream of examples does not depend on the batch size.
    stream = np.concatenate([indices(1, step, 10, 23)[0] for step in range(6)])
    np.testing.assert_array_equal(
        stream, np.concatenate([indices(1, s, 20, 23)[0] for s in range(3)])
    )


@pytest.mark.parametrize(
    "seed, size, flag", [(0, 24, "--batch_size 24"), (0, 0, "--batch_size"), (-1, 2, "--seed")]
)
def test_order_errors(seed, size, flag):
    with pytest.raises(UserError, match=flag):
        indices(seed, 0, size, 23)


def test_digits_are_scikit_learns_in_stored_order():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = load(DataConfig(conditional=True))
    assert [len(data.splits[name].images) for name in SPLITS] == [1000, 350, 447]
    np.testing.assert_array_equal(all_images(data)[..., 0], bunch.images)
    labels = np.concatenate([data.splits[name].labels for name in SPLITS])
    np.testing.assert_array_equal(labels, bunch.target)
    assert data.spec.shape == (8, 8, 1) and data.spec.levels == 17 and data.spec.num_classes == 10
    assert data.fingerprint == DIGITS_FINGERPRINT
    assert load(DataConfig()).spec.num_classes == 0


@pytest.mark.parametrize("levels", [2, 3, 5, 16, 17])
def test_levels_are_floors(levels):
    stored, data = load(DataConfig()), load(DataConfig(levels=levels))
    exact = np.vectorize(lambda x: int(x) * levels // 17)(all_images(stored))
    np.testing.assert_array_equal(all_images(data), exact)
    assert data.spec.levels == levels
    assert (data.fingerprint == stored.fingerprint) == (levels == 17)


@pytest.mark.parametrize("levels", [2, 3, 8, 255, 256])
def test_levels_of_a_folder(tmp_path, levels):
    images = np.arange(256, dtype=np.uint8).repeat(6).reshape(6, 16, 16)
    root = write_folder(tmp_path / "grey", images, [f"{i}.png" for i in range(6)])
    data = load(folder_config(root, levels=levels))
    exact = sorted(int(x) * levels // 256 for x in images.ravel())
    assert np.sort(all_images(data), axis=None).tolist() == exact


def test_resized_digits_stay_within_their_levels():
    data = load(DataConfig(size=13))
    assert data.spec.shape == (13, 13, 1) and data.spec.levels == 17
    assert all_images(data).max() == 16


def test_threshold_is_exact():
    grey, data = load(DataConfig()), load(DataConfig(binarize="threshold"))
    np.testing.assert_array_equal(all_images(data), all_images(grey) >= 8)
    assert data.spec.levels == 2


def test_static_draws_are_the_same_in_every_load():
    one, two, other = (load(DataConfig(binarize="static", binarize_seed=s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(all_images(one), all_images(two))
    assert (all_images(one) != all_images(other)).mean() > 0.05
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert one.spec.levels == 2 and "seed 5" in one.protocol
    batch, index = jnp.asarray(one.splits["train"].images[:3]), jnp.arange(3)
    assert one.observe(batch, index, index) is batch


def test_splits_draw_from_different_noise():
    from jaxgen.data.binarize import Draw, draw_once
    from jaxgen.data.splits import Split

    grey = Split(np.full((2, 8, 8, 1), 8, np.uint8), None)
    train, test = (draw_once(Draw(17, 0), name, grey).images for name in ("train", "test"))
    assert 0.3 < (train == test).mean() < 0.7


def test_dynamic_draws_have_the_stored_mean():
    data = load(DataConfig(binarize="dynamic"))
    num = 4000
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) % 17
    images, epoch = np.tile(image, (num, 1, 1, 1)), np.arange(num, dtype=np.int32)
    p = image / 16
    bound = 5 * np.sqrt(p * (1 - p) / num)  # 0 where p is 0 or 1: those are certain
    observe = jax.jit(data.observe)
    for index, epochs in ((np.full_like(epoch, 3), epoch), (epoch, np.full_like(epoch, 3))):
        drawn = np.asarray(observe(images, index, epochs))
        assert set(np.unique(drawn)) == {0, 1}
        assert (np.abs(drawn.mean(0) - p) <= bound).all()


def test_dynamic_draws_depend_on_seed_epoch_and_example_alone():
    data = load(DataConfig(binarize="dynamic"))
    images = jnp.asarray(data.splits["train"].images[:12])
    index, epoch = jnp.arange(12, dtype=jnp.int32), jnp.full(12, 4, jnp.int32)
    whole = np.asarray(data.observe(images, index, epoch))
    some = np.array([7, 2, 11])
    np.testing.assert_array_equal(data.observe(images[some], index[some], epoch[some]), whole[some])
    other = load(DataConfig(binarize="dynamic", binarize_seed=1))
    for changed in (
        other.observe(images, index, epoch),
        data.observe(images, index, epoch + 1),
        data.observe(images, index + 1, epoch),
    ):
        assert (np.asarray(changed) != whole).mean() > 0.05


def test_dynamic_keeps_train_grey_and_the_rest_fixed():
    grey, static = load(DataConfig()), load(DataConfig(binarize="static"))
    data, again = (load(DataConfig(binarize="dynamic")) for _ in range(2))
    np.testing.assert_array_equal(data.splits["train"].images, grey.splits["train"].images)
    for name in ("validation", "test"):
        assert data.materialize(name) is data.splits[name]
        np.testing.assert_array_equal(data.splits[name].images, again.splits[name].images)
        np.testing.assert_array_equal(data.splits[name].images, static.splits[name].images)
    # Epoch 0 of the dynamic train split, chunked, is the observed one, and the static one.
    train = jnp.asarray(data.splits["train"].images)
    epoch0 = data.observe(train, jnp.arange(1000), jnp.zeros(1000, int))
    np.testing.assert_array_equal(data.materialize("train").images, epoch0)
    np.testing.assert_array_equal(static.splits["train"].images, epoch0)
    assert data.spec.levels == 2 and data.fingerprint != static.fingerprint != grey.fingerprint


def test_mnist_is_the_stored_pixels(real):
    import tensorflow_datasets as tfds

    data = load(DataConfig(dataset="mnist", conditional=True, **real))
    assert [len(data.splits[name].images) for name in SPLITS] == [50_000, 10_000, 10_000]
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
        for place in (0, 1, 777, len(data.splits[name].images) - 1):
            record = source[int(place if ids is None else ids[place])]
            pixels = np.asarray(Image.open(io.BytesIO(record["image"])))
            np.testing.assert_array_equal(data.splits[name].images[place, ..., 0], pixels)
            assert data.splits[name].labels[place] == record["label"]


def test_binarized_mnist_is_found_to_be_binary(real):
    if not Path(real["data_dir"], "binarized_mnist").is_dir():
        pytest.skip("binarized_mnist is not prepared in TFDS_DATA_DIR")
    data = load(DataConfig(dataset="binarized_mnist", **real))
    assert data.spec.levels == 2 and "stored binary" in data.protocol
    assert [len(data.splits[name].images) for name in SPLITS] == [50_000, 10_000, 10_000]
    # The ink of this data set's train split: 13.1 % of the pixels.
    assert abs(data.splits["train"].images[:2000].mean() - 0.131) < 0.01
    with pytest.raises(UserError, match="--binarize=dynamic"):
        load(DataConfig(dataset="binarized_mnist", binarize="dynamic", **real))
    with pytest.raises(UserError, match="--conditional"):
        load(DataConfig(dataset="binarized_mnist", conditional=True, **real))


def test_tfds_without_tensorflow(tmp_path):
    root = write_tfds(tmp_path, {"train": pictures(12)})
    code = (
        "import sys; from jaxgen.data import DataConfig, load\n"
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
        np.testing.assert_array_equal(one.splits[name].images, two.splits[name].images)
        assert (f"{name} 5 (carved" in one.protocol) == (name in carved)
        if name in stored and name != "train":
            np.testing.assert_array_equal(one.splits[name].images[..., 0], images[name])
    parts = [one.splits[name].images for name in ("train", *carved)]
    assert [len(part) for part in parts] == [30 - 5 * len(carved)] + [5] * len(carved)
    assert rows(np.concatenate(parts)) == rows(images["train"])  # distinct: none twice, none lost
    order = {image.tobytes(): i for i, image in enumerate(images["train"])}
    places = [order[image.tobytes()] for image in one.splits["train"].images]
    assert places == sorted(places)
    labels = one.splits["train"].labels
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
    # Without TensorFlow the child fails on it; with it, the name is unknown.
    with pytest.raises(UserError, match=f"preparing no_such_set in {tmp_path} failed: .+"):
        prepare("no_such_set", str(tmp_path))


def test_prepared_sets_can_be_read(tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    code = f"""
import numpy as np, pathlib, tensorflow_datasets as tfds
from jaxgen.data.prepare import write

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


def test_cache_is_reused_as_a_memory_map(tmp_path, monkeypatch):
    root = write_tfds(tmp_path, {"train": pictures(12)})
    first = load(tiny_config(root))

    def no_build(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(cache, "build", no_build)
    second = load(tiny_config(root, conditional=True))
    assert isinstance(second.splits["train"].images, np.memmap)
    assert not second.splits["train"].images.flags.writeable
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


def test_folder_with_labels(tmp_path):
    images = pictures(12, channels=3)
    names = [f"{'cat' if i % 2 else 'dog'}/{i:02}.png" for i in range(12)]
    data = load(folder_config(write_folder(tmp_path / "pets", images, names), conditional=True))
    assert data.name == "folder:pets" and data.class_names == ("cat", "dog")
    assert data.spec.num_classes == 2 and data.spec.channels == 3
    assert [len(data.splits[name].images) for name in SPLITS] == [8, 2, 2]
    assert rows(all_images(data)) == rows(images)
    expected = {image.tobytes(): (i + 1) % 2 for i, image in enumerate(images)}
    for split in data.splits.values():
        assert [expected[image.tobytes()] for image in split.images] == split.labels.tolist()


def test_folder_with_splits(tmp_path):
    images = pictures(9)
    names = [f"{('train', 'test', 'validation')[i % 3]}/{'ab'[i % 2]}/{i}.png" for i in range(9)]
    root = write_folder(tmp_path / "in", images, names)
    data = load(folder_config(root))
    for k, name in enumerate(("train", "test", "validation")):
        assert rows(data.splits[name].images) == rows(images[k::3])
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
        return load(folder_config(root, size=size, fit=fit)).splits["train"].images[0, ..., 0]

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


@pytest.mark.parametrize(
    "fields, flag",
    [
        ({"size": -1}, "--size"),
        ({"levels": 1}, "--levels"),
        ({"levels": 257}, "--levels"),
        ({"levels": 18}, "--levels=18"),
        ({"levels": 2, "binarize": "static"}, "--binarize=static"),
        ({"binarize": "often"}, "binarize"),
        ({"binarize_seed": -1}, "--binarize_seed"),
        ({"fit": "stretch"}, "fit"),
        ({"fit": "crop"}, "--size"),
        ({"dataset": "folder"}, "--data_dir"),
    ],
)
def test_config_errors(fields, flag):
    # Where types are checked at run time, that check comes first.
    with pytest.raises((UserError, TypeError), match=flag):
        load(DataConfig(**fields))


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
