"""`jaxgen compress` and `decompress`, on pictures."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.cli import command, compress, main
from jaxgen.compression import codec
from jaxgen.data.config import DataConfig
from jaxgen.media.pictures import grid, save_png
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.models.autoregressive.pixelcnn import PixelCNN
from jaxgen.registry import MODELS
from jaxgen.runs.config import Run, TrainConfig
from jaxgen.runs.saved import SavedRun
from jaxgen.spec import DataSpec


@pytest.fixture(scope="module")
def case(random_state):
    """A small PixelCNN, random parameters that exclude no level, and five images, mostly dark."""
    model = PixelCNN(
        DataSpec(8, 8, 1, 17), features=4, blocks=1, head=4, first_kernel=3, dropout=0.0
    )
    state = jax.tree.map(lambda x: x * 0.5, random_state(model))
    state, rng = state.replace(ema=state.net.variables), np.random.default_rng(0)
    images = rng.integers(17, size=(5, 8, 8, 1), dtype=np.uint8)
    return model, state, np.where(rng.random(images.shape) < 0.5, 0, images).astype(np.uint8)


def nll_in_bytes(model, state, images):
    batch = {"x": jnp.asarray(images), "index": jnp.arange(len(images))}
    bits = np.asarray(-jax.jit(model.log_prob)(state.ema, batch), np.float64) / math.log(2)
    # No level has less than 1 of 2^20.
    return np.minimum(bits, 20).sum() / 8


@pytest.fixture
def run_command(case, monkeypatch, tmp_path):
    """Runs a command on the small PixelCNN as if it were a saved run."""
    model, state, _ = case
    saved = SavedRun(Run("pixelcnn", model, DataConfig(), TrainConfig()), state, 0, {})
    monkeypatch.setattr(command.Command, "_load", lambda self: saved)
    monkeypatch.setattr(main, "keep_compiled", lambda: None)
    monkeypatch.chdir(tmp_path)
    return lambda *argv: main.main([*argv, "--run=run"])


@pytest.fixture
def pictures(case, run_command):
    """Names of five PNGs in the folder `given`, each with the model's levels alone."""
    _, _, images = case
    Path("given").mkdir()
    names = [f"given/{i:06d}.png" for i in range(5)]
    for name, image in zip(names, images, strict=False):
        save_png(name, grid(image[None], 17, pad=0, scale=1))
    return names


def test_pictures_come_back_as_the_same_files(run_command, pictures, case, capfd):
    model, state, images = case
    run_command("compress", "--out=to/five.jxg", "--images", *pictures)
    data = Path("to/five.jxg").read_bytes()
    assert data == codec.compress(model, state, images)
    told = " ".join(capfd.readouterr().out.split())
    said = "decoded again and found the same file"
    assert f"5 images written to {Path.cwd()}/to/five.jxg, {said} {len(data)}" in told
    ideal = nll_in_bytes(model, state, images)
    nats = ideal * 8 * math.log(2) / 5
    assert f"NLL {ideal:.0f} bytes {ideal / 40:.4f} bits/dim {nats:.2f} nats per image" in told
    assert f"PNG {sum(Path(p).stat().st_size for p in pictures)} bytes" in told
    run_command("decompress", "--file=to/five.jxg", "--out=back")
    assert sorted(p.name for p in Path("back").iterdir()) == [p[6:] for p in pictures]
    for name in pictures:
        assert Path(name).read_bytes() == Path("back", name[6:]).read_bytes()
    run_command("decompress", "--file=to/five.jxg", "--out=five.npz")
    assert (np.load("five.npz")["x"] == images).all()


def test_what_does_not_come_back_is_not_written(run_command, pictures, monkeypatch, capfd):
    """As on a machine that does not compute the same numbers twice."""
    decompress = codec.decompress
    wrong = lambda *args: (decompress(*args)[0][::-1], None)  # noqa: E731
    monkeypatch.setattr(codec, "decompress", wrong)
    with pytest.raises(SystemExit) as stopped:
        run_command("compress", "--out=x.jxg", "--images", *pictures)
    assert stopped.value.code == 2 and not Path("x.jxg").exists()
    assert "does not decode to the images" in capfd.readouterr().err
    run_command("compress", "--out=x.jxg", "--no_verify", "--images", *pictures)
    assert f"5 images written to {Path.cwd()}/x.jxg, not verified" in capfd.readouterr().out


def test_a_density_that_leaves_nothing_to_tell_has_a_size(
    run_command, pictures, monkeypatch, capfd
):
    """NLLs that are zero in float32."""
    zeros = {"nll": np.zeros(5)}
    monkeypatch.setattr(compress.inference, "per_example", lambda *args: zeros)
    run_command("compress", "--out=x.jxg", "--images", *pictures)
    assert "NLL                     0 bytes" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["pixelvae", "vqvae"])
def test_a_decoder_that_sees_latents_is_refused(name, run_command, monkeypatch, capfd):
    """Given its latents alone it gives a probability to every sub-pixel: p(x) itself is a bound,
    of which no file can be made as it is."""
    saved = SavedRun(Run(name, MODELS[name].model, DataConfig(), TrainConfig()), None, 0, {})
    monkeypatch.setattr(command.Command, "_load", lambda self: saved)
    able = [n for n, preset in MODELS.items() if isinstance(preset.model, Autoregressive)]
    for argv in (("compress", "--out=x.jxg"), ("decompress", "--file=x.jxg")):
        with pytest.raises(SystemExit) as stopped:
            run_command(*argv)
        told = capfd.readouterr().err
        assert stopped.value.code == 2 and f"{name} cannot " in told
        assert f"use one of {', '.join(able)}" in told and name not in able
    assert not Path("x.jxg").exists()


def test_mistakes_are_told_and_nothing_is_overwritten(run_command, pictures, capfd):
    def refused(*argv):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_command(*argv)
        out, err = capfd.readouterr()
        assert (stopped.value.code, out) == (2, "")
        return err

    save_png("between.png", np.full((8, 8, 1), 100, np.uint8))
    between = refused("compress", "--out=x.jxg", "--images", pictures[0], "between.png")
    assert "between.png has values between the model's 17 levels" in between
    assert not Path("x.jxg").exists()
    run_command("compress", "--out=x.jxg", "--images", *pictures)
    old = Path("x.jxg").read_bytes()
    assert "/x.jxg exists" in refused("compress", "--out=x.jxg", "--images", pictures[0])
    assert Path("x.jxg").read_bytes() == old
    assert "/given exists" in refused("decompress", "--file=x.jxg", "--out=given")
    assert "ends in .png or .npz" in refused("decompress", "--file=x.jxg", "--out=x.gif")
    assert "--file=none cannot be read" in refused("decompress", "--file=none")
    Path("half.jxg").write_bytes(old[:100])
    assert "--file=half.jxg: it is cut short" in refused("decompress", "--file=half.jxg")
    assert not Path("images.npz").exists()
