"""Layers of latents, inverse autoregressive flows, priors and decoders that see what is earlier.

Two or three latents in all, of binary 2x2 images: the density is known by quadrature over them.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy import special
from tiny import some

from jaxgen.causal.check import check_autoregressive
from jaxgen.causal.flow import InverseAutoregressiveFlow, MaskedMLP
from jaxgen.distributions.normal import kl_normal, normal_log_prob
from jaxgen.errors import UserError
from jaxgen.losses.bounds import importance_weighted_bound
from jaxgen.models.latent.draws import terms_of
from jaxgen.models.latent.gaussian import Gaussian, combined
from jaxgen.models.latent.iaf import IAF
from jaxgen.models.latent.ladder import Ladder
from jaxgen.models.latent.pixelvae import PixelVAE
from jaxgen.models.latent.pixelvae_maps import MapPixelVAE
from jaxgen.models.latent.vae import VAE
from jaxgen.spec import DataSpec

SPEC = DataSpec(2, 2, 1, 2)
SMALL = {"hidden": (5, 3), "latents": (1, 1), "depth": 1, "dropout": 0.0}
PIXELS = {"maps": 3, "features": 3, "blocks": 1, "first_kernel": 3, "head": 3}
PIXELS["pixel_dropout"] = 0.0
MODELS = {
    "ladder": Ladder(SPEC, **SMALL),
    "bottom up": Ladder(SPEC, **SMALL, inference="bottom_up"),
    "pixelvae": PixelVAE(SPEC, **SMALL, **PIXELS),
    "chained": Ladder(
        SPEC, hidden=(5, 3), latents=(2, 1), depth=1, dropout=0.0, prior="autoregressive"
    ),
    "chained pixelvae": PixelVAE(
        SPEC, hidden=(5,), latents=(2,), dropout=0.0, prior="autoregressive", **PIXELS
    ),
    "maps": MapPixelVAE(
        SPEC,
        latents=1,
        halvings=1,
        size=2,
        filters=3,
        hidden=(4,),
        dropout=0.0,
        prior_features=3,
        **PIXELS,
    ),
    "iaf": IAF(SPEC, hidden=(5,), latents=2, flow_hidden=(6,), context=3, dropout=0.0),
}
QUICK = ["ladder", "iaf"]
IMAGES = np.array(list(itertools.product(range(2), repeat=4)), np.uint8).reshape(-1, 2, 2, 1)
GRIDS = {2: np.linspace(-6.5, 6.5, 79), 3: np.linspace(-6, 6, 31)}


BATCH = {"x": IMAGES, "index": np.arange(16)}


@functools.partial(jax.jit, static_argnums=0)
def log_px_given(model, variables, noise, x):
    """log p(x | z) of one image for each row of noise."""
    x = jnp.broadcast_to(x, (len(noise), *x.shape))
    return model.log_px(variables, model.lowest(variables, noise), {"x": x}, None)


@functools.partial(jax.jit, static_argnums=0)
def drawn_terms(model, variables):
    """Of the images: what is drawn, the prior where it is, and the terms of the bound."""
    draw = model.infer(jax.random.key(0), variables, BATCH)
    p = model.prior_of(draw.z, variables) if hasattr(model, "prior_of") else None
    return draw.z, draw.q, p, terms_of(model, jax.random.key(0), variables, BATCH)


normal_density = jax.jit(normal_log_prob)


@pytest.fixture(scope="module")
def case(random_state):
    """name -> (model, state, log p of every image by quadrature)."""

    def quiet(path, leaf):
        """Less, and q wide enough that no draw outweighs all others."""
        name = jax.tree_util.keystr(path)
        if not any(part in name for part in ("up_", "posterior", "step_", "to_maps", "to_top")):
            return np.float32(0.55 if "within" in name else 0.7) * leaf
        of_gaussian = leaf.shape in ((2,), (4,)) and "step_" not in name
        wide = np.repeat([0.0, 1.5], leaf.size // 2) if of_gaussian else 0.0
        return np.float32(0.2 * leaf + wide)

    @functools.cache
    def case(name):
        model = MODELS[name]
        state = jax.device_get(random_state(model))
        ema = jax.tree_util.tree_map_with_path(quiet, state.ema)
        state = jax.device_put(state.replace(ema=ema))
        dims = sum(model.groups)
        grid = GRIDS[dims]
        noise = np.stack(np.meshgrid(*[grid] * dims), -1).reshape(-1, dims)
        log_pxz = np.stack([
            log_px_given(model, state.ema, noise.astype(np.float32), x) for x in IMAGES
        ]).astype(np.float64)  # fmt: skip
        log_joint = log_pxz + scipy.stats.norm.logpdf(noise).sum(-1)
        return model, state, special.logsumexp(log_joint, 1) + dims * np.log(grid[1] - grid[0])

    return case


@pytest.mark.parametrize("name", some(MODELS, QUICK))
def test_bounds_against_quadrature(case, name):
    """The ELBO, with the KL as the model has it or drawn, and L_k, which rises to log p(x)."""
    model, state, log_px = case(name)
    assert abs(np.exp(log_px).sum() - 1) < 1e-5  # the reference itself is a density
    num, draws = 500, 60 if sum(model.groups) == 2 else 200
    batch = {"x": np.repeat(IMAGES, num, 0), "index": np.arange(16 * num)}

    @jax.jit
    def found(key):
        a, b = jax.random.split(key)
        log_weight = lambda key: model.log_weight(key, state, batch)  # noqa: E731
        many = importance_weighted_bound(log_weight, b, draws)
        terms = terms_of(model, a, state.ema, batch)
        return terms.log_px - terms.kl.sum(-1), terms.log_px + terms.log_ratio, many

    elbo, drawn, many = (
        np.asarray(b, np.float64).reshape(16, num) for b in found(jax.random.key(0))
    )
    error = (elbo - drawn).std(1) / num**0.5
    # One KL is the other's mean; bottom-up and flows have most of it drawn anyway.
    assert (np.abs((elbo - drawn).mean(1)) <= 4.5 * error + 1e-5).all()
    gap = log_px - elbo.mean(1)
    assert gap.max() > 0.03 and (gap > -4.5 * elbo.std(1) / num**0.5).all()
    bias = many.var(1) / 2
    assert bias.max() < 0.06
    slack = 4.5 * many.std(1) / num**0.5 + 0.2 * bias + 1e-5
    assert (np.abs(many.mean(1) + bias - log_px) < slack).all()


@pytest.mark.parametrize("name", some(MODELS, QUICK))
def test_samples_have_the_marginal_of_the_quadrature(case, name):
    model, state, log_px = case(name)
    num, p = 20_000, np.exp(log_px)
    drawn = jax.jit(lambda: model.sample(jax.random.key(2), state, num))()
    drawn = np.asarray(drawn).reshape(num, 4).astype(int) @ 2 ** np.arange(4)[::-1]
    found = np.bincount(drawn, minlength=16) / num
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / num)).all()


def test_one_layer_is_the_plain_vae(random_state):
    spec = DataSpec(3, 2, 1, 4)
    same = {"hidden": (7,), "dropout": 0.0}
    vae, one = VAE(spec, latents=3, **same), Ladder(spec, latents=(3,), depth=1, **same)
    params = dict(random_state(vae).ema["params"])
    mine = {**params, "up_0": {"Dense_0": params["posterior"]}}
    del mine["posterior"]
    named = {"encoder": {}, "decoder": {}}
    for name, value in mine.items():
        part = "encoder" if name.startswith("encoder") else "decoder"
        (named if name.startswith("up") else named[part])[name] = value
    x = np.random.default_rng(0).integers(4, size=(6, 3, 2, 1))
    batch = {"x": x.astype(np.uint8), "index": np.arange(6)}
    key = lambda: jax.random.key(1)  # noqa: E731
    expected = jax.jit(lambda v: terms_of(vae, key(), v, batch))({"params": params})
    found = jax.jit(lambda v: terms_of(one, key(), v, batch))({"params": named})
    for a, b in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("inference", ["ladder", "bottom_up"])
def test_latents_are_in_noise_space(random_state, inference):
    """Codes decode to x through the means of every layer, whatever the priors' scales are; the
    topmost layer of the noise is itself."""
    model = Ladder(SPEC, hidden=(6, 5, 4), latents=(3, 2, 2), depth=1, inference=inference)
    state = random_state(model)

    @jax.jit
    def codes(variables):
        noise = model.posterior_mean(variables, BATCH)
        z = model.posterior_of(jnp.zeros((16, 7)), variables, BATCH, None).z
        return noise, z, model.lowest(variables, noise)

    noise, z, lowest = jax.device_get(codes(state.ema))
    assert noise.shape == (16, 7) and model.groups == (2, 2, 3)
    np.testing.assert_allclose(noise[:, :2], z[:, :2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(lowest, z[:, 4:], rtol=1e-3, atol=1e-3)
    assert np.abs(noise[:, 2:] - z[:, 2:]).max() > 0.1


def _the_density_is_that_of_the_noise(z, p, noise, slopes):
    """z = what noise becomes, with these slopes; p = the prior of each latent, given z."""
    _, stretched = np.linalg.slogdet(np.asarray(slopes, np.float64))
    expected = scipy.stats.norm.logpdf(noise).sum(-1) - stretched
    log_p = np.asarray(normal_density(z, *p)).sum(-1)
    np.testing.assert_allclose(log_p, expected, rtol=1e-3, atol=2e-3)


def test_latents_of_a_layer_see_those_before_them(random_state):
    """What noise becomes depends on itself and on earlier noise of its layer, and on all above; it
    is the noise again; and its density is that of the noise over what the layers stretch."""
    model = Ladder(SPEC, hidden=(6, 9), latents=(3, 2), depth=2, prior="autoregressive")
    variables = jax.tree.map(lambda leaf: leaf / 2, jax.device_get(random_state(model).ema))
    noise = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)

    def become(noise):
        top = model._layer(variables, noise[None, :2], None, 1)
        return jnp.concatenate([top, model.lowest(variables, noise[None])], -1)[0]

    both = jax.jit(jax.vmap(lambda n: (become(n), jax.jacobian(become)(n))))
    z, slopes = jax.device_get(both(noise))
    assert (np.triu(slopes, 1) == 0).all() and (np.abs(slopes) > 0).any(0)[np.tri(5) > 0].all()
    prior = jax.jit(lambda z, of: ((p := model.prior_of(of, variables)), p.noise(z)))
    p, again = prior(z, z)
    np.testing.assert_allclose(again, noise, rtol=1e-3, atol=1e-3)
    _the_density_is_that_of_the_noise(z, p, noise, slopes)
    # Such that an error of a tenth in what the layers are given would be seen.
    off, _ = prior(z, np.float32(1.1) * z)
    with pytest.raises(AssertionError):
        _the_density_is_that_of_the_noise(z, off, noise, slopes)


@pytest.mark.parametrize("name", ["ladder", "bottom up", "pixelvae"])
def test_the_kl_is_that_of_all_layers_and_a_layer_that_says_nothing_has_none(case, name):
    """Of each layer as the report shows it; where q is the prior of the topmost, it has no KL, and
    its draws change no bound."""
    model, state, _ = case(name)
    shown = jax.jit(model.inspect)(jax.random.key(0), state, BATCH).numbers
    kl = np.asarray(drawn_terms(model, state.ema)[-1].kl)
    layers = [float(shown[f"KL of layer {i} (nats)"]) for i in (2, 1)]
    np.testing.assert_allclose(layers, kl.mean(0), rtol=1e-4)
    np.testing.assert_allclose(sum(layers), kl.sum(-1).mean(), rtol=1e-4)
    params = dict(state.ema["params"])
    params["up_1"] = jax.tree.map(np.zeros_like, jax.device_get(params["up_1"]))  # N(0, 1)
    z, q, p, still = jax.device_get(drawn_terms(model, {"params": params}))
    np.testing.assert_allclose(still.kl[:, 0], 0, atol=1e-6)
    assert (np.abs(still.kl[:, 1]) > 1e-4).all()
    below = np.asarray(normal_density(z, *p)) - np.asarray(normal_density(z, *q))
    np.testing.assert_allclose(still.log_ratio, below[:, 1], rtol=1e-4, atol=1e-5)


def test_the_posterior_of_a_layer_is_a_product_of_densities():
    rng = np.random.default_rng(0)
    a, b = (Gaussian(*rng.normal(size=(2, 5, 1)).astype(np.float32)) for _ in range(2))
    z = np.linspace(-12, 12, 4001)
    log_p = sum(
        scipy.stats.norm.logpdf(z, np.float64(g.mean), np.exp(np.float64(g.logvar) / 2))
        for g in (a, b)
    )
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    found = jax.device_get(jax.jit(combined)(a, b))
    mean = (p * z).sum(1)
    np.testing.assert_allclose(found.mean[:, 0], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(found.logvar[:, 0]), (p * z**2).sum(1) - mean**2, rtol=1e-4)


def test_kl_of_two_normals_by_quadrature():
    rng = np.random.default_rng(1)
    mean, logvar, other_mean, other_logvar = rng.normal(size=(4, 6)).astype(np.float32)
    q, p = (
        scipy.stats.norm(np.float64(m)[:, None], np.exp(np.float64(v) / 2)[:, None])
        for m, v in ((mean, logvar), (other_mean, other_logvar))
    )
    z = np.linspace(-20, 20, 20001)
    expected = (q.pdf(z) * (q.logpdf(z) - p.logpdf(z))).sum(1) * (z[1] - z[0])
    found = jax.jit(kl_normal)(mean, logvar, other_mean, other_logvar)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def flow():
    """(flow, its random variables, noise [b z], context) of five latents."""
    module, rng = InverseAutoregressiveFlow(steps=3, hidden=(9, 7)), np.random.default_rng(0)
    z, context = (rng.normal(size=(32, n)).astype(np.float32) for n in (5, 2))
    shapes = jax.eval_shape(module.init, jax.random.key(0), z, context)
    fill = lambda s: np.asarray(0.7 * rng.normal(size=s.shape), np.float32)  # noqa: E731
    return module, jax.tree.map(fill, shapes), z, context


def test_log_determinant_of_a_flow(flow):
    module, variables, z, context = flow
    move = lambda z, context: jax.tree.map(  # noqa: E731
        lambda x: x[0], module.apply(variables, z[None], context[None])
    )
    both = jax.vmap(lambda *a: (jax.jacobian(lambda *b: move(*b)[0])(*a), move(*a)[1]))
    jacobian, log_scale = jax.device_get(jax.jit(both)(z, context))
    sign, expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))
    assert (sign > 0).all()
    np.testing.assert_allclose(log_scale.sum(-1), expected, rtol=1e-4, atol=1e-4)
    assert np.median(np.abs(expected)) > 0.1


def test_an_entry_sees_those_before_it(flow):
    _, _, z, context = flow
    layer = MaskedMLP((29, 27), 2)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), z, context)
    fill = lambda s: np.asarray(np.random.default_rng(1).normal(size=s.shape), np.float32)  # noqa: E731
    variables = jax.tree.map(fill, shapes)
    see = lambda z, c: layer.apply(variables, z[None], c[None])[0]  # noqa: E731
    slopes = jax.jit(jax.vmap(jax.jacobian(see, (0, 1))))
    by_z, by_context = jax.device_get(slopes(z, context))
    assert (np.triu(np.moveaxis(by_z, 2, 0)) == 0).all()
    seen = (np.abs(by_z) > 0).any((0, 2))  # a unit may be off at one z
    np.testing.assert_array_equal(seen, np.tri(5, k=-1, dtype=bool))
    assert (np.abs(by_context) > 0).any(-1).all()


def test_a_flow_begins_as_the_identity(flow):
    module, _, z, context = flow
    begin = jax.jit(lambda *given: module.apply(module.init(jax.random.key(1), *given), *given))
    moved, log_scale = begin(z, context)
    np.testing.assert_allclose(moved, z, rtol=1e-6)
    np.testing.assert_allclose(log_scale, np.zeros_like(z), atol=1e-6)


def test_the_kl_of_a_flow_is_that_of_one_draw(case):
    """By latent, and in all the log ratio of the densities."""
    model, state, _ = case("iaf")
    z, q, _, terms = jax.device_get(drawn_terms(model, state.ema))
    np.testing.assert_allclose(terms.kl.sum(-1), -terms.log_ratio, rtol=1e-5, atol=1e-6)
    expected = q - scipy.stats.norm.logpdf(np.float64(z))
    np.testing.assert_allclose(terms.kl, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind, fields, match", [
    (Ladder, {"latents": (3,)}, "`latents` and `hidden` have a number for each layer"),
    (Ladder, {"latents": (3, 0)}, "must be positive"),
    (Ladder, {"latents": (3,), "hidden": (8,), "inference": "bottom_up"}, "no effect without"),
    (Ladder, {"estimator": "stl"}, "`estimator`=stl is not one of this model's: reparam"),
    (IAF, {"estimator": "dreg", "k": 2}, "`estimator`=dreg is not one of this model's"),
    (IAF, {"flow_hidden": ()}, "one or more positive widths"),
    (IAF, {"flows": 0}, "must be at least 1"),
    (MapPixelVAE, {"size": 0}, "must be positive"),
    (MapPixelVAE, {"halvings": 65}, "must lie in 0..64"),
    (MapPixelVAE, {"kernel": 4}, "`kernel` must be odd"),
])  # fmt: skip
def test_refuses_impossible_fields(kind, fields, match):
    with pytest.raises(UserError, match=match):
        kind(SPEC, **fields)


def test_pixels_see_earlier_ones_and_the_latents(random_state):
    """No logit depends on its own sub-pixel or a later one; every one on z."""
    model = PixelVAE(DataSpec(3, 4, 3, 4), **SMALL, **PIXELS)
    variables, z = random_state(model).ema, np.float32([[0.3]])
    chain = model.chain(variables)

    @jax.jit
    def see(x):
        given = model.given(variables, jnp.repeat(z, len(x), 0), None)
        return chain.bound(x, given)

    report = check_autoregressive(see, model.spec.shape)
    assert report.is_autoregressive and report.nan_outputs == 0, report
    x = np.zeros((1, 3, 4, 3), np.float32)
    by_z = jax.jit(jax.jacobian(lambda z: chain.bound(x, model.given(variables, z, None))))(z)
    assert (np.abs(by_z) > 0).any((4, 5, 6)).all()


def test_maps_are_what_their_noise_becomes_number_after_number(random_state):
    """By the cached sampler and by the naive one; noise of maps moves the numbers from its own on,
    that of the vector moves all; and the prior has the noise again."""
    model = MapPixelVAE(DataSpec(4, 6, 1, 5), latents=2, filters=3, hidden=(4,), prior_features=3)
    variables, rng = random_state(model).ema, np.random.default_rng(0)
    noise = rng.normal(size=(3, sum(model.groups))).astype(np.float32)
    assert model.groups == (2, 2 * 3 * 2)
    become = lambda noise: model.lowest(variables, noise)  # noqa: E731
    slope = jax.vmap(jax.jacrev(lambda n: become(n[None])[0]))
    z, slopes = jax.device_get(jax.jit(lambda n: (become(n), slope(n)))(noise))

    @jax.jit
    def prior(maps):
        """That of the maps, what it makes of the noise, and the noise of these maps by it."""
        all_of = jnp.concatenate([noise[:, :2], maps], -1)
        p = model.prior_of(all_of, variables)
        return Gaussian(p.mean[:, 2:], p.logvar[:, 2:]), p.at(noise)[:, 2:], p.noise(all_of)

    of_maps, _, again = prior(z)
    np.testing.assert_allclose(again, noise, atol=1e-4)
    assert (np.abs(slopes[..., :2]) > 0).any(0).all() and (np.triu(slopes[..., 2:], 1) == 0).all()
    assert (np.abs(np.tril(slopes[..., 2:])) > 0).any(0).sum() > 50
    _the_density_is_that_of_the_noise(z, of_maps, noise[:, 2:], slopes[..., 2:])
    # Number after number: with each pass one more is what it will be.
    maps = np.zeros_like(z)
    for _ in range(12):
        maps = prior(maps)[1]
    np.testing.assert_allclose(z, maps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [PixelVAE, MapPixelVAE])
def test_pixels_are_drawn_at_the_cost_of_one_pass(random_state, kind):
    """By the cached sampler: the same images, bit for bit, as by the naive one."""
    sizes = SMALL if kind is PixelVAE else {"latents": 2, "filters": 3, "prior_features": 3}
    model = kind(DataSpec(4, 3, 1, 5, 2), **sizes, **PIXELS)
    state = random_state(model)
    draw = lambda m: jax.jit(lambda: m.sample(jax.random.key(4), state, 7))()  # noqa: E731
    naive = draw(dataclasses.replace(model, sampler="naive"))
    np.testing.assert_array_equal(draw(model), naive)
    assert len(np.unique(naive, axis=0)) > 4
