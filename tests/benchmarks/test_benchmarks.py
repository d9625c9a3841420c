"""The benchmarks run, and PyTorch's side of them computes what ours does."""

import dataclasses
import io
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import some

import jaxgen
from jaxgen.distributions.normal import normal_like
from jaxgen.models.latent.draws import terms_of

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

QUICK = {
    "train_step": ["--cases", "vae 784-400-20"],
    "bounds": [],
    "sampling": [],
    "scaling": ["--devices=2", "--processes=1"],
    "data": [],
    "startup": [],
}


def test_rows_say_what_each_was_measured_on():
    import common

    rows = [{"task": "digits", "model": "vae", "on": on} for on in ("old", "new", "new")]
    assert common.measured(rows[:1]) == "Measured on old."
    told = "Measured on new. 1 rows of 3 on old: `vae` (digits)."
    assert common.measured(rows) == told
    for name in ("adversarial", "autoregressive", "latent"):
        kept = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())["rows"]
        assert all("cores, JAX" in row["on"] for row in kept)


def test_one_function_makes_paths_of_flags():
    for file in (ROOT / "benchmarks").glob("*.py"):
        assert "type=Path" not in file.read_text(), file


def bench(*args: str) -> str:
    command = [sys.executable, *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """As `bench`, of what computes nothing: in this process, which has imported most of it."""

    def here(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", list(args))
        try:
            runpy.run_path(str(ROOT / args[0]), run_name="__main__")
        except SystemExit as ended:
            assert not ended.code, ended.code
        return capsys.readouterr().out

    return here


def check(name: str, out: Path, printed: str) -> dict:
    result = json.loads((out / f"{name}.json").read_text())
    assert {"machine", "settings", "rows", "targets"} <= set(result)
    assert result["machine"]["cpu"] and result["settings"]["quick"]
    for row in result["targets"]:
        assert {"task", "ours", "peer", "ratio", "target"} <= set(row)
        if row["ratio"]:
            assert 0 < row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
        assert row["task"] in printed
    assert "target" in printed and "median" in json.dumps(result["rows"])
    picture = (out / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 100_000
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_benchmark_runs(name: str, tmp_path: Path) -> None:
    printed = bench(
        f"benchmarks/{name}.py", "--quick", f"--out={tmp_path / name}.json", *QUICK[name]
    )
    check(name, tmp_path, printed)


@pytest.mark.parametrize("name", some([*QUICK, "run"], ["train_step", "run"]))
def test_help(name: str, here: Callable[..., str]) -> None:
    assert "--quick" in here(f"benchmarks/{name}.py", "--help")


@pytest.mark.slow
def test_all_of_them_in_one_command(tmp_path: Path) -> None:
    before = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    import run

    printed = bench("benchmarks/run.py", "--quick", f"--out={tmp_path}")
    for name in run.BENCHMARKS:
        check(name, tmp_path, printed)
    assert "| task | ours |" in printed
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == before


@pytest.mark.parametrize(
    "name",
    some(
        ["digits", "autoregressive", "latent", "adversarial", "toy_gan", "run"], ["latent", "run"]
    ),
)
def test_pages_show_the_results(name: str, here: Callable[..., str]) -> None:
    here(f"benchmarks/{name}.py", "--check")


def test_another_table_is_not_let_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pages

    page = tmp_path / "page.md"
    page.write_text("above\n<!-- a:begin -->\n<!-- a:end -->\nbelow <!-- b:begin -->\n")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    pages.write(page, "a", "| 1 |")
    text = "above\n<!-- a:begin -->\n| 1 |\n<!-- a:end -->\nbelow <!-- b:begin -->\n"
    assert page.read_text() == text
    pages.check(page, "a", "| 1 |", "")
    with pytest.raises(SystemExit, match="page.md shows another table: this writes it"):
        pages.check(page, "a", "| 2 |", "this")
    assert page.read_text() == text


def test_front_picture() -> None:
    """Every image is where it belongs, dark on light and without interpolation."""
    import front_picture
    from PIL import Image

    rng = np.random.default_rng(0)
    sheets = {
        name: rng.integers(17, size=(front_picture.NUM, 8, 8, 1)) for name in ("a\nb", "c\nd")
    }
    png = front_picture.picture(sheets, 17)
    assert len(png) < 100_000
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
    scale, gap = front_picture.SCALE, front_picture.GAP
    high, wide = front_picture.ROWS * 10 * scale, front_picture.COLUMNS * 10 * scale
    for i, images in enumerate(sheets.values()):
        left = gap + i * (wide + gap)
        middles = shown[-gap - high : -gap, left : left + wide][
            scale // 2 :: scale, scale // 2 :: scale
        ]
        last = middles[-9:-1, -9:-1]
        np.testing.assert_allclose(last, 255 - images[-1, ..., 0] * 255 / 16, atol=3)
    committed = (ROOT / "benchmarks" / "results" / "samples.png").read_bytes()
    assert committed.startswith(b"\x89PNG") and len(committed) < 100_000


@pytest.mark.slow
def test_without_pytorch_the_peer_says_why(tmp_path: Path) -> None:
    """A module that refuses to be imported stands in for a missing one."""
    (tmp_path / "torch.py").write_text("raise ImportError")
    out = tmp_path / "train_step.json"
    command = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[0] = 'train_step.py'; "
    command += f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); "
    command += f"sys.path.insert(0, {str(tmp_path)!r}); import train_step; train_step.main()"
    bench("-c", command, "--quick", "--cases", "vae 784-400-20", f"--out={out}")
    peer = json.loads(out.read_text())["targets"][1]
    assert "pip install '.[bench]'" in peer["peer"]
    assert peer["ratio"] is None and "met" not in peer


def test_rounds_alternate_and_medians_are_quoted() -> None:
    import common

    order: list[str] = []
    sides = {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}
    times = common.alternate(sides, 3)
    assert "".join(order) == "abccbaabc"
    assert times == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert common.spread([3.0, 1.0, 2.0]) == {"median": 2, "min": 1, "max": 3}
    found = common.ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert found == {"median": 2, "min": 2, "max": 3}
    assert common.target("", "", "", found, ">= 2")["met"]
    assert not common.target("", "", "", found, "<= 1.9")["met"]


# The same parameters in both libraries give the same numbers.


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


@pytest.mark.parametrize("kind", ["masked", "cropped", "dcgan", "vae", "ladder", "iaf"])
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
        assert all(moved) and all(torch.isfinite(p).all() for p in params)
