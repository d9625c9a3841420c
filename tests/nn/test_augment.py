"""Augmentations against loops over pixels, and what holds for all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import some

from jaxgen.model import example_keys
from jaxgen.nn.augment import AUGMENTATIONS, augmented

NAMES = tuple(AUGMENTATIONS)


def keys_of(num):
    return example_keys(jax.random.key(3), jnp.arange(num))


def images(channels, num=16, size=(8, 12)):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (num, *size, channels)).astype(np.float32)


def translation_numbers(key):
    keys = jax.random.split(key)
    return [jax.random.randint(k, (), -m, m + 1) for k, m in zip(keys, (1, 2), strict=True)]


def naive_translation(x, down, right):
    h, w, _ = x.shape
    y = np.zeros_like(x)
    for i in range(h):
        for j in range(w):
            if 0 <= i - down < h and 0 <= j - right < w:
                y[i, j] = x[i - down, j - right]
    return y


def cutout_numbers(key):
    ky, kx = jax.random.split(key)
    return jax.random.randint(ky, (), 0, 8 + 1), jax.random.randint(kx, (), 0, 12 + 1)


def naive_cutout(x, row, column):
    h, w, _ = x.shape
    y = x.copy()
    y[
        max(0, row - h // 4) : max(0, row + h // 4),
        max(0, column - w // 4) : max(0, column + w // 4),
    ] = 0
    return y


def color_numbers(key):
    return [jax.random.uniform(k) for k in jax.random.split(key, 3)]


def naive_color(x, b, s, c):
    y = x.astype(np.float64) + b - 0.5
    if x.shape[-1] == 3:
        grey = y.mean(-1, keepdims=True)
        y = grey + 2 * s * (y - grey)
    return y.mean() + (0.5 + c) * (y - y.mean())


NAIVE = {
    "translation": (translation_numbers, naive_translation),
    "cutout": (cutout_numbers, naive_cutout),
    "color": (color_numbers, naive_color),
}
"""What is drawn, and what is done with it to one image."""


@pytest.mark.parametrize("name", some(
    [f"{name}, {channels}" for name in NAMES for channels in (1, 3)],
    ["color, 1", "color, 3", "translation, 3", "cutout, 3"],
))  # fmt: skip
def test_equals_the_loops(name):
    name, channels = name.split(", ")
    x = images(int(channels))
    numbers, naive = NAIVE[name]

    @jax.jit
    def run(x):
        return (
            jax.vmap(AUGMENTATIONS[name])(keys_of(16), x),
            jax.vmap(numbers)(keys_of(16)),
        )

    found, drawn = jax.tree.map(np.asarray, run(x))
    expected = [naive(one, *(n[i] for n in drawn)) for i, one in enumerate(x)]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5 if name == "color" else 0)
    assert len({one.tobytes() for one in found - x}) > 8  # each by its own key


@pytest.mark.parametrize("channels", some([1, 3], [3]))
def test_without_strength_nothing_changes_and_half_of_it_is_of_half_the_images(channels):
    x = images(channels, 2000, (4, 4))

    @functools.partial(jax.jit, static_argnums=0)
    def jitted(names, p):
        return augmented(keys_of(2000), x, names, p)

    run = lambda names, p: np.asarray(jitted(names, p))  # noqa: E731
    np.testing.assert_array_equal(run(NAMES, 0.0), x)
    changed = lambda p: float((run(("color",), p) != x).any((1, 2, 3)).mean())  # noqa: E731
    assert changed(1.0) == 1.0
    assert abs(changed(0.5) - 0.5) < 5 * (0.25 / 2000) ** 0.5
    # Several are each decided alone: all four pairs of choices occur.
    untouched = float((run(("color", "color"), 0.5) == x).all((1, 2, 3)).mean())
    assert abs(untouched - 0.25) < 5 * (0.1875 / 2000) ** 0.5


@pytest.mark.parametrize("channels", some([1, 3], [3]))
def test_the_gradient_is_exact(channels):
    """All are affine in x, so that a finite difference is a derivative: it and the gradient are one
    bilinear form."""
    x, v, g = images(channels), images(channels)[::-1], images(channels)[:, ::-1]

    @jax.jit
    def both(x, v, g):
        twice = example_keys(jax.random.key(3), np.tile(np.arange(16), 2))
        f = lambda x: augmented(twice, x, NAMES, 0.7)  # noqa: E731
        y, pull = jax.vjp(f, jnp.concatenate([x, x + v]))
        (slope,) = pull(jnp.concatenate([g, jnp.zeros_like(g)]))
        return (g * (y[16:] - y[:16])).sum((1, 2, 3)), (v * slope[:16]).sum((1, 2, 3))

    np.testing.assert_allclose(*both(x, v, g), atol=1e-4)


def test_an_image_s_noise_is_of_its_key_alone():
    """Neither of its place nor of the other images."""

    @jax.jit
    def run(index, x):
        return augmented(example_keys(jax.random.key(3), index), x, NAMES)

    x = images(3)
    whole = np.asarray(run(np.arange(16), x))
    part = np.asarray(run(np.arange(5, 21), np.concatenate([x[5:9], x[:12]])))
    np.testing.assert_allclose(part[:4], whole[5:9], atol=1e-6)
