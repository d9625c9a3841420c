"""Two folders of images as two domains."""

import numpy as np
import pytest
from stored import SPLITS, folder_config, pictures, rows, write_folder

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.errors import UserError
from jaxgen.parallel.mesh import make_mesh
from jaxgen.spec import DataSpec
from jaxgen.training.feed import Feed


def write(root, num, seed=0, **kw):
    names = [f"{i:02}.png" for i in range(num)]
    return write_folder(root, pictures(num, seed=seed, **kw), names)


def config(a, b, **fields):
    return DataConfig(dataset="folders", data_dir=f"{a},{b}", **fields)


def test_each_folder_has_its_own_examples(tmp_path):
    a, b = write(tmp_path / "a", 30), write(tmp_path / "b", 18, seed=1)
    data, alone = (
        load(config(a, b)),
        {"x": load(folder_config(b)), "source": load(folder_config(a))},
    )
    assert data.name == "folder:b from folder:a"
    assert data.spec == DataSpec(6, 6, source=DataSpec(6, 6))
    for name in SPLITS:
        split = data.splits[name]
        assert data.materialize(name) is split and split.columns.keys() == {"x"}
        np.testing.assert_array_equal(split.x, alone["x"].splits[name].x)
        np.testing.assert_array_equal(split.apart["source"], alone["source"].splits[name].x)
    assert len(data.splits["train"]) == 12 and len(data.splits["train"].apart["source"]) == 20
    assert alone["x"].protocol in data.protocol and alone["source"].protocol in data.protocol
    assert data.fingerprint != load(config(b, a)).fingerprint
    assert load(config(b, a)).name == "folder:a from folder:b"


def test_batches_go_through_each_in_its_own_order(tmp_path):
    a, b = write(tmp_path / "a", 30), write(tmp_path / "b", 18, seed=1)
    data = load(config(a, b))
    feed = Feed(data, 0, 4, make_mesh(1), 15)
    chunk = feed.chunk(0, 15)
    batches = [feed.batch(chunk, i) for i in range(15)]
    x, source = (np.concatenate([batch[name] for batch in batches]) for name in ("x", "source"))
    for e in range(5):  # 60 examples are five epochs of 12
        assert rows(x[12 * e : 12 * e + 12]) == rows(data.splits["train"].x)
    for e in range(3):  # and three of 20
        assert rows(source[20 * e : 20 * e + 20]) == rows(data.splits["train"].apart["source"])


def test_domains_of_other_shapes_are_refused(tmp_path):
    a, b = write(tmp_path / "a", 12), write(tmp_path / "b", 12, height=8, width=8)
    with pytest.raises(UserError) as error:
        load(config(a, b))
    text = str(error.value)
    assert "folder:b has images of 8x8x1 and folder:a of 6x6x1" in text and "--size=N" in text
    assert load(config(a, b, size=6)).spec == DataSpec(6, 6, source=DataSpec(6, 6))
    colour = write(tmp_path / "c", 12, channels=3)
    with pytest.raises(UserError, match="6x6x3 and folder:a of 6x6x1.*--grey"):
        load(config(a, colour))
    assert load(config(a, colour, grey=True)).spec.shape == (6, 6, 1)


@pytest.mark.parametrize("given", ["a", "a,", "a,b,c"])
def test_two_folders_are_needed(given):
    with pytest.raises(UserError, match="give two folders, A,B"):
        load(DataConfig(dataset="folders", data_dir=given))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"--data_dir={tmp_path}/no is not a directory"):
        load(config(write(tmp_path / "a", 12), f"{tmp_path}/no"))
    with pytest.raises(UserError, match="--unpaired=True means nothing to --dataset=folders"):
        load(config("a", "b", unpaired=True))
