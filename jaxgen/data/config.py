"""What the user says about the data: every field is a command line flag."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.media.decode import check_colour
from jaxgen.media.sound import RATES

Fit = Literal["resize", "crop", "pad"]
Binarize = Literal["none", "static", "threshold", "dynamic"]
PairingName = Literal[
    "none", "colorize", "super2", "super4", "inpaint", "invert", "edges", "rotate", "tint"
]
"""No pairing, or one of `jaxgen.data.pairing.PAIRINGS`."""

MAX_SIZE = 2**24
"""The most samples of a sound; a picture has less a side, see `sources.images`."""


@dataclass(frozen=True)
class DataConfig:
    """The data set, and what is done to its images before a model sees them."""

    dataset: str = "digits"
    """digits; tinted_digits (each class in a colour); stacked_digits (three in the channels of an
    image); gaussians1d, ring, grid, moons, spirals or checkerboard (points of known density); tones
    (synthesized sounds); folder (of images); folders (two: images of the second are to be made from
    those of the first); wav (a folder of .wav files); points (a file of them); arrays (a file of
    them); or the name of a TFDS image data set: name or name:version."""
    data_dir: str | None = None
    """The TFDS directory (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets); with
    --dataset=folder or wav, the folder of images or sounds; with folders, the two, as A,B; with
    points, a .csv, .npy or .npz file of [n d]; with arrays, an .npz file of x [n h w c], label
    [n] and source, alone or as train_x, train_label, validation_x, ... ."""
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
    background: str = "white"
    """What lies below the transparent pixels of images in folders: the name of a colour, or
    #rrggbb."""
    levels: int = 0
    """Quantize to this many levels K, floor(x K / stored levels), or each coordinate of points to
    K bins of one width; 0 keeps them as stored."""
    binarize: Binarize = "none"
    """Make pixels 0 or 1: threshold at one half, or draw 1 with probability level/(levels-1),
    once for all (static) or anew in every epoch of training (dynamic)."""
    binarize_seed: int = 0
    """Seed of the static and dynamic draws."""
    pairing: PairingName = "none"
    """Make each image's source from it, for models that turn a source into an image: its grey
    (colorize), a small copy (super2, super4), one with a hole in the middle (inpaint), its
    negative (invert), its edges, a copy turned by 90 degrees (rotate), or, of a grey image, one
    in two colours (tint)."""
    unpaired: bool = False
    """Take train images and their sources from different halves of the train split, so that no
    image is seen with its source; validation and test keep their pairs, to measure by."""
    cache_dir: str | None = None
    """Folder for decoded images (default: jaxgen in $XDG_CACHE_HOME, else in ~/.cache)."""

    def __post_init__(self) -> None:
        _one_of("--fit", self.fit, Fit)
        _one_of("--binarize", self.binarize, Binarize)
        _one_of("--pairing", self.pairing, PairingName)
        for name, most in (("size", MAX_SIZE), ("rate", RATES[-1])):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(
                    f"--{name} must be 0 (as stored) or lie in 1..{most}; got {getattr(self, name)}"
                )
        if self.size == 0 and self.fit != "resize":
            raise UserError(f"--fit={self.fit} needs a --size to fit the images to")
        if self.background != "white":  # whose check is slow to load
            check_colour("--background", self.background)
        if self.levels and not 2 <= self.levels <= 256:
            raise UserError(f"--levels must be 0 (as stored) or lie in 2..256; got {self.levels}")
        if not 0 <= self.binarize_seed < 2**31:
            raise UserError(f"--binarize_seed must lie in 0..2^31-1; got {self.binarize_seed}")
        if self.binarize_seed and self.binarize not in ("static", "dynamic"):
            raise UserError(
                f"--binarize_seed={self.binarize_seed} seeds draws, and --binarize={self.binarize} "
                "makes none; give --binarize=static or dynamic, or leave it out"
            )
        # What a run records is found from anywhere.
        for name, several in (("data_dir", self.dataset == "folders"), ("cache_dir", False)):
            if (text := getattr(self, name)) is not None:
                object.__setattr__(self, name, _absolute(f"--{name}", text, several))


def _one_of(flag: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise UserError(f"{flag} must be one of {', '.join(get_args(choices))}; got {value!r}")


def _absolute(flag: str, text: str, several: bool) -> str:
    """The path, or with `several` each of those between commas, as `user_path` has it."""
    parts = [part.strip() for part in text.split(",")] if several else [text]
    return ",".join(str(user_path(part, flag)) if part or not several else "" for part in parts)
