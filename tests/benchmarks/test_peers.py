"""PyTorch's side of the benchmarks: of the same parameters it makes the same numbers."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.distributions.normal import normal_like
from jaxgen.models.latent.draws import terms_of

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

GAMES = ("dcgan", "progan", "stylegan2", "cyclegan")


def torch_conv(kernel: jax.Array) -> np.ndarray:
    """[k k in out] -> [out in k k]; of a transposed convolution, [k k out in] -> [in out k k]."""
    return np.asarray(kernel).transpose(3, 2, 0, 1)


def fill(parameter, values) -> None:
    import torch

    values = torch.from_numpy(np.array(values))
    assert parameter.shape == values.shape
    with torch.no_grad():
        parameter.copy_(values)


def fill_dense(layer, params) -> None:
    fill(layer.weight, np.asarray(params["kernel"]).T)
    if layer.bias is not None:
        fill(layer.bias, params["bias"])


def images_of(model, num: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(model.spec.levels, size=(num, *model.spec.shape)).astype(np.uint8)


def to_torch(x: np.ndarray):
    import torch

    return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["masked", "cropped"])
@pytest.mark.parametrize("kernel", [3, 7])
def test_pixelcnn_peer(kind: str, kernel: int, random_state) -> None:
    torch = pytest.importorskip("torch")
    import peers
    import train_step

    model = train_step.pixelcnn(kernel, features=5, head=6, blocks=2)
    params = random_state(model).ema["params"]
    (net,) = peers.networks(kind, model)
    ours = [params["first"], *(params[f"stack_{i}"]["causal"] for i in range(2))]
    ours += [params["hidden"], params["out"]]
    for layer, values in zip(net[::2], ours, strict=True):
        weights = torch_conv(values["kernel"])
        # What no mask lets through may be anything.
        whole = np.full(layer.weight.shape, 7.0, np.float32)
        whole[:, :, : weights.shape[2]] = weights
        fill(layer.weight, whole)
        fill(layer.bias, values["bias"])
    assert peers.live_parameters(net) == train_step.live_parameters(model)

    images = images_of(model, 3)
    expected = model.eval_step(None, random_state(model), {"x": jnp.asarray(images)})["nll"]
    x = to_torch(np.asarray(model.spec.to_float(images))).requires_grad_()
    nll = peers.pixelcnn_loss(net, x).detach()
    np.testing.assert_allclose(float(nll), float(expected.mean()), rtol=1e-5)

    logit = net(x)[0, 0, 9, 12]
    (gradient,) = torch.autograd.grad(logit, x)
    seen = gradient[0, 0].flatten() != 0
    assert seen.any() and not seen[9 * 28 + 12 :].any()


def test_vae_peer(random_state) -> None:
    torch = pytest.importorskip("torch")
    import peers
    import train_step

    model = jaxgen.VAE(train_step.BINARY, hidden=(9,), latents=3, dropout=0.0)
    state = random_state(model)
    (net,) = peers.networks("vae", model)
    names = ("encoder_layers_0", "posterior", "decoder_layers_0", "out")
    layers = (net.encoder[0], net.encoder[2], net.decoder[0], net.decoder[2])
    for layer, name in zip(layers, names, strict=True):
        fill_dense(layer, state.ema["params"][name])
    assert peers.live_parameters(net) == train_step.live_parameters(model)

    images = images_of(model, 4)
    batch = {"x": jnp.asarray(images), "index": jnp.arange(4)}
    expected = model.posterior(state.ema, batch)
    found = net.encode(to_torch(np.asarray(model.spec.to_float(images))))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.detach(), b, rtol=1e-4, atol=1e-4)
    z = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    decoded = model.parameters(state.ema, jnp.asarray(z))[..., 0].reshape(4, -1)
    np.testing.assert_allclose(
        net.decoder(torch.from_numpy(z)).detach(), decoded, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["ladder", "iaf"])
def test_peers_of_other_posteriors(kind: str, random_state) -> None:
    """The same loss, of the same parameters and the same noise."""
    torch = pytest.importorskip("torch")
    import peers
    import train_step

    fields = {"ladder": {"hidden": (9, 7), "latents": (3, 2)},
              "iaf": {"hidden": (9,), "latents": 3, "flow_hidden": (6,), "context": 4}}  # fmt: skip
    case = next(c for c in train_step.cases(quick=True).values() if kind in c.peers)
    model = dataclasses.replace(case.model, **fields[kind])
    state = random_state(model)
    values = jax.tree.map(lambda leaf: 0.5 * leaf, state.ema["params"])
    (net,) = peers.networks(kind, model)
    assert peers.live_parameters(net) == train_step.live_parameters(model)
    if kind == "ladder":
        named = {
            "encoder": values["encoder"]["encoder_layers_0"], "up_0": values["up_0"]["Dense_0"],
            "up_hidden": values["up_1"]["Dense_0"], "up_1": values["up_1"]["Dense_1"],
            "down_hidden": values["down_0"]["Dense_0"], "down_0": values["down_0"]["Dense_1"],
            "decoder": values["decoder"]["decoder_layers_0"], "out": values["decoder"]["out"],
        }  # fmt: skip
    else:
        named = {"encoder": values["encoder"]["encoder_layers_0"], "posterior": values["posterior"],
                 "to_context": values["to_context"], "decoder": values["decoder_layers_0"],
                 "out": values["out"]}  # fmt: skip
        for i, step in enumerate(net.flow):
            own = values["flow"][f"step_{i}"]
            fill(step.kernel, own["kernel_0"]), fill(step.kernel_out, own["kernel_out"])
            fill_dense(step.context, own["context_0"])
            fill_dense(step.context_out, own["context_out"])
    for name, value in named.items():
        fill_dense(getattr(net, name), value)
    images = images_of(model, 4)
    batch = {"x": jnp.asarray(images), "index": jnp.arange(4)}
    terms = terms_of(model, jax.random.key(5), {"params": values}, batch)
    expected = float((terms.kl.sum(-1) - terms.log_px).mean())
    noise = np.array(normal_like(jax.random.key(5), jnp.arange(4), (sum(model.groups),)))
    found = net.loss(to_torch(np.asarray(model.spec.to_float(images))), torch.from_numpy(noise))
    np.testing.assert_allclose(float(found.detach()), expected, rtol=3e-6)


def test_dcgan_peer(random_state) -> None:
    torch = pytest.importorskip("torch")
    import peers
    import train_step

    model = jaxgen.GAN(train_step.COLOUR, filters=2, latents=5)
    state = random_state(model)
    g, d = peers.networks("dcgan", model)
    assert peers.live_parameters(g, d) == train_step.live_parameters(model)
    values = state.g.params
    # Features first there, last here.
    dense = np.asarray(values["Dense_0"]["kernel"]).reshape(5, 4, 4, 8).transpose(3, 1, 2, 0)
    fill(g[0].weight, dense.reshape(-1, 5))
    for i, at in enumerate((2, 5, 8)):
        norm = values[f"Norm_{i}"]["BatchNorm_0"]
        fill(g[at].weight, norm["scale"]), fill(g[at].bias, norm["bias"])
        fill(g[at + 2].weight, torch_conv(values[f"ConvTranspose_{i}"]["kernel"]))
    fill(g[10].bias, values["ConvTranspose_2"]["bias"])
    z = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
    network = model.generator(train=True)
    expected, _ = network.apply(state.g.variables, jnp.asarray(z), None, mutable=["batch_stats"])
    found = g(torch.from_numpy(z)).permute(0, 2, 3, 1).detach()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)

    values = state.d.params
    for i, at in enumerate((0, 2, 5)):
        fill(d[at].weight, torch_conv(values[f"Conv_{i}"]["kernel"]))
        if i:
            norm = values[f"Norm_{i}"]["BatchNorm_0"]
            fill(d[at + 1].weight, norm["scale"]), fill(d[at + 1].bias, norm["bias"])
    fill(d[0].bias, values["Conv_0"]["bias"])
    dense = np.asarray(values["Dense_0"]["kernel"]).reshape(4, 4, 8, 1).transpose(3, 2, 0, 1)
    fill(d[9].weight, dense.reshape(1, -1)), fill(d[9].bias, values["Dense_0"]["bias"])
    images = np.asarray(model.spec.to_float(images_of(model, 6)))
    network = model.discriminator(train=True)
    expected, _ = network.apply(state.d.variables, images, None, mutable=["batch_stats"])
    found = d(to_torch(images))[:, 0].detach()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def fill_equalized(layer, params, size: tuple[int, int] | None = None, start: bool = False) -> None:
    """An equalized layer; `size` is that of the maps that a dense one makes (`start`) or takes,
    features first there and last here."""
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    if kernel.ndim == 4:
        kernel = torch_conv(kernel)
    elif size is not None and start:
        first = np.arange(kernel.shape[1]).reshape(*size, -1).transpose(2, 0, 1).flatten()
        kernel, bias = kernel[:, first].T, bias[first]
    elif size is not None:
        kernel = kernel[np.arange(len(kernel)).reshape(*size, -1).transpose(2, 0, 1).flatten()].T
    else:
        kernel = kernel.T
    fill(layer.weight, kernel), fill(layer.bias, bias)


def game_of(kind: str, random_state):
    """The quick case's model, its state, and the players of PyTorch."""
    import peers
    import train_step

    model = next(c.model for c in train_step.cases(quick=True).values() if kind in c.peers)
    players = peers.networks(kind, model)
    assert peers.live_parameters(*players) == train_step.live_parameters(model)
    return model, random_state(model), players


