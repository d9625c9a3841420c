"""Binarization: at one half, once, and anew in every epoch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from stored import all_images

from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load


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
    batch, index = jnp.asarray(one.splits["train"].x[:3]), jnp.arange(3)
    seen = one.observe({"x": batch}, index, index)
    assert seen.keys() == {"x"} and seen["x"] is batch


def test_splits_draw_from_different_noise():
    from jaxgen.data.binarize import Draw, draw_once
    from jaxgen.data.splits import Split

    grey = Split.of(np.full((2, 8, 8, 1), 8, np.uint8), None)
    train, test = (draw_once(Draw(17, 0), name, grey).x for name in ("train", "test"))
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
        drawn = np.asarray(observe({"x": images}, index, epochs)["x"])
        assert set(np.unique(drawn)) == {0, 1}
        assert (np.abs(drawn.mean(0) - p) <= bound).all()


def test_dynamic_draws_depend_on_seed_epoch_and_example_alone():
    loaded = [load(DataConfig(binarize="dynamic", binarize_seed=seed)) for seed in (0, 1)]
    images, label = (loaded[0].splits["train"].columns[n][:12] for n in ("x", "label"))
    index, epoch = np.arange(12, dtype=np.int32), np.full(12, 4, np.int32)

    @functools.partial(jax.jit, static_argnums=0)
    def observe(seed, images, index, epoch):
        given = {"label": label[: len(images)], "x": images}
        return loaded[seed].observe(given, index, epoch)

    def seen(*given, seed=0):
        return np.asarray(observe(seed, *given)["x"])

    whole = seen(images, index, epoch)
    np.testing.assert_array_equal(observe(0, images, index, epoch)["label"], label)
    some = np.array([7, 2, 11])
    np.testing.assert_array_equal(seen(images[some], index[some], epoch[some]), whole[some])
    for changed in (
        seen(images, index, epoch, seed=1),
        seen(images, index, epoch + 1),
        seen(images, index + 1, epoch),
    ):
        assert (changed != whole).mean() > 0.05


def test_dynamic_keeps_train_grey_and_the_rest_fixed():
    grey, static = load(DataConfig()), load(DataConfig(binarize="static"))
    data, again = (load(DataConfig(binarize="dynamic")) for _ in range(2))
    np.testing.assert_array_equal(data.splits["train"].x, grey.splits["train"].x)
    for name in ("validation", "test"):
        assert data.materialize(name) is data.splits[name]
        np.testing.assert_array_equal(data.splits[name].x, again.splits[name].x)
        np.testing.assert_array_equal(data.splits[name].x, static.splits[name].x)
    # Epoch 0 of the dynamic train split, chunked, is the observed one, and the static one.
    train = {"x": data.splits["train"].x}
    epoch0 = jax.jit(data.observe)(train, np.arange(1000), np.zeros(1000, int))["x"]
    np.testing.assert_array_equal(data.materialize("train").x, epoch0)
    np.testing.assert_array_equal(static.splits["train"].x, epoch0)
    assert data.spec.levels == 2 and data.fingerprint != static.fingerprint != grey.fingerprint
