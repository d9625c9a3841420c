"""A user's own arrays: what they become, that they can be trained on, and every message."""

import json
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored import SPLITS, all_images, pictures, rows

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import from_arrays, load
from jaxgen.errors import UserError
from jaxgen.media.points import in_units
from jaxgen.model import Metric, Model
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.spec import DataSpec
from jaxgen.training import trainer

IMAGES = pictures(30, 6, 5, 3)
LABELS = np.arange(30) % 4
CONDITIONAL = DataConfig(dataset="arrays", conditional=True)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return DataConfig(dataset="arrays", data_dir=str(path))


def test_missing_splits_are_carved():
    data = from_arrays(IMAGES, labels=LABELS, config=CONDITIONAL)
    assert data.spec == DataSpec(6, 5, 3, 256, num_classes=4) and data.name == "arrays"
    assert [len(data.splits[name]) for name in SPLITS] == [20, 5, 5]
    assert rows(all_images(data)) == rows(IMAGES) and data.class_names == ("0", "1", "2", "3")
    order = {image.tobytes(): i for i, image in enumerate(IMAGES)}
    for name in SPLITS:
        split = data.splits[name]
        ids = [order[image.tobytes()] for image in split.x]
        assert ids == sorted(ids)
        np.testing.assert_array_equal(split.label, LABELS[ids])
    assert "validation 5 (carved from train, seed 0)" in data.protocol
    assert from_arrays(IMAGES, labels=LABELS).spec.num_classes == 0
    # A test split that is given is kept, and validation alone is carved.
    data = from_arrays(IMAGES[:24], test=IMAGES[24:])
    assert [len(data.splits[name]) for name in SPLITS] == [20, 4, 6]
    np.testing.assert_array_equal(data.splits["test"].x, IMAGES[24:])
    assert "test 6; 6x5x3, 256 levels" in data.protocol


def test_the_fingerprint_is_of_the_content(tmp_path):
    data = from_arrays(IMAGES, labels=LABELS, config=CONDITIONAL)
    config = saved(tmp_path / "a.npz", x=IMAGES, label=LABELS)
    assert (
        load(config).fingerprint
        == data.fingerprint
        == from_arrays(IMAGES, labels=LABELS).fingerprint
    )
    assert load(config).name == "arrays:a"
    config = saved(tmp_path / "b.npz", train_x=IMAGES.astype(np.int64), train_label=LABELS)
    assert load(config).fingerprint == data.fingerprint
    changed = IMAGES.copy()
    changed[7, 0, 0] ^= 1
    others = [
        from_arrays(changed, labels=LABELS),
        from_arrays(IMAGES, labels=(LABELS + 1) % 4),
        from_arrays(IMAGES),
        from_arrays(
            IMAGES[:25], IMAGES[25:], labels={"train": LABELS[:25], "validation": LABELS[25:]}
        ),
        from_arrays(IMAGES, labels=LABELS, class_names="abcd"),
        from_arrays(IMAGES, labels=LABELS, source=IMAGES),
        from_arrays(IMAGES, labels=LABELS, source=IMAGES, paired=False),
        from_arrays(IMAGES / np.float32(255), labels=LABELS),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 9


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int32, np.uint64])
def test_integers_are_levels(kind):
    bits = (IMAGES[..., 0] > 99).astype(kind)
    data = from_arrays(bits)
    assert data.spec == DataSpec(6, 5, 1, 2)  # [n h w] has one channel
    assert data.splits["train"].x.dtype == np.uint8
    assert rows(all_images(data)) == rows(bits.astype(np.uint8))
    assert from_arrays(bits * kind(1), levels=2).fingerprint == data.fingerprint
    if kind is not bool:
        assert from_arrays(bits * kind(255)).fingerprint == data.fingerprint
        few = (IMAGES % 17).astype(kind)
        assert from_arrays(few).spec.levels == 256 and from_arrays(few, levels=17).spec.levels == 17
        assert rows(all_images(from_arrays(few, levels=17))) == rows(few.astype(np.uint8))


