"""Pairings: exact integer maps, made in the train step, in pairs or from halves apart."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from stored import SPLITS, folder_config, pictures, rows, write_folder

from jaxgen.data import binarize
from jaxgen.data.config import DataConfig, PairingName
from jaxgen.data.domains import apart, beside, with_pairing
from jaxgen.data.loading import load
from jaxgen.data.pairing import PAIRINGS, Pairing
from jaxgen.errors import UserError
from jaxgen.parallel import inference
from jaxgen.parallel.mesh import make_mesh
from jaxgen.spec import DataSpec
from jaxgen.training.feed import Feed, first_examples

COLOUR, GREY, FEW = DataSpec(8, 12, 3), DataSpec(8, 12, 1), DataSpec(8, 12, 1, 17)


def suited(name: str, levels: int = 256) -> tuple[Pairing, np.ndarray]:
    """The pairing of that name, and images that it takes."""
    channels = PAIRINGS[name].channels or 1
    spec = DataSpec(8, 12, channels, levels)
    x = np.random.default_rng(0).integers(0, levels, (9, *spec.shape), np.uint8)
    return Pairing(name, spec), x


def test_the_table_is_the_flag():
    assert {"none", *PAIRINGS} == set(get_args(PairingName))


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", PAIRINGS)
def test_sources_are_levels_of_their_spec(name, levels):
    pairing, x = suited(name, levels)
    make = jax.jit(pairing.make)
    source = np.asarray(make(x))
    assert source.dtype == np.uint8 and source.shape == (9, *pairing.source.shape)
    assert pairing.source.levels == levels and source.max() < levels
    # Neither compiling nor the other examples of a batch change anything.
    if levels == 256:
        np.testing.assert_array_equal(source, pairing.make(jnp.asarray(x)))
    np.testing.assert_array_equal(np.concatenate([make(one[None]) for one in x]), source)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", [name for name in PAIRINGS if PAIRINGS[name].answer])
def test_the_answer_is_the_inverse(name, levels):
    pairing, x = suited(name, levels)
    assert pairing.exact

    @jax.jit
    def there_and_back(x):
        source = pairing.make(x)
        return source, pairing.answer(source)

    source, back = there_and_back(x)
    assert not np.array_equal(source, x)
    np.testing.assert_array_equal(back, x)


def test_maps_are_their_definitions():
    def made(name, spec, x):
        return np.asarray(jax.jit(Pairing(name, spec).make)(np.uint8(x)))

    colour = pictures(5, 8, 12, 3)
    luma = [np.asarray(Image.fromarray(image).convert("L")) for image in colour]
    np.testing.assert_array_equal(made("colorize", COLOUR, colour)[..., 0], luma)
    white = np.full((1, 8, 12, 3), 16, np.uint8)
    assert (made("colorize", DataSpec(8, 12, 3, 17), white) == 16).all()

    grey = pictures(5, 8, 12, 1)
    for name, factor in (("super2", 2), ("super4", 4)):
        blocks = grey.reshape(5, 8 // factor, factor, 12 // factor, factor, 1)
        exact = np.floor(blocks.mean((2, 4)) + 0.5)
        np.testing.assert_array_equal(made(name, GREY, grey), exact)
    holed = made("inpaint", GREY, grey)
    hole = np.zeros((8, 12), bool)
    hole[2:6, 3:9] = True
    np.testing.assert_array_equal(holed[:, ~hole], grey[:, ~hole])
    assert (holed[:, hole] == 0).all()
    np.testing.assert_array_equal(made("invert", FEW, grey % 17), 16 - grey % 17)
    np.testing.assert_array_equal(made("rotate", GREY, grey), np.rot90(grey, 1, (1, 2)))
    tinted = made("tint", FEW, grey % 17)
    assert tinted.shape[-1] == 3
    np.testing.assert_array_equal(tinted[..., 1], grey[..., 0] % 17 // 2)

    flat = np.zeros((1, 8, 12, 3), np.uint8)
    flat[0, 3, 5, 1] = 200  # one pixel: its own step down and right, and those to it
    outline = {(3, 5), (2, 5), (3, 4)}
    found = made("edges", COLOUR, flat)[0, ..., 0]
    assert {tuple(at) for at in np.argwhere(found)} == outline and set(found[found > 0]) == {200}


@pytest.mark.parametrize(
    ("name", "spec", "told"),
    [
        ("colorize", GREY, "needs images of 3 channels, and these have 1: take a --dataset of col"),
        ("tint", COLOUR, "needs images of 1 channel, and these have 3: give --grey"),
        ("super2", DataSpec(8, 9), "sizes that 2 divides, and these images are 8x9: give --size=N"),
        ("super4", DataSpec(6, 8), "a multiple of 4"),
        ("inpaint", DataSpec(3, 8), "4 x 4 pixels at least, and these are 3x8"),
        ("invert", DataSpec(1, 64, rate=4000), "is of images of levels, and these are sounds"),
        ("invert", DataSpec(8, 8, levels=0), "these are real numbers"),
    ],
)
def test_a_pairing_that_does_not_suit_is_refused(name, spec, told):
    with pytest.raises(UserError, match=f"--pairing={name} .*{told}"):
        Pairing(name, spec)


def test_flags_that_do_not_suit_are_refused(tmp_path):
    for flags, told in (
        ({"pairing": "colorize"}, "--pairing=colorize needs images of 3 channels"),
        ({"pairing": "super4", "size": 10}, "--pairing=super4"),
        ({"unpaired": True}, "--unpaired needs pairs to take apart: give a --pairing"),
        ({"dataset": "tones", "pairing": "invert"}, "--pairing=invert means nothing to"),
    ):
        with pytest.raises(UserError, match=told):
            load(DataConfig(**flags))
    # Where types are checked at run time, that check comes first.
    with pytest.raises((UserError, TypeError), match="pairing"):
        DataConfig(pairing="upside_down")
    data = load(DataConfig(pairing="invert"))
    with pytest.raises(UserError, match="has a source of its own"):
        with_pairing(data, "rotate")
    with pytest.raises(UserError, match="apart already"):
        apart(apart(data))


def test_validation_and_test_hold_pairs_and_train_makes_them():
    plain, data = load(DataConfig()), load(DataConfig(pairing="super2"))
    assert data.spec == dataclasses.replace(plain.spec, source=DataSpec(4, 4, 1, 17))
    for name in SPLITS:
        np.testing.assert_array_equal(data.splits[name].x, plain.splits[name].x)
        seen = data.materialize(name)
        made = jax.jit(data.pairing.make)(plain.splits[name].x)
        np.testing.assert_array_equal(seen.columns["source"], made)
        assert seen.columns["source"].dtype == np.uint8 and seen.apart == {}
    assert "source" not in data.splits["train"].columns, "made in the train step"
    assert data.protocol.endswith("; pairs by super2: small to large, 4x4x1 to 8x8x1")
    others = [DataConfig(pairing="super4"), DataConfig(pairing="super2", unpaired=True)]
    prints = {plain.fingerprint, data.fingerprint, *(load(other).fingerprint for other in others)}
    assert len(prints) == 4
    assert load(DataConfig(pairing="super2")).fingerprint == data.fingerprint


def test_observing_makes_the_source_of_what_is_seen():
    data = load(DataConfig(pairing="super2", binarize="dynamic"))
    assert data.spec.source == DataSpec(4, 4, 1, 2)
    observe = jax.jit(data.observe)
    seen = observe({"x": data.splits["train"].x[:20]}, np.arange(20), np.full(20, 3))
    assert set(np.unique(seen["x"])) == {0, 1}
    np.testing.assert_array_equal(seen["source"], jax.jit(data.pairing.make)(seen["x"]))
    # Epoch 0, whole, is what `materialize` gives.
    seen = observe({"x": data.splits["train"].x}, np.arange(1000), np.zeros(1000, int))
    made = data.materialize("train")
    np.testing.assert_array_equal(made.x, seen["x"])
    np.testing.assert_array_equal(made.columns["source"], seen["source"])


def test_unpaired_halves_are_disjoint_and_complete():
    plain = load(DataConfig(pairing="rotate"))
    data = load(DataConfig(pairing="rotate", unpaired=True, conditional=True))
    train = data.splits["train"]
    assert train.columns.keys() == {"x", "label"} and train.apart.keys() == {"source"}
    assert len(train) == len(train.apart["source"]) == 500
    every = np.concatenate([train.x, train.apart["source"]])  # the halves, before the map
    assert rows(every) == rows(plain.splits["train"].x)
    # Random halves: each has every class, about equally often.
    counts = np.bincount(train.label, minlength=10), np.bincount(plain.splits["train"].label)
    assert (np.abs(counts[0] - counts[1] / 2) < 5 * (counts[1] / 4) ** 0.5).all()
    for name in ("validation", "test"):
        assert data.splits[name].apart == {}
        for column in ("x", "source"):
            np.testing.assert_array_equal(
                data.splits[name].columns[column], plain.splits[name].columns[column]
            )
    made = data.materialize("train").apart["source"]
    np.testing.assert_array_equal(made, np.rot90(train.apart["source"], 1, (1, 2)))
    assert data.spec.source == plain.spec.source and "divided by seed 0" in data.protocol
    again = load(DataConfig(pairing="rotate", unpaired=True))
    np.testing.assert_array_equal(again.splits["train"].x, train.x)


def test_unpaired_sources_are_drawn_with_noise_of_their_own():
    data = load(DataConfig(pairing="invert", unpaired=True, binarize="dynamic"))
    grey = np.full((40, 8, 8, 1), 8, np.uint8)
    given, index, observe = {"x": grey, "source": grey}, np.arange(40), jax.jit(data.observe)
    seen, other = (jax.device_get(observe(given, index, np.full(40, at))) for at in (1, 2))
    agree = (seen["x"] == np.asarray(data.pairing.answer(seen["source"]))).mean()
    assert abs(agree - 0.5) < 5 * 0.5 / (40 * 64) ** 0.5
    assert (other["source"] != seen["source"]).mean() > 0.3
    made = data.materialize("train").apart["source"]
    drawn = binarize.drawn(data.dynamic, binarize.APART, data.splits["train"].apart["source"])
    np.testing.assert_array_equal(made, 1 - drawn)


@pytest.mark.parametrize("unpaired", [False, True])
def test_batches_and_evaluation_see_the_source(unpaired):
    data = load(DataConfig(pairing="super2", unpaired=unpaired))
    mesh = make_mesh(1)
    feed = Feed(data, 0, 10, mesh, 4)
    chunk = feed.chunk(0, 4)
    batch_of, make = jax.jit(feed.batch), jax.jit(data.pairing.make)
    batches = [jax.device_get(batch_of(chunk, i)) for i in range(4)]
    first = first_examples(data, 0, 10)
    made = np.asarray(make(load(DataConfig()).splits["train"].x))
    for batch in batches:
        assert batch["source"].shape == (10, 4, 4, 1)
        own = np.asarray(make(batch["x"])) == batch["source"]
        assert own.all() if not unpaired else not own.all((1, 2, 3)).any()
        assert set(rows(batch["source"])) <= set(rows(made))
    for name in ("x", "source"):
        np.testing.assert_array_equal(first[name], batches[0][name])
    seen = inference.examples(data.splits["test"], data.spec, slice(5))
    np.testing.assert_array_equal(seen["source"], data.splits["test"].columns["source"][:5])
    split = data.materialize("train")
    assert inference.examples(split, data.spec, slice(5))["source"].shape == (5, 4, 4, 1)


def test_two_data_sets_make_one(tmp_path):
    colour = write_folder(
        tmp_path / "b", pictures(12, channels=3), [f"{i:02}.png" for i in range(12)]
    )
    x, source = load(folder_config(colour)), load(folder_config(colour, grey=True))
    data = beside(x, source, paired=True)
    assert data.spec.source == source.spec and data.name == x.name
    make = jax.jit(Pairing("colorize", x.spec).make)
    for name in SPLITS:
        made = make(x.splits[name].x)
        np.testing.assert_array_equal(data.splits[name].columns["source"], made)
    other = beside(x, source, paired=False)
    assert other.fingerprint != data.fingerprint and other.splits["test"].apart.keys() == {"source"}
    halves = apart(data).splits["train"]
    assert not set(rows(halves.x)) & set(rows(halves.apart["source"]))
    made = np.asarray(make(x.splits["train"].x))
    both = [*np.asarray(make(halves.x)), *halves.apart["source"]]
    assert rows(both) == rows(made)
