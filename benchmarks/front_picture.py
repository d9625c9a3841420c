"""README's picture: samples of the three families beside real digits.

    python benchmarks/front_picture.py [--runs runs/digits] [--seed 0]

The runs are those of `python benchmarks/digits.py`; one that is not there is trained by
`python train.py --model=MODEL --seed=SEED` (about a minute each). Nothing is picked: the first
images of the test split, and the samples of one key from each run's best checkpoint.
"""

import argparse
from pathlib import Path
from typing import Any

import common
import digits
import jax
import numpy as np
from common import RESULTS, ROOT

import jaxgen

ROWS, COLUMNS = 6, 8
NUM = ROWS * COLUMNS
SCALE, GAP, HEAD, DPI = 4, 20, 70, 90
"""Pixels for one of an image, between sheets and of a title; the dots per inch of `common.plot`."""
TITLES = {
    "pixelcnn": "PixelCNN\npixel by pixel, exact density",
    "vae": "VAE\nlatent variables, a lower bound",
    "gan": "GAN\ntwo players, no density",
}


def samples(name: str, seed: int, runs: Path) -> np.ndarray:
    """Levels [NUM 8 8 1] of the run, which is trained where it is not there."""
    directory = runs / f"{name}-{seed}"
    if not (directory / "results.json").exists():
        digits.train(name, seed, directory)
    run = jaxgen.load_run(directory)
    draw = jax.jit(run.model.sample, static_argnums=2)
    return np.asarray(draw(jax.random.key(0), run.state, NUM))


def sheet(images: np.ndarray) -> np.ndarray:
    """Images [n h w 1] as one picture [H W], with a margin of one empty pixel around each."""
    cells = np.pad(images[..., 0], [(0, 0), (1, 1), (1, 1)])
    _, high, wide = cells.shape
    cells = cells.reshape(ROWS, COLUMNS, high, wide).swapaxes(1, 2)
    return cells.reshape(ROWS * high, COLUMNS * wide)


def picture(columns: dict[str, np.ndarray], levels: int) -> bytes:
    """The PNG of the sheets side by side, each under its title."""
    sheets = {title: sheet(images) for title, images in columns.items()}
    high, wide = (SCALE * n for n in next(iter(sheets.values())).shape)
    whole_wide, whole_high = len(sheets) * (wide + GAP) + GAP, high + GAP + HEAD

    def draw(figure: Any) -> None:
        # Axes of whole multiples of the images' pixels: nothing is interpolated, which is sharp
        # and makes a small file.
        figure.set_layout_engine("none")
        figure.set_size_inches(whole_wide / DPI, whole_high / DPI)
        for i, (title, shown) in enumerate(sheets.items()):
            left = GAP + i * (wide + GAP)
            box = left / whole_wide, GAP / whole_high, wide / whole_wide, high / whole_high
            axis = figure.add_axes(box)
            axis.imshow(shown, cmap="gray_r", vmin=0, vmax=levels - 1, interpolation="nearest")
            axis.set_axis_off()
            middle = (left + wide / 2) / whole_wide
            head, _, below = title.partition("\n")
            for text, above, size, weight in ((head, 34, 19, "bold"), (below, 10, 13, "normal")):
                y = (GAP + high + above) / whole_high
                figure.text(middle, y, text, size=size, weight=weight, ha="center")

    return common.plot(draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=common.a_path, default=ROOT / "runs" / "digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=common.a_path, default=RESULTS / "samples.png")
    asked = parser.parse_args()
    data = jaxgen.load(jaxgen.DataConfig(dataset="digits"))
    columns = {"Real digits\nof the test split": np.asarray(data.splits["test"].x[:NUM])}
    for name, title in TITLES.items():
        columns[title] = samples(name, asked.seed, asked.runs)
    asked.out.write_bytes(picture(columns, data.spec.levels))
    print(f"written to {asked.out}")


if __name__ == "__main__":
    main()