def same_judgement(model, state, d) -> None:
    """Both discriminators' logits, in groups."""
    images = np.asarray(model.spec.to_float(images_of(model, 8)))
    expected = model.discriminator(train=True).apply(state.d.variables, images)
    np.testing.assert_allclose(d(to_torch(images)).detach(), expected, rtol=1e-3, atol=1e-4)


def test_progan_peer(random_state) -> None:
    torch = pytest.importorskip("torch")
    model, state, (g, d) = game_of("progan", random_state)
    values = state.g.params
    fill_equalized(g.dense, values["block_0"]["EqualizedDense_0"], (4, 4), start=True)
    fill_equalized(g.first, values["block_0"]["_Normed_0"]["EqualizedConv_0"])
    for i, up in enumerate(g.ups, 1):
        for conv, name in zip(up.convs, ("_Normed_1", "_Normed_0"), strict=True):
            fill_equalized(conv, values[f"block_{i}"][name]["EqualizedConv_0"])
    for i, layer in enumerate(g.to_image):
        fill_equalized(layer, values[f"to_image_{i}"])
    g.alpha.fill_(0.3), d.alpha.fill_(0.3)
    variables, judged = (
        {**net.variables, "fade": {"alpha": jnp.float32(0.3)}} for net in (state.g, state.d)
    )
    z = np.random.default_rng(2).normal(size=(6, 64)).astype(np.float32)
    expected, _ = model.generator(train=True).apply(variables, jnp.asarray(z), None)
    found = g(torch.from_numpy(z)).permute(0, 2, 3, 1).detach()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)

    values, first = state.d.params, state.d.params["block_0"]
    fill_equalized(d.last, first["EqualizedConv_0"])
    fill_equalized(d.dense, first["EqualizedDense_0"], (4, 4))
    fill_equalized(d.logit, first["EqualizedDense_1"])
    for i, layer in enumerate(d.from_image):
        fill_equalized(layer, values[f"from_image_{i}"])
    for i, layers in enumerate(zip(d.first, d.second, strict=True), 1):
        for j, layer in enumerate(layers):
            fill_equalized(layer, values[f"block_{i}"][f"EqualizedConv_{j}"])
    state = state.replace(d=dataclasses.replace(state.d, variables=judged))
    same_judgement(model, state, d)


