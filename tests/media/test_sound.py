"""Sounds: mu-law levels, .wav files, tones and folders as data, and what a run of them writes."""

import base64
import dataclasses
import io
import math
import re
import struct
import wave
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxgen.cli import complete, compress, main, train
from jaxgen.data.config import DataConfig
from jaxgen.data.loading import load
from jaxgen.data.sources.tones import PITCHES
from jaxgen.errors import UserError
from jaxgen.media import kinds
from jaxgen.media.kinds import load_images, picture
from jaxgen.media.sound import (
    in_turn,
    mu_law_decode,
    mu_law_encode,
    read_wav,
    resample,
    resampled_size,
    spectrograms,
    wav_bytes,
    wav_size,
)
from jaxgen.spec import DataSpec

TONES_FINGERPRINT = "c85c584a3c0f638c5fc6241dd3a96a282283958ccb6186cd38293e5773d5ad54"
PCM, FLOAT = 1, 3


def write_wav(path, data: bytes, bits: int, rate=8000, channels=1, kind=PCM):
    """A .wav file, byte by byte as the format says."""
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt
    body += b"data" + struct.pack("<I", len(data)) + data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def write_levels(path, levels, rate=8000):
    """A .wav file of float32 samples that have exactly these mu-law levels."""
    return write_wav(path, mu_law_decode(levels).astype("<f4").tobytes(), 32, rate, kind=FLOAT)


@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256])
def test_every_level_comes_back(levels):
    each = np.arange(levels)
    waves = mu_law_decode(each, levels)
    np.testing.assert_array_equal(mu_law_encode(waves, levels), each)
    np.testing.assert_array_equal(mu_law_encode(waves.astype(np.float32), levels), each)
    np.testing.assert_allclose(waves[[0, -1]], [-1, 1], rtol=1e-12)
    np.testing.assert_allclose(waves, -waves[::-1], rtol=1e-12)


def test_mu_law_is_its_formula():
    """G.711's f, x by x, and the nearest of 256 evenly spaced values."""
    grid = np.arange(256) * 2 / 255 - 1
    for x in np.random.default_rng(0).uniform(-1, 1, 300):
        f = math.copysign(math.log(1 + 255 * abs(x)) / math.log(256), x)
        assert mu_law_encode(x) == np.abs(grid - f).argmin()
    for level, f in enumerate(grid):
        inverse = math.copysign((256 ** abs(f) - 1) / 255, f)
        assert mu_law_decode(level) == pytest.approx(inverse, rel=1e-12)
    np.testing.assert_array_equal(mu_law_encode(np.array([-7.0, 7.0])), [0, 255])