def test_real_numbers_stay_so():
    x = (IMAGES / 127.5 - 1).astype(np.float64)
    data = from_arrays(x)
    assert data.spec == DataSpec(6, 5, 3, 0) and "6x5x3, real numbers" in data.protocol
    assert data.splits["train"].x.dtype == np.float32
    assert rows(all_images(data)) == rows(x.astype(np.float32))
    assert data.spec.example(1)["x"].dtype == data.splits["train"].x.dtype


def test_flat_real_numbers_are_points():
    points = np.random.default_rng(0).normal(7, 2, (60, 2))
    data = from_arrays(points)
    assert data.spec.kind == "points" and data.spec.shape == (1, 1, 2) and data.spec.levels == 0
    units = np.concatenate([in_units(data.splits[name].x, data.spec) for name in SPLITS])
    np.testing.assert_allclose(np.sort(units, 0), np.sort(points, 0), atol=1e-5)
    few = from_arrays(points.astype(np.float32)[:, None, None], levels=8)
    assert few.spec.levels == 8
    np.testing.assert_allclose(few.spec.ranges, data.spec.ranges, rtol=1e-6)
    assert few.splits["train"].x.dtype == np.uint8


def test_flags_do_what_they_do_to_other_data(tmp_path):
    grey = pictures(30, 8, 8)
    config = saved(tmp_path / "a.npz", x=grey)
    for flags in (
        {"levels": 4}, {"binarize": "dynamic"}, {"binarize": "threshold"}, {"pairing": "super2"},
        {"pairing": "rotate", "unpaired": True},
    ):  # fmt: skip
        one = from_arrays(grey, config=DataConfig(dataset="arrays", **flags))
        two = load(DataConfig(dataset="arrays", data_dir=config.data_dir, **flags))
        assert one.fingerprint == two.fingerprint and one.spec == two.spec
    np.testing.assert_array_equal(
        from_arrays(grey, config=DataConfig(dataset="arrays", levels=4)).splits["test"].x,
        from_arrays(grey).splits["test"].x // 64,
    )


def test_sources_in_pairs_or_apart(tmp_path):
    grey = IMAGES[:, :3, :, :1]
    data = from_arrays(IMAGES, source=grey, labels=LABELS, config=CONDITIONAL)
    assert data.spec == DataSpec(6, 5, 3, num_classes=4, source=DataSpec(3, 5, 1))
    for name in SPLITS:
        split = data.splits[name]
        np.testing.assert_array_equal(split.columns["source"], split.x[:, :3, :, :1])
        assert split.columns.keys() == {"x", "label", "source"} and not split.apart
    config = saved(tmp_path / "a.npz", x=IMAGES, source=grey, label=LABELS)
    assert load(config).fingerprint == data.fingerprint
    halves = load(DataConfig(dataset="arrays", data_dir=config.data_dir, unpaired=True))
    train = halves.splits["train"]
    assert train.columns.keys() == {"x", "label"} and len(train.apart["source"]) == 10
    assert not set(rows(train.x[:, :3, :, :1])) & set(rows(train.apart["source"]))

    data = from_arrays(IMAGES, source=grey[:18], paired=False)
    assert data.splits["test"].columns.keys() == {"x"}
    assert [len(data.splits[name].apart["source"]) for name in SPLITS] == [12, 3, 3]
    config = saved(tmp_path / "b.npz", x=IMAGES, source=grey[:18], paired=False)
    assert load(config).fingerprint == data.fingerprint


