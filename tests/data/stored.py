"""Small data sets as they are stored: folders of pictures, and TFDS sets, written here."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxgen.data.config import DataConfig
from jaxgen.data.dataset import Dataset

SPLITS = ("train", "validation", "test")


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


def folder_config(root: Path, **fields) -> DataConfig:
    return DataConfig(dataset="folder", data_dir=str(root), **fields)


def tiny_config(root: Path, **fields) -> DataConfig:
    return DataConfig(dataset="tiny", data_dir=str(root), **fields)


def all_images(data: Dataset) -> np.ndarray:
    return np.concatenate([data.splits[name].x for name in SPLITS])


def rows(images) -> list[bytes]:
    return sorted(np.asarray(image).tobytes() for image in images)