def test_every_kind_of_wav_is_read_to_the_bit(tmp_path):
    parts = {
        8: (np.array([0, 1, 128, 255], "u1").tobytes(), [-1, -127 / 128, 0, 127 / 128]),
        16: (struct.pack("<4h", -(2**15), -1, 1, 2**15 - 1), None),
        24: (b"".join(v.to_bytes(3, "little", signed=True) for v in (-(2**23), -1, 1, 2**23 - 1)),
             None),
        32: (struct.pack("<4i", -(2**31), -1, 1, 2**31 - 1), None),
    }  # fmt: skip
    for bits, (data, expected) in parts.items():
        full = 2 ** (bits - 1)
        expected = expected or [-1, -1 / full, 1 / full, 1 - 1 / full]
        path = write_wav(tmp_path / f"{bits}.wav", data, bits)
        rate, found = read_wav(path)
        assert rate == 8000 and found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)
        assert wav_size(path) == (8000, 4)
    for code in "fd":
        data = struct.pack(f"<3{code}", -1.5, 0.25, 1.0)
        path = write_wav(tmp_path / f"{code}.wav", data, 8 * len(data) // 3, kind=FLOAT)
        np.testing.assert_array_equal(read_wav(path)[1], [-1.5, 0.25, 1.0])
    path = write_wav(
        tmp_path / "stereo.wav", struct.pack("<4h", 8192, -8192, 16384, 0), 16, 44100, 2
    )
    np.testing.assert_array_equal(read_wav(path)[1], [0, 0.25])
    assert wav_size(path) == (44100, 2)


def test_what_is_written_is_what_others_read():
    x = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    with wave.open(io.BytesIO(wav_bytes(x, 11025))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 11025)
        samples = np.frombuffer(file.readframes(9), "<i2")
    np.testing.assert_array_equal(samples, [-32767, -16384, 0, 16384, 32767])
    joined = in_turn(np.ones((3, 5)), 20)
    np.testing.assert_array_equal(joined, [1] * 5 + [0, 0] + [1] * 5 + [0, 0] + [1] * 5)


@pytest.mark.parametrize(("old", "new"), [(8000, 4000), (4000, 8000), (44100, 16000), (5, 5)])
def test_resampling_keeps_a_sine_at_its_pitch(old, new):
    samples = 997
    sine = lambda rate, n: np.sin(2 * np.pi * 0.11 * min(old, new) / rate * np.arange(n))  # noqa: E731
    found = resample(sine(old, samples), old, new)
    assert len(found) == resampled_size(samples, old, new) == math.ceil(samples * new / old)
    middle = slice(len(found) // 4, -len(found) // 4)  # the ends feel what is beyond them
    np.testing.assert_allclose(found[middle], sine(new, len(found))[middle], atol=5e-3)


def test_a_spectrogram_shows_a_sine_at_its_frequency_and_loudness():
    spec = DataSpec(1, 2048, 1, 256, rate=4000)
    size, bin_hz = 128, 4000 / 128
    for k, amplitude in [(8, 1.0), (20, 0.1), (50, 0.01)]:
        x = amplitude * np.sin(2 * np.pi * k * bin_hz * np.arange(2048) / 4000)
        shown = spectrograms(mu_law_encode(x)[None, None, :, None], spec)
        assert shown.shape == (1, size // 2 + 1, (2048 - size) // 32 + 1, 1)
        column = shown[0, ::-1, :, 0]  # from 0 Hz up
        assert (column.argmax(0) == k).all()
        decibels = 80 * (column[k] / 255.0 - 1)
        np.testing.assert_allclose(decibels, 20 * math.log10(amplitude), atol=0.5)
    silence = spectrograms(np.full((1, 1, 2048, 1), 128, np.uint8), spec)
    assert silence[0, :-2].max() == 0


def test_tones_are_what_the_protocol_says():
    data = load(DataConfig(dataset="tones", conditional=True))
    assert data.spec == DataSpec(1, 1024, 1, 256, 8, 4000)
    assert data.fingerprint == TONES_FINGERPRINT
    assert "1024 samples at 4000 Hz (0.256 s)" in data.protocol
    assert "synthesized: one of 8 pitches, C4 to C5" in data.protocol
    hertz = [261.63, 293.66, 329.63, 349.23, 392.00, 440.00, 493.88, 523.25]
    for split in data.splits.values():
        assert np.bincount(split.label).tolist() == [len(split.label) // 8] * 8
        x = mu_law_decode(split.x[:160, 0, :, 0])
        power = np.abs(np.fft.rfft(x * np.hanning(1024), 2**15)) ** 2
        low = power[:, : int(600 / 4000 * 2**15)]  # the fundamental, of its overtones
        found = low.argmax(1) * 4000 / 2**15
        nearest = np.abs(found[:, None] - hertz).argmin(1)
        np.testing.assert_array_equal(nearest, split.label[:160])
    every = np.concatenate([split.x for split in data.splits.values()])
    assert len(np.unique(every.reshape(len(every), -1), axis=0)) == len(every)
    assert data.class_names == tuple(PITCHES)


def test_tones_of_another_length_and_rate():
    data = load(DataConfig(dataset="tones", size=300, rate=8000))
    assert data.spec == DataSpec(1, 300, 1, 256, 0, 8000)
    with pytest.raises(UserError, match="--rate of at least 2000; got 1000"):
        load(DataConfig(dataset="tones", rate=1000))


@pytest.fixture
def recordings(tmp_path):
    """Twelve files of two labels: file f is at level 10 f + its clip, each of 32 samples, and
    ends in a piece of a clip."""
    for f in range(12):
        clips = 2 + f % 3
        levels = np.append(np.repeat(10 * f + np.arange(clips), 32), np.zeros(7))
        write_levels(tmp_path / "set" / "ab"[f % 2] / f"{f:02}.wav", levels.astype(np.uint8))
    return tmp_path / "set"


def config(root, **kw):
    return DataConfig(**{"dataset": "wav", "data_dir": str(root), "size": 32, **kw})


def test_files_are_cut_and_none_is_in_two_splits(recordings, tmp_path):
    data = load(config(recordings, cache_dir=str(tmp_path / "cache"), conditional=True))
    assert data.spec == DataSpec(1, 32, 1, 256, 2, 8000) and data.class_names == ("a", "b")
    assert "32 samples at 8000 Hz (0.004 s)" in data.protocol
    assert "12 files (train 8, validation 2, test 2, divided by seed 0)" in data.protocol
    files = {}
    for name, split in data.splits.items():
        assert (split.x == split.x[:, :, :1]).all()
        level = split.x[:, 0, 0, 0].astype(int)
        files[name] = set(level // 10)
        np.testing.assert_array_equal(split.label, level // 10 % 2)
    clips = np.concatenate([s.x[:, 0, 0, 0] for s in data.splits.values()])
    assert sorted(clips) == [10 * f + c for f in range(12) for c in range(2 + f % 3)]
    assert [len(files[name]) for name in ("train", "validation", "test")] == [8, 2, 2]
    assert len(set.union(*files.values())) == 12


def test_short_files_are_left_out_and_said(recordings, tmp_path, capsys):
    """Files of 71, 103 and 135 samples, four of each."""
    data = load(config(recordings, cache_dir=str(tmp_path / "cache"), size=72, conditional=True))
    told = "set: 4 of 12 files have fewer than --size=72 samples at 8000 Hz, and are left out (a/00"
    assert told in capsys.readouterr().err
    assert "clips of 8 files" in data.protocol
    clips = np.concatenate([s.x[:, 0, 0, 0] for s in data.splits.values()])
    assert sorted(clips) == [10 * f for f in range(12) if f % 3]


def test_what_is_beyond_full_scale_is_clipped_and_said(tmp_path):
    for f in range(4):
        wave = np.full(96, 0.5)
        wave[40] = 1.5 if f == 2 else 1.0
        write_wav(tmp_path / "s" / f"{f}.wav", wave.astype("<f4").tobytes(), 32, kind=FLOAT)
    for _ in range(2):  # also from the cache
        data = load(config(tmp_path / "s", cache_dir=str(tmp_path / "cache")))
        told = "clips of 4 files (train 2, validation 1, test 1, divided by seed 0); clips with "
        assert f"{told}samples beyond full scale, which are clipped: 1" in data.protocol
    assert np.concatenate([s.x for s in data.splits.values()]).max(axis=(1, 2, 3)).tolist() == (
        [mu_law_encode(0.5), 255, mu_law_encode(0.5)] * 4
    )


def test_sub_folders_may_be_splits(tmp_path):
    for f, split in enumerate(["train", "train", "validation", "test"]):
        write_levels(tmp_path / "s" / split / f"{f}.wav", np.full(64, f, np.uint8))
    data = load(config(tmp_path / "s", cache_dir=str(tmp_path / "cache")))
    found = {name: s.x[:, 0, 0, 0].tolist() for name, s in data.splits.items()}
    assert found == {"train": [0, 0, 1, 1], "validation": [2, 2], "test": [3, 3]}
    assert "divided" not in data.protocol and data.class_names == ()


def test_rates_are_resampled_only_when_asked(recordings, tmp_path):
    path = recordings / "a" / "00.wav"
    tone = np.sin(2 * np.pi * 500 / 16000 * np.arange(640))
    write_wav(path, tone.astype("<f4").tobytes(), 32, 16000, kind=FLOAT)
    with pytest.raises(UserError, match="differ in their rate.*--rate=N"):
        load(config(recordings, cache_dir=str(tmp_path / "cache")))
    data = load(config(recordings, cache_dir=str(tmp_path / "cache"), rate=16000))
    levels = np.concatenate([s.x for s in data.splits.values()]).reshape(-1, 32)
    expected = mu_law_encode(tone.astype(np.float32)).reshape(-1, 32)
    assert data.spec.rate == 16000
    assert all((levels == clip).all(1).any() for clip in expected)
    # The others have become twice as long: 32 * clips + 7 samples are 2 clips + 14 now.
    assert len(levels) == 20 + sum(2 * (2 + f % 3) for f in range(1, 12))


def test_mistakes_with_sounds_are_told(recordings, tmp_path):
    def message(root=recordings, **kw):
        with pytest.raises(UserError) as error:
            load(config(root, cache_dir=str(tmp_path / "cache"), **kw))
        return str(error.value)

    (tmp_path / "empty").mkdir()
    assert "holds no sounds (sounds end in .wav)" in message(tmp_path / "empty")
    assert "is not a directory" in message(tmp_path / "nowhere")
    shortest = recordings / "a" / "00.wav"
    assert "12 of 12 files have fewer than --size=999 samples at 8000 Hz" in message(size=999)
    assert "a/00.wav, a/02.wav, a/04.wav, a/06.wav, a/08.wav, …): give a smal" in message(size=999)
    assert "--data_dir=PATH" in message(size=0) and "--size=N" in message(size=0)
    for flags in ({"levels": 16}, {"grey": True}, {"binarize": "static"}, {"fit": "crop"}):
        assert f"--{next(iter(flags))}=" in message(**flags)
    assert "--rate must be 0" in message(rate=-1)
    assert "lie in 1..1000000; got 4294967296" in message(rate=2**32)
    write_levels(recordings / "b" / "01.wav", np.zeros(64, np.uint8), rate=0)
    write_levels(recordings / "b" / "03.wav", np.zeros(64, np.uint8), rate=2**30 - 1)
    told = message(rate=8000)
    assert "b/01.wav is not a readable .wav file (it says that it has 0 samples a second)" in told
    assert "b/03.wav is not a readable .wav file (it says that it has 1073741823 samp" in told
    for f in (1, 3):
        write_levels(recordings / "b" / f"0{f}.wav", np.zeros(64, np.uint8))
    whole = shortest.read_bytes()
    for damage in (b"", b"RIFF", b"nonsense" * 20, whole[:30], whole[:-20]):
        shortest.write_bytes(damage)
        assert f"{shortest} is not a readable .wav file" in message(), damage
    data = np.array([0.0] * 40 + [np.nan], "<f4").tobytes()
    write_wav(shortest, data, 32, kind=FLOAT)
    assert f"{shortest} holds samples that are not finite" in message()
    write_wav(shortest, np.full(64, -20000, "<f4").tobytes(), 32, kind=FLOAT)
    told = f"{shortest} holds float samples up to 20000, and full scale is 1: divide those of all"
    assert told in message()
    few = tmp_path / "few"
    for f in range(2):
        write_levels(few / f"{f}.wav", np.zeros(64, np.uint8))
    assert "has too few files" in message(few)
    with pytest.raises(
        UserError, match="--rate=8000 means nothing to --dataset=digits.*tones or wav"
    ):
        load(DataConfig(rate=8000))
    with pytest.raises(UserError, match="height of 1"):
        DataSpec(2, 8, rate=8000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a model of images on sounds, without its report, and its command."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for f in range(12):
        levels = rng.integers(100, 156, 64 * 8).astype(np.uint8)
        write_levels(folder / "wavs" / f"{f:02}.wav", levels)
    command = [
        *("train", "--model=vae", "--dataset=wav", f"--data_dir={folder / 'wavs'}", "--size=64"),
        *(f"--cache_dir={folder / 'cache'}", f"--run={folder / 'run'}", "--steps=2"),
        *("--eval_every=2", "--batch_size=8", "--samples=12", "--vae.hidden", "8"),
        *("--vae.latents=2", "--draws=2", "--vae.likelihood=logistic", "--devices=1"),
    ]
    with jax.debug_key_reuse(False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "finish_seeds", lambda *args: None)
        main.main(command)
    return folder / "run", command


def sounds(file) -> np.ndarray:
    with wave.open(file) as opened:
        assert opened.getframerate() == 8000 and opened.getsampwidth() == 2
        return np.frombuffer(opened.readframes(opened.getnframes()), "<i2")


@pytest.mark.slow
def test_a_run_leaves_sounds_and_spectrograms(trained):
    spec, (run, command) = DataSpec(1, 64, rate=8000), trained
    with jax.debug_key_reuse(False):
        main.main(command)
    for name in ("step_0000002", "final"):
        played = sounds(str(run / "samples" / f"{name}.wav"))
        assert len(played) == 100 * (64 + 800) - 800
        clips = np.pad(played, (0, 800)).reshape(100, -1)[:, :64]
        images = mu_law_encode(clips / 32767)[:, None, :, None]
        shown = np.asarray(Image.open(run / "samples" / f"{name}.png"))
        np.testing.assert_array_equal(shown, picture(images, spec, columns=10))
    page = (run / "report.html").read_text()
    found = re.findall(r'<audio controls src="data:audio/wav;base64,([^"]+)">', page)
    players = [sounds(io.BytesIO(base64.b64decode(data))) for data in found]
    assert len(players) == 20
    np.testing.assert_array_equal(np.stack(players[:10]), clips[:10])
    assert "spectrograms of 0.008 s, 0 (below) to 4000 Hz" in page
    assert "spectrograms of wav:wavs" in page  # what the scores were computed on


def test_samples_are_written_as_asked(trained, tmp_path, capsys):
    def sample(out):
        with jax.debug_key_reuse(False):
            main.main(["sample", f"--run={trained[0]}", "--num=3", f"--out={tmp_path / out}"])

    for out in ("x.npz", "x.wav", "x.png", "folder"):
        sample(out)
    with np.load(tmp_path / "x.npz") as file:
        images = file["x"]
    expected = np.round(mu_law_decode(images[:, 0, :, 0]) * 32767)
    files = sorted((tmp_path / "folder").iterdir())
    assert [path.name for path in files] == ["000000.wav", "000001.wav", "000002.wav"]
    np.testing.assert_array_equal([sounds(str(path)) for path in files], expected)
    np.testing.assert_array_equal(sounds(str(tmp_path / "x.wav"))[864 : 864 + 64], expected[1])
    with pytest.raises(SystemExit):
        sample("x.flac")
    assert ".png, .wav or .npz" in capsys.readouterr().err


def test_a_sound_is_loaded_as_the_data_has_it(tmp_path, capsys):
    spec = DataSpec(1, 32, rate=8000)
    levels = np.random.default_rng(0).integers(0, 256, 40).astype(np.uint8)
    path = write_levels(tmp_path / "x.wav", levels)
    np.testing.assert_array_equal(load_images([path], spec)[0, 0, :, 0], levels[:32])
    write_wav(tmp_path / "loud.wav", np.full(32, 1.5, "<f4").tobytes(), 32, kind=FLOAT)
    assert (load_images([tmp_path / "loud.wav"], spec) == 255).all()
    assert "loud.wav has samples beyond [-1, 1], which are clipped" in capsys.readouterr().err
    for other in (dataclasses.replace(spec, rate=4000), dataclasses.replace(spec, width=41)):
        with pytest.raises(UserError, match="x.wav has 40 samples at 8000 Hz"):
            load_images([path], other)


def test_masks_are_pictures_and_sounds_are_not_compressed_exactly(tmp_path):
    saved = SimpleNamespace(model=SimpleNamespace(spec=DataSpec(1, 4, rate=8000)))
    Image.fromarray(np.array([[0, 255, 255, 0]], np.uint8)).save(tmp_path / "mask.png")
    found = complete._known(str(tmp_path / "mask.png"), saved)
    np.testing.assert_array_equal(found[0, :, 0], [True, False, False, True])
    with pytest.raises(UserError, match="more than mu-law levels"):
        compress.Compress(run="", images=("x.wav",))._given(saved)


def test_scores_look_at_spectrograms(monkeypatch):
    spec = DataSpec(1, 256, rate=4000)
    clips = np.random.default_rng(0).integers(0, 256, (5, 1, 256, 1)).astype(np.uint8)
    monkeypatch.setattr(kinds, "CHUNK", 2)
    np.testing.assert_array_equal(kinds.scored(clips, spec), spectrograms(clips, spec))
    images = dataclasses.replace(spec, rate=0)
    assert kinds.scored(clips, images) is clips
