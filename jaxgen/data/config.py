"""What the user says about the data: every field is a command line flag."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from jaxgen.errors import UserError

Fit = Literal["resize", "crop", "pad"]
Binarize = Literal["none", "static", "threshold", "dynamic"]

SOUNDS = "tones", "wav"
"""The data sets of sounds."""
OF_IMAGES = "fit", "grey", "levels", "binarize"
"""The fields that a sound has no use for."""


@dataclass(frozen=True)
class DataConfig:
    """The data set, and what is done to its images before a model sees them."""

    dataset: str = "digits"
    """digits, tones (synthesized sounds), folder (of images), wav (a folder of .wav files), or
    the name of a TFDS image data set: name or name:version."""
    data_dir: str | None = None
    """The TFDS directory (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets); with
    --dataset=folder or wav, the folder of images or sounds."""
    conditional: bool = False
    """Tell the model the labels."""
    size: int = 0
    """Make images size x size, or sounds size samples long; 0 keeps images as stored."""
    rate: int = 0
    """Resample sounds to this many samples a second; 0 keeps the rate as stored."""
    fit: Fit = "resize"
    """How --size is reached: resize scales the shorter side and crops the longer one to the
    centre, crop takes the centre, pad puts the image at the centre of zeros."""
    grey: bool = False
    """Turn colour images into grey ones."""
    levels: int = 0
    """Quantize to this many levels K, floor(x K / stored levels); 0 keeps them as stored."""
    binarize: Binarize = "none"
    """Make pixels 0 or 1: threshold at one half, or draw 1 with probability level/(levels-1),
    once for all (static) or anew in every epoch of training (dynamic)."""
    binarize_seed: int = 0
    """Seed of the static and dynamic draws."""
    cache_dir: str | None = None
    """Folder for decoded images (default: jaxgen in $XDG_CACHE_HOME, else in ~/.cache)."""

    def __post_init__(self) -> None:
        _one_of("--fit", self.fit, Fit)
        _one_of("--binarize", self.binarize, Binarize)
        if self.size < 0:
            raise UserError(f"--size must be 0 (as stored) or positive; got {self.size}")
        if self.rate < 0:
            raise UserError(f"--rate must be 0 (as stored) or positive; got {self.rate}")
        if self.size == 0 and self.fit != "resize":
            raise UserError(f"--fit={self.fit} needs a --size to fit the images to")
        if self.levels and not 2 <= self.levels <= 256:
            raise UserError(f"--levels must be 0 (as stored) or lie in 2..256; got {self.levels}")
        if not 0 <= self.binarize_seed < 2**31:
            raise UserError(f"--binarize_seed must lie in 0..2^31-1; got {self.binarize_seed}")
        if self.dataset == "folder" and not self.data_dir:
            raise UserError("--dataset=folder needs --data_dir=PATH, the folder of images")
        if self.dataset == "wav" and not (self.data_dir and self.size):
            raise UserError(
                "--dataset=wav needs --data_dir=PATH, the folder of .wav files, and --size=N, the "
                "samples of a clip"
            )
        self._check_sound()

    def _check_sound(self) -> None:
        """Images have no rate, and sounds none of what is done to images."""
        if self.dataset not in SOUNDS:
            if self.rate:
                raise UserError(
                    f"--rate={self.rate} is of sounds alone (--dataset={' or '.join(SOUNDS)})"
                )
            return
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in OF_IMAGES and value != field.default:
                raise UserError(
                    f"--{field.name}={value} is of images alone, and --dataset={self.dataset} "
                    "holds sounds of 256 mu-law levels; leave it out"
                )


def _one_of(flag: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise UserError(f"{flag} must be one of {', '.join(get_args(choices))}; got {value!r}")