def test_stylegan2_peer(random_state) -> None:
    """Without noise, whose draws are not the same: its strengths are 0."""
    torch = pytest.importorskip("torch")
    model, state, (g, d) = game_of("stylegan2", random_state)
    values = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0.0 * leaf if "strength" in jax.tree_util.keystr(path) else leaf,
        state.g.params,
    )
    fill(g.first, np.asarray(values["first"]).transpose(2, 0, 1)[None])
    for i, layer in enumerate(g.mapping):
        fill_equalized(layer, values["mapper"][f"layers_{i}"])
    for i, layer in enumerate(g.convs):
        own = values[f"convs_{i}"]
        fill_equalized(layer, own), fill_equalized(layer.style, own["style"])
        fill(layer.strength, own["strength"])
    for i, layer in enumerate(g.to_data):
        own = values[f"to_data_{i}"]
        fill_equalized(layer, {**own, "kernel": np.asarray(own["kernel"])[None, None]})
        fill_equalized(layer.style, own["style"])
    rng = np.random.default_rng(2)
    z, other = rng.normal(size=(2, 6, 64)).astype(np.float32)
    crossing = np.array([1, 2, 3, 5, 7, 8])
    expected = model.generator(train=False).apply(
        {**state.g.variables, "params": values}, z, None, None, other, crossing
    )
    z, other = torch.from_numpy(z), torch.from_numpy(other)
    found = g.draw(g.styled(z), g.styled(other), torch.from_numpy(crossing))
    np.testing.assert_allclose(
        found.permute(0, 2, 3, 1).detach(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )
    g.mixing = 0.0
    mean = g.styled(z).mean(0).detach()
    np.testing.assert_allclose(g(z).detach(), g.draw(g.styled(z), None, None).detach(), rtol=1e-5)
    np.testing.assert_allclose(g.w_mean, 0.005 * mean, rtol=1e-5)

    values = state.d.params
    for name in ("from_data", "last"):
        fill_equalized(getattr(d, name), values[name])
    fill_equalized(d.dense, values["dense"], (4, 4)), fill_equalized(d.logit, values["out"])
    for name in ("skips", "first", "second"):
        for i, layer in enumerate(getattr(d, name)):
            fill_equalized(layer, values[f"{name}_{i}"])
    same_judgement(model, state, d)


def test_cyclegan_peer(random_state) -> None:
    """Strided layers pad the other side there: images and kernels are turned by half a turn."""
    torch = pytest.importorskip("torch")
    model, state, (g, _, d, _) = game_of("cyclegan", random_state)
    norm, half = torch.nn.InstanceNorm2d, lambda x: np.asarray(x)[:, ::-1, ::-1]

    def fill_all(net, params, turn: bool) -> None:
        convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
        back = [m for m in net.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
        norms = [m for m in net.modules() if isinstance(m, norm)]
        named = {"Conv": convs, "ConvTranspose": back, "InstanceNorm": norms}
        for name, layers in named.items():
            for i, layer in enumerate(layers):
                own = params[f"{name}_{i}"]
                if name == "InstanceNorm":
                    fill(layer.weight, own["scale"])
                else:
                    kernel = np.asarray(own["kernel"])
                    fill(layer.weight, torch_conv(kernel[::-1, ::-1] if turn else kernel))
                if layer.bias is not None:
                    fill(layer.bias, own["bias"])

    fill_all(g, state.forth.params, turn=True), fill_all(d, state.d_x.params, turn=False)
    images = np.asarray(model.spec.to_float(images_of(model, 3)))
    expected = model.network("forth").apply(state.forth.variables, images)
    found = half(g(to_torch(half(images))).permute(0, 2, 3, 1).detach().numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    expected = model.discriminator(train=True).apply(state.d_x.variables, images)
    np.testing.assert_allclose(d(to_torch(images))[:, 0].detach(), expected, rtol=1e-3, atol=1e-4)


def test_a_pool_shows_what_was_made_before() -> None:
    torch = pytest.importorskip("torch")
    from peers_translation import Pool

    torch.manual_seed(0)
    pool, seen = Pool(3), []
    for i in range(40):
        seen += pool.exchange(torch.arange(2 * i, 2 * i + 2).float()[:, None]).flatten().tolist()
    assert seen[:3] == [0.0, 1.0, 2.0] and len(pool.images) == 3
    # Half are shown at once, and half in place of one that is kept.
    old = sum(int(value) != i for i, value in enumerate(seen))
    assert 25 < old < 55
    assert sorted(seen + torch.stack(pool.images).flatten().tolist())[-3:] != seen[-3:]


@pytest.mark.parametrize("kind", ["masked", "cropped", "vae", "ladder", "iaf", *GAMES])
def test_peers_train(kind: str) -> None:
    """Every variant but the compiled ones takes steps, and they change the parameters."""
    torch = pytest.importorskip("torch")
    import peers
    import train_step

    case = next(c for c in train_step.cases(quick=True).values() if kind in c.peers)
    torch.manual_seed(0)
    made = []

    def networks(kind: str, model) -> tuple:
        made.append(original(kind, model))
        return made[-1]

    original, peers.networks = peers.networks, networks
    try:
        runs = peers.sides(kind, case.model, images_of(case.model, 8), 4, "cpu", compiled=False)
    finally:
        peers.networks = original
    assert len(runs) == len(made) == (1 if kind in peers.DENSE else 2)
    for run, nets in zip(runs.values(), made, strict=True):
        params = [p for net in nets for p in net.parameters()]
        before = [p.detach().clone() for p in params]
        run(3)
        moved = [not torch.equal(a, b) for a, b in zip(before, params, strict=True)]
        # Of all sizes of a growing network, the last one's ways to and from images are used.
        assert moved == [p.grad is not None and bool(p.grad.any()) for p in params]
        assert all(moved) or kind == "progan"
        assert all(torch.isfinite(p).all() for p in params)
