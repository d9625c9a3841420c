"""Sounds: mu-law levels, .wav files in and out, and spectrograms. Arrays in, arrays out.

A sound is an image of height 1 with one channel: its width is the time.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np

from jaxgen.errors import UserError, warn
from jaxgen.files import write_atomic
from jaxgen.spec import DataSpec

RANGE_DB = 80.0
"""A spectrogram shows this many decibels below a full-scale sine."""
WINDOW_SECONDS = 1 / 32
"""The least length of a spectrogram's window."""
PAUSE_SECONDS = 0.1
"""The silence between the clips of one file."""
RATES = range(1, 10**6 + 1)
"""The samples a second that a file may have; 768,000 are the most in use."""
LOUDEST = 10.0
"""Floats up to this, 20 decibels above full scale, are loud; beyond, they are in other units."""


def mu_law_encode(wave: np.ndarray, levels: int = 256) -> np.ndarray:
    """Waves in [-1, 1], clipped to it, as levels 0..levels-1, uint8 of the same shape.

    f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu) with mu = levels - 1 (ITU-T G.711; van den Oord et
    al. 2016, arXiv:1609.03499, section 2.2), and of levels evenly spaced in -1..1 the nearest.
    """
    mu = levels - 1
    x = np.clip(np.asarray(wave, np.float64), -1, 1)
    companded = np.copysign(np.log1p(mu * np.abs(x)) / np.log1p(mu), x)
    return np.round((companded + 1) * (mu / 2)).astype(np.uint8)


def mu_law_decode(level: np.ndarray, levels: int = 256) -> np.ndarray:
    """The waves in [-1, 1], float64, that integer levels stand for: the inverse of f at them."""
    mu = levels - 1
    companded = np.asarray(level, np.float64) * (2 / mu) - 1
    return np.copysign(np.expm1(np.abs(companded) * np.log1p(mu)) / mu, companded)


def waves(images: np.ndarray, levels: int = 256) -> np.ndarray:
    """Clips [... 1 t 1] as waves, float64 [... t] in [-1, 1]: of levels, of floats in [-1, 1]
    between them, or, where there are no levels, of floats that are the wave itself."""
    x = np.asarray(images)[..., 0, :, 0]
    if not np.issubdtype(x.dtype, np.floating):
        return mu_law_decode(x, levels)
    x = np.clip(np.asarray(x, np.float64), -1, 1)
    return mu_law_decode((x + 1) * ((levels - 1) / 2), levels) if levels else x


def read_wav(path: Path) -> tuple[int, np.ndarray]:
    """The samples a second of a .wav file, and its wave, float64 [t]: PCM in [-1, 1), floats as
    they stand, full scale being 1; channels are averaged. Raises UserError naming a file that
    cannot be read, or whose floats are in other units."""
    rate, samples = _read(path, mmap=False)
    if samples.dtype == np.uint8:
        wave = (samples.astype(np.float64) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        wave = samples / -float(np.iinfo(samples.dtype).min)
    else:
        wave = samples.astype(np.float64)
    if not np.isfinite(wave).all():
        raise UserError(f"{path} holds samples that are not finite; mend or remove it")
    if (loudest := np.abs(wave).max(initial=0)) > LOUDEST:
        raise UserError(
            f"{path} holds float samples up to {loudest:.6g}, and full scale is 1: divide those of "
            "all files by one number (16-bit integers that were stored as floats: by 32768)"
        )
    return rate, wave if wave.ndim == 1 else wave.mean(1)


def wav_size(path: Path) -> tuple[int, int]:
    """The samples a second and the number of samples of a .wav file, mostly from its header."""
    try:
        rate, samples = _read(path, mmap=True)
    except UserError:  # 24 bits cannot be mapped; what is damaged is told by this
        rate, samples = _read(path, mmap=False)
    return rate, len(samples)


def _read(path: Path, mmap: bool) -> tuple[int, np.ndarray]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=wavfile.WavFileWarning)
            warnings.filterwarnings("error", "Reached EOF", category=wavfile.WavFileWarning)
            rate, samples = wavfile.read(path, mmap=mmap)
        if rate not in RATES:
            raise ValueError(f"it says that it has {rate} samples a second")
        return rate, samples
    except Exception as error:  # ValueError, struct.error, OSError, EOFError, its own warning
        raise UserError(
            f"{path} is not a readable .wav file ({error}); mend or remove it"
        ) from error


def resample(wave: np.ndarray, old: int, new: int) -> np.ndarray:
    """The wave [t] at `new` samples a second in place of `old`: [resampled_size(t, old, new)]."""
    if old == new:
        return wave
    from scipy.signal import resample_poly

    return resample_poly(wave, new, old)


def resampled_size(samples: int, old: int, new: int) -> int:
    """The number of samples that `resample` makes of so many."""
    return -(-samples * new // old)


def wav_bytes(wave: np.ndarray, rate: int) -> bytes:
    """A wave [t] in [-1, 1] as a .wav file's bytes: 16-bit PCM, one channel."""
    from scipy.io import wavfile

    file = io.BytesIO()
    wavfile.write(file, rate, np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16))
    return file.getvalue()


def in_turn(clips: np.ndarray, rate: int) -> np.ndarray:
    """Waves [n t] one after another, with a pause between: [n * (t + pause) - pause]."""
    pause = round(rate * PAUSE_SECONDS)
    joined = np.pad(clips, ((0, 0), (0, pause))).reshape(-1)
    return joined[: len(joined) - pause]


def spectrograms(images: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Clips [... 1 t 1] (see `waves`) as pictures, uint8 [... frequencies times 1]: 255 is the
    amplitude of a full-scale sine and 0 is `RANGE_DB` below, linear in decibels.

    Rows go down from half the rate to 0 Hz; Hann windows overlap by three quarters.
    """
    from scipy.signal import stft

    x = waves(images, spec.levels)
    size = 2 ** int(np.ceil(np.log2(spec.rate * WINDOW_SECONDS)))
    size = min(max(size, 8), x.shape[-1])
    _, _, z = stft(
        x, nperseg=size, noverlap=size - max(1, size // 4), boundary=None, padded=False
    )  # fmt: skip
    # A sine of amplitude 1 has |z| = 1/2 at its frequency.
    decibels = 20 * np.log10(np.maximum(2 * np.abs(z), 1e-12))
    shown = np.clip(1 + decibels / RANGE_DB, 0, 1) * 255
    return np.round(shown).astype(np.uint8)[..., ::-1, :, None]


def save_wav(path: str | os.PathLike, images: np.ndarray, spec: DataSpec) -> None:
    """Writes sounds [n 1 t 1] one after another as a .wav file, atomically."""
    write_atomic(path, wav_bytes(in_turn(waves(images, spec.levels), spec.rate), spec.rate))


def load_sound(path: Path, spec: DataSpec) -> np.ndarray:
    """The beginning of a .wav file as levels, uint8, or as floats where the spec has no levels:
    [1 t 1]. Raises UserError naming a file that cannot be used."""
    rate, wave = read_wav(path)
    if rate != spec.rate or len(wave) < spec.width:
        raise UserError(
            f"{path} has {len(wave)} samples at {rate} Hz, and the model's sounds have "
            f"{spec.width} at {spec.rate} Hz; resample it, or give a longer one"
        )
    wave = wave[: spec.width]
    if np.abs(wave).max() > 1:
        warn(f"{path} has samples beyond [-1, 1], which are clipped")
    if not spec.levels:
        return np.clip(wave, -1, 1).astype(np.float32).reshape(spec.shape)
    return mu_law_encode(wave, spec.levels).reshape(spec.shape)
