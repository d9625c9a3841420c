"""Looks at samples, and at what a model shows of itself."""

import re

import numpy as np

from jaxgen.abilities import Bounds, Generates
from jaxgen.evaluation.results import Results
from jaxgen.evaluation.subject import Subject
from jaxgen.media.kinds import ROOM, legend, picture, players
from jaxgen.media.pictures import heatmap, png_bytes
from jaxgen.report.blocks import Block, Clips, Figure, Look
from jaxgen.spec import DataSpec

STAGES = 6
"""Pictures of samples, from the first to the last, that show the training's progress."""
PLAYED = 10
"""Sounds that the page plays."""


def figure(x: np.ndarray, spec: DataSpec, caption: str, columns: int | None = None) -> Figure:
    """The picture of data [n h w c] or [rows cols h w c], levels or floats."""
    rows = len(x) if x.ndim == 5 else 1
    return Figure(png_bytes(picture(x, spec, columns)), f"{caption}{legend(spec, rows)}")


def samples(subject: Subject, results: Results) -> Look | None:
    """The first samples beside real data, none picked, and, where x is drawn around what a latent
    is decoded to, that without its noise."""
    if subject.samples is None:
        return None
    spec = subject.model.spec
    room = ROOM[spec.kind]
    drawn, real = subject.samples[:room], np.asarray(subject.data.x[:room])
    blocks: list[Block] = [
        figure(drawn, spec, f"The first {len(drawn)} samples, none picked", 10),
        *_decoded_draws(subject, room),
        figure(real, spec, f"Real: the {subject.split} split", 10),
    ]
    clips = (Clips(tuple(players(x[:PLAYED], spec))) for x in (drawn, real))
    return Look("Samples", (*blocks, *(c for c in clips if c.wavs)), "row")


def _decoded_draws(subject: Subject, num: int) -> list[Figure]:
    """The means of p(x | z) for draws of z from the prior: of many levels, samples of x have the
    grain of its noise, which these have not."""
    model, spec = subject.model, subject.model.spec
    if not (isinstance(model, Generates) and isinstance(model, Bounds)):
        return []
    label = np.arange(num, dtype=np.int32) % spec.num_classes if spec.num_classes else None
    z = subject.able("draw_latents", num, {"label": label})
    x = subject.able("decode", num, {"z": z, "label": label})
    return [figure(x, spec, f"{num} draws from the prior, decoded, without noise of their own", 10)]


def progress(subject: Subject, results: Results) -> Look | None:
    """Samples of the same noise at some of the validations, first and last included."""
    paths = sorted((subject.directory / "samples").glob("step_*.png"))
    made = [p for p in paths if re.fullmatch(r"step_[0-9]+\.png", p.name) and p.is_file()]
    if not made:
        return None
    some = sorted({round(i) for i in np.linspace(0, len(made) - 1, STAGES)})
    stages = (Figure(made[i].read_bytes(), f"step {int(made[i].stem[5:])}") for i in some)
    return Look("Samples during training", tuple(stages), "small")


def inside(subject: Subject, results: Results) -> Look | None:
    """The pictures and maps of `Model.inspect`."""
    shown, spec = subject.inspection, subject.model.spec
    blocks = [
        Figure(png_bytes(picture(np.asarray(x), spec)), name) for name, x in shown.grids.items()
    ]
    for name, maps in shown.heatmaps.items():
        finite = np.asarray(maps)[np.isfinite(maps)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        caption = f"{name}: {low:.3g} (dark) to {high:.3g} (light)"
        blocks.append(Figure(png_bytes(heatmap(np.asarray(maps))), caption))
    return Look("A look inside", tuple(blocks)) if blocks else None