@dataclass(frozen=True)
class Mean(Model[dict]):
    """The mean of each class, and a map from the source, by gradient descent."""

    spec: DataSpec
    metrics: ClassVar = {"nll": Metric("NLL", "nats per example", "lower", likelihood=True)}
    monitor: ClassVar[str] = "nll"

    def init(self, key, batch):
        x = self.spec.to_float(batch["x"])
        return {
            "mean": jnp.broadcast_to(x.mean(0), (self.spec.num_classes, *self.spec.shape)) * 1.0
        }

    def eval_step(self, key, state, batch):
        x = self.spec.to_float(batch["x"])
        return {"nll": 0.5 * ((x - state["mean"][batch["label"]]) ** 2).sum((1, 2, 3))}

    def train_step(self, key, state, batch, step, axis_name=None):
        loss = lambda state: self.eval_step(key, state, batch)["nll"].mean()  # noqa: E731
        value, grads = jax.value_and_grad(loss)(state)
        value, grads = (
            (value, grads) if axis_name is None else jax.lax.pmean((value, grads), axis_name)
        )
        assert batch["source"].shape[1:] == self.spec.source.shape
        return jax.tree.map(lambda p, g: p - 0.5 * g, state, grads), {"nll": value}


def test_arrays_can_be_trained_on(tmp_path):
    """The mean of each class is learnt: labels are those of their images in every split."""
    label = np.random.default_rng(0).integers(0, 3, 120)
    x = (label[:, None, None] * 0.8 - 0.8) * np.ones((1, 4, 4), np.float32)
    data = from_arrays(x, labels=label, source=x[:, :2], config=CONDITIONAL)
    model = Mean(data.spec)
    config = TrainConfig(
        steps=60, batch_size=16, eval_every=60, log_every=20, samples=10, devices=1
    )
    run = Run("mean", model, CONDITIONAL, config)
    trainer.check(run, data)
    with jax.debug_key_reuse(False):
        trainer.Trainer(run, data, tmp_path / "run", None).train()
    rows_of = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    last = [row for row in map(json.loads, rows_of) if row["split"] == "validation"][-1]
    assert last["step"] == 60 and last["nll"] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"train": IMAGES.astype(str)}, "train is of <U3: give integers, or real numbers"),
        ({"train": np.array([[None]])}, "train is of object"),
        ({"train": [[1.0], [1.0, 2.0]]}, "train is no array of numbers"),
        ({"train": 3.0}, r"train has shape \(\): give one example or more"),
        ({"train": IMAGES[:0]}, r"train has shape \(0, 6, 5, 3\)"),
        ({"train": IMAGES[:, 0, 0]}, r"shape \(30, 3\): images are \[n h w c\] or \[n h w\]"),
        ({"train": IMAGES[None]}, r"train has shape \(1, 30, 6, 5, 3\)"),
        ({"train": IMAGES.transpose(0, 3, 1, 2)}, r"looks like \[n c h w\]: give \[n h w c\]"),
        ({"train": IMAGES.astype(int) - 1}, r"train holds integers -1..\d+: levels lie in 0..255"),
        ({"train": IMAGES.astype(int) * 9}, "levels lie in 0..255"),
        ({"train": IMAGES.astype(float)}, r"values from 0 to 25\d: scale real num.* \[-1, 1\]"),
        ({"train": IMAGES / 255.0 * np.nan}, r"train is nan at \(0, 0, 0, 0\)"),
        ({"train": IMAGES, "levels": 17}, r"holds the level 25\d, and 17 levels are 0..16"),
        ({"train": IMAGES, "levels": 257}, "levels must lie in 2..256; got 257"),
        ({"train": IMAGES / 255.0, "levels": 8}, "is real numbers, which have no 8 levels"),
        ({"train": IMAGES, "test": IMAGES[:, :4]}, "test is uint8 of shape .*: make them alike"),
        ({"train": IMAGES, "test": IMAGES / 255.0}, "test is float32 .*: make them alike"),
        ({"train": IMAGES[:2]}, "arrays has too few examples"),
        ({"labels": LABELS[:20]}, r"train has 30 examples, and a label of shape \(20,\)"),
        ({"labels": LABELS / 2}, "label of train is float64 .*: give one integer for each"),
        ({"labels": np.eye(30, dtype=int)}, r"of shape \(30, 30\): give one integer for each"),
        ({"labels": LABELS - 2}, r"label of train holds -2..1: the 2 classes are 0..1"),
        ({"labels": LABELS, "class_names": "abc"}, "holds 0..3: the 3 classes are 0..2"),
        ({"class_names": "abc"}, "class_names and no labels"),
        ({"labels": LABELS, "test": IMAGES}, "has a label for train, and none for test"),
        ({"labels": {"test": LABELS}}, "a label is given for test, which has no x"),
        ({"labels": {"dev": LABELS}}, "a label is given for dev, which has no x"),
        ({"source": IMAGES[:20]}, r"a source of shape \(20, .*give paired=False if"),
        ({"source": IMAGES.astype(float)}, "arrays source: train has values from"),
        ({"config": CONDITIONAL}, "--conditional needs labels, and arrays has none"),
        ({"labels": LABELS - 1, "config": CONDITIONAL}, "some of arrays have none"),
        ({"config": DataConfig()}, "its config is for --dataset=digits"),
        ({"config": DataConfig(dataset="arrays", size=4)}, "--size=4 means nothing to --dataset="),
        (
            {"train": IMAGES / 255.0, "config": DataConfig(dataset="arrays", levels=4)},
            "--levels=4: arrays holds images of real numbers",
        ),
        (
            {"train": IMAGES / 255.0, "config": DataConfig(dataset="arrays", binarize="static")},
            "--binarize=static: arrays is of real numbers",
        ),
        (
            {"train": IMAGES[:, 0, 0] / 2, "levels": 8,
             "config": DataConfig(dataset="arrays", levels=4)},
            "--levels=4: arrays has 8 bins already",
        ),
        (
            {"train": IMAGES[:, 0, 0] / 2, "levels": 8,
             "config": DataConfig(dataset="arrays", binarize="threshold")},
            "--binarize=threshold: arrays is of points",
        ),
    ],
)  # fmt: skip
def test_mistakes_with_arrays_are_told(arguments, told):
    with pytest.raises(UserError, match=told):
        from_arrays(**{"train": IMAGES, **arguments})


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": IMAGES}, "has the key 'images'; there are x, label, source, each alone or as"),
        ({"dev_x": IMAGES}, "has the key 'dev_x'"),
        ({"x": IMAGES, "train_x": IMAGES}, "has both x and train_x: keep one"),
        ({"label": LABELS}, "has no x of train: store it as train_x"),
        ({"x": IMAGES, "test_label": LABELS}, "has no x of test: store it as test_x"),
        ({"x": np.array([{}])}, "is not a readable .npy or .npz file"),
        ({"x": IMAGES, "levels": 2.5}, "levels is float64 of shape .*; it must be one integer"),
        ({"x": IMAGES, "label": LABELS, "class_names": "abcd"}, "class_names is <U4 of shape"),
    ],
)
def test_mistakes_in_files_are_told(tmp_path, arrays, told):
    config = saved(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=told) as error:
        load(config)
    assert "bad.npz" in str(error.value)


def test_a_file_that_is_no_array_is_told(tmp_path):
    path = tmp_path / "bad.npz"
    with pytest.raises(UserError, match="bad.npz is not a file"):
        load(DataConfig(dataset="arrays", data_dir=str(path)))
    np.savez(path, x=IMAGES)
    whole = path.read_bytes()
    for damage in (b"", b"nonsense", whole[:-40], whole[:200] + bytes(900) + whole[1100:]):
        path.write_bytes(damage)
        with pytest.raises(UserError, match="bad.npz is not a readable"):
            load(DataConfig(dataset="arrays", data_dir=str(path)))
    np.savez_compressed(path, x=IMAGES)
    whole = path.read_bytes()
    for start in range(0, len(whole) - 30, 61):
        path.write_bytes(whole[:start] + b"\xff" * 30 + whole[start + 30 :])
        with pytest.raises(UserError, match="bad.npz (is not a readable|has the key)"):
            load(DataConfig(dataset="arrays", data_dir=str(path)))
