"""The synthesized sounds: notes of eight pitches, which need no download."""

from collections.abc import Iterable

import numpy as np

from jaxgen.data.config import DataConfig
from jaxgen.data.sources.base import Example, Source
from jaxgen.data.splits import SPLITS
from jaxgen.errors import UserError
from jaxgen.media.sound import mu_law_encode

PITCHES = {"C4": 60, "D4": 62, "E4": 64, "F4": 65, "G4": 67, "A4": 69, "B4": 71, "C5": 72}
"""The classes, with their MIDI numbers: 69 is 440 Hz, and 12 make an octave."""
SIZES = {"train": 1200, "validation": 200, "test": 200}
SAMPLES, RATE = 1024, 4000
LEAST_RATE = 2000
"""Here C5 keeps one harmonic below half the rate."""
HARMONICS = 6
NOISE = 0.003
"""Standard deviation of the white noise, full scale being 1."""


def tones(config: DataConfig) -> Source:
    """Returns 1,600 clips of --size samples at --rate, an eighth of each pitch in every split.

    Clip i of a split is a function of (split, i) alone.
    """
    samples, rate = config.size or SAMPLES, config.rate or RATE
    if rate < LEAST_RATE:
        raise UserError(f"--dataset=tones needs a --rate of at least {LEAST_RATE}; got {rate}")
    pitches = list(PITCHES.values())

    def read(split: str, ids: np.ndarray) -> Iterable[Example]:
        for i in ids:
            label = int(i) % len(pitches)
            frequency = 440 * 2 ** ((pitches[label] - 69) / 12)
            rng = np.random.default_rng((SPLITS.index(split), int(i)))
            wave = _notes(rng, frequency, samples, rate)
            image = mu_law_encode(wave)[None, :, None]
            yield Example(f"tones {split} clip {i}", image, label)

    return Source(
        name="tones",
        stamp="tones",
        sizes=SIZES,
        class_names=tuple(PITCHES),
        levels=256,
        read=read,
        rate=rate,
        note=f"synthesized: one of {len(PITCHES)} pitches, {min(PITCHES, key=PITCHES.__getitem__)} "
        f"to {max(PITCHES, key=PITCHES.__getitem__)}, struck twice, up to {HARMONICS} decaying "
        f"harmonics, white noise of {NOISE}",
    )


def _notes(rng: np.random.Generator, frequency: float, samples: int, rate: int) -> np.ndarray:
    """Two notes of one pitch and their noise, float64 [samples] in [-1, 1].

    Strength, brightness, phases and the moments of the strokes are drawn; the length of a clip
    stretches the moments, not the notes.
    """
    seconds = np.arange(samples) / rate
    harmonics = np.arange(1, HARMONICS + 1)
    harmonics = harmonics[harmonics * frequency < rate / 2]
    wave = rng.normal(0, NOISE, samples)
    strokes = np.array([rng.uniform(0, 0.25), rng.uniform(0.4, 0.7)]) * samples / rate
    for stroke in strokes:
        strength, brightness = rng.uniform(0.2, 0.45), rng.uniform(0.3, 0.7)
        fade = rng.uniform(0.05, 0.15)
        since = np.maximum(seconds - stroke, 0)
        # 4 ms to rise; higher harmonics fade sooner, as on a string.
        envelope = (1 - np.exp(-since / 0.004)) * np.exp(-since[None] * harmonics[:, None] / fade)
        angle = 2 * np.pi * frequency * harmonics[:, None] * since + rng.uniform(
            0, 2 * np.pi, (len(harmonics), 1)
        )
        weights = brightness ** (harmonics - 1.0)
        wave += strength * (weights / weights.sum()) @ (envelope * np.sin(angle))
    return np.clip(wave, -1, 1)
