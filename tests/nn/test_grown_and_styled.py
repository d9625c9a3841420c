"""Whole networks of growing and of styled games against the papers' formulas, in float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.model import example_keys
from jaxgen.nn.layers import fold_keys
from jaxgen.nn.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from jaxgen.nn.style import MAPPING_RATE, ResidualDiscriminator, StyleGenerator

NUM, CLASSES = 4, 3
LABEL = np.arange(NUM) % CLASSES
ONE_HOT = np.eye(CLASSES)[LABEL]
RNG = np.random.default_rng(0)
Z, X = RNG.normal(size=(NUM, 3)), RNG.normal(size=(NUM, 8, 8, 2))
Z2 = RNG.normal(size=(NUM, 3))


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def normed(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-8)


def dense(p, x, gain=1.0, rate=1.0):
    return x @ (p["kernel"] * gain * rate / x.shape[-1] ** 0.5) + p["bias"] * rate


def windows(x, side):
    """All side x side windows of maps with zeros around them [b h w side side c]."""
    edge = side // 2
    wide = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    h, w = x.shape[1:3]
    rows = [[wide[:, i : i + side, j : j + side] for j in range(w)] for i in range(h)]
    return np.stack([np.stack(row, 1) for row in rows], 1)


def conv(p, x, gain=2**0.5):
    kernel = p["kernel"]
    fan_in = np.prod(kernel.shape[:3])
    y = np.einsum("bhwklc,klcd->bhwd", windows(x, len(kernel)), kernel * gain / fan_in**0.5)
    return y + p["bias"]


def repeated(x):
    return x.repeat(2, 1).repeat(2, 2)


def mean4(x):
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def deviation(x, group):
    """With the mean deviation within each group as one more feature."""
    parts = [x[i : i + group].std(0).mean() for i in range(0, len(x), group)]
    one = np.repeat(parts, group)[:, None, None, None]
    return np.concatenate([x, np.broadcast_to(one, (*x.shape[:3], 1))], -1)


def labelled(x):
    here = ONE_HOT.reshape(NUM, *(1,) * (x.ndim - 2), CLASSES)
    return np.concatenate([x, np.broadcast_to(here, (*x.shape[:-1], CLASSES))], -1)


def arrays(network, *given):
    """Every number of it random, biases and strengths included, and the same in float64."""
    shapes = jax.eval_shape(lambda *g: network.init(jax.random.key(0), *g), *given)
    rng = np.random.default_rng(1)
    made = jax.tree.map(lambda s: np.asarray(rng.normal(size=s.shape), np.float32), shapes)
    return made, jax.tree.map(lambda a: np.asarray(a, np.float64), made["params"])


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


SIZES = ((4, 4), (8, 8))


def test_a_growing_generator_is_the_paper_s():
    """Karras et al. 2018, table 2, but for latents that keep their length."""
    network = ProgressiveGenerator(
        sizes=SIZES, stages=2, channels=2, filters=2, num_classes=CLASSES
    )
    given = np.float32(Z), LABEL
    variables, p = arrays(network, *given)
    variables = {**variables, "fade": {"alpha": np.float32(0.3)}}
    start, up = p["block_0"], p["block_1"]
    h = dense(start["EqualizedDense_0"], labelled(Z), 2**0.5).reshape(NUM, 4, 4, -1)
    step = lambda p, h: normed(leaky(conv(p["EqualizedConv_0"], h)))  # noqa: E731
    h = step(start["_Normed_0"], normed(leaky(h)))
    old = repeated(conv(p["to_image_0"], h, 1.0))
    h = step(up["_Normed_0"], step(up["_Normed_1"], repeated(h)))  # named from the outside in
    expected = 0.3 * conv(p["to_image_1"], h, 1.0) + 0.7 * old
    same(jax.jit(network.apply)(variables, *given)[0], expected)


def test_a_growing_discriminator_is_the_paper_s():
    network = ProgressiveDiscriminator(
        sizes=SIZES, stages=2, filters=2, group=2, num_classes=CLASSES
    )
    given = np.float32(X), LABEL
    variables, p = arrays(network, *given)
    variables = {**variables, "fade": {"alpha": np.float32(0.3)}}
    down, end = p["block_1"], p["block_0"]
    step = lambda p, h: leaky(conv(p, h))  # noqa: E731
    h = step(p["from_image_1"], labelled(X))
    h = mean4(step(down["EqualizedConv_1"], step(down["EqualizedConv_0"], h)))
    h = 0.3 * h + 0.7 * step(p["from_image_0"], labelled(mean4(X)))
    h = step(end["EqualizedConv_0"], deviation(h, 2)).reshape(NUM, -1)
    h = leaky(dense(end["EqualizedDense_0"], h, 2**0.5))
    same(jax.jit(network.apply)(variables, *given), dense(end["EqualizedDense_1"], h)[:, 0])


def act(x):
    return leaky(x) * 2**0.5


def linear2(x):
    """Doubled by linear interpolation, edges repeated."""
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    y = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            a, b = 1 + i // 2, 1 + j // 2
            c, d = a + (1 if i % 2 else -1), b + (1 if j % 2 else -1)
            rows = 0.75 * wide[:, a] + 0.25 * wide[:, c]
            y[:, i, j] = 0.75 * rows[:, b] + 0.25 * rows[:, d]
    return y


def mapped(p, z):
    embedded = dense(p["embed"], ONE_HOT, CLASSES**0.5)
    h = np.concatenate([normed(z), normed(embedded)], -1)
    for i in range(2):
        h = act(dense(p[f"layers_{i}"], h, rate=MAPPING_RATE))
    return h


def modulated(p, x, w, noise):
    """Equations 1 to 3, then noise, bias and rectifier."""
    style = dense(p["style"], w)
    fan_in = 9 * x.shape[-1]
    kernel = (p["kernel"] / fan_in**0.5)[None] * style[:, None, None, :, None]
    kernel = kernel / np.sqrt((kernel**2).sum((1, 2, 3), keepdims=True) + 1e-8)
    y = np.einsum("bhwklc,bklcd->bhwd", windows(x, 3), kernel)
    return act(y + p["strength"] * noise + p["bias"])


def to_data(p, x, w):
    kernel = p["kernel"] / x.shape[-1] ** 0.5
    return (x * dense(p["style"], w)[:, None, None]) @ kernel + p["bias"]


def test_a_styled_generator_is_the_paper_s():
    """Karras et al. 2020, figures 2 and 7 (skips), with the styles of two latents."""
    network = StyleGenerator(shape=(8, 8, 2), styles=4, mapping=2, filters=3, num_classes=CLASSES)
    keys, crossing = example_keys(jax.random.key(5), jnp.arange(NUM)), np.array([1, 2, 3, 4])
    given = np.float32(Z), LABEL, keys, np.float32(Z2), crossing
    variables, p = arrays(network, *given)
    for i in range(2):  # as they start: else w would count for next to nothing
        of = variables["params"]["mapper"][f"layers_{i}"]
        of["kernel"] = of["kernel"] / MAPPING_RATE
        p["mapper"][f"layers_{i}"]["kernel"] = np.asarray(of["kernel"], np.float64)
    w, w2 = mapped(p["mapper"], Z), mapped(p["mapper"], Z2)
    style = lambda layer: np.where((layer < crossing)[:, None], w, w2)  # noqa: E731

    @functools.partial(jax.jit, static_argnums=1)
    def noises(layer, side):
        own = fold_keys(example_keys(jax.random.key(5), jnp.arange(NUM)), layer)
        return jax.vmap(lambda key: jax.random.normal(key, (side, side, 1)))(own)

    noise = lambda layer, side: np.asarray(noises(layer, side))  # noqa: E731
    x = np.broadcast_to(p["first"], (NUM, *p["first"].shape))
    x = modulated(p["convs_0"], x, style(0), noise(0, 4))
    shown = linear2(to_data(p["to_data_0"], x, style(1)))
    x = modulated(p["convs_1"], linear2(x), style(1), noise(1, 8))
    x = modulated(p["convs_2"], x, style(2), noise(2, 8))
    same(jax.jit(network.apply)(variables, *given), shown + to_data(p["to_data_1"], x, style(3)))


def test_a_residual_discriminator_is_the_paper_s():
    """Karras et al. 2020, figure 7, with a label's embedding projected on the last features."""
    network = ResidualDiscriminator(filters=3, group=2, num_classes=CLASSES)
    given = np.float32(X), LABEL
    variables, p = arrays(network, *given)
    h = act(conv(p["from_data"], X, 1.0))
    skip = conv(p["skips_0"], mean4(h), 1.0)
    h = act(conv(p["second_0"], act(conv(p["first_0"], h, 1.0)), 1.0))
    h = deviation((mean4(h) + skip) / 2**0.5, 2)
    h = act(dense(p["dense"], act(conv(p["last"], h, 1.0)).reshape(NUM, -1)))
    embedded = dense(p["embed"], ONE_HOT, CLASSES**0.5)
    expected = dense(p["out"], h)[:, 0] + (embedded * h).sum(-1) / h.shape[-1] ** 0.5
    same(jax.jit(network.apply)(variables, *given), expected)


def test_styles_begin_as_one_and_the_mapping_begins_like_other_layers():
    """Scales of features are about 1 at the start, and a layer of w that learns slowly maps as one
    that does not."""
    network = StyleGenerator(shape=(8, 8, 1), styles=64, mapping=3, filters=3)
    z = np.random.default_rng(1).normal(size=(500, 64)).astype(np.float32)

    @jax.jit
    def begin(key):
        variables = network.init(key, z[:2])
        return variables["params"], network.apply(variables, z, method="styled")

    params, w = jax.tree.map(np.asarray, begin(jax.random.key(0)))
    layers = [p for p in params.values() if isinstance(p, dict)]
    biases = [p["style"]["bias"] for p in layers if "style" in p]
    assert len(biases) == 5 and all((b == 1.0).all() for b in biases)
    assert 0.7 < (w**2).mean() < 1.4
