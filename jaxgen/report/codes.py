"""The codes of data beside the prior that they are to be distributed as."""

import numpy as np

from jaxgen.abilities import Generates
from jaxgen.evaluation.results import Results
from jaxgen.evaluation.subject import Subject
from jaxgen.report import charts
from jaxgen.report.abilities import busiest
from jaxgen.report.blocks import Block, Chart, Look

DIMS = 40
"""Latents whose mean and deviation are shown."""
POINTS = 300
"""Codes, and draws of the prior, that are plotted."""


def against_prior(subject: Subject, results: Results) -> Look | None:
    """The mean and the deviation of each latent over the codes of data, and two latents of each
    example beside draws of the prior."""
    model, codes = subject.model, subject.codes
    if codes is None or not isinstance(model, Generates) or len(codes) < 2:
        return None
    codes = np.asarray(codes, np.float64)
    if not np.isfinite(codes).all():
        return None
    order = busiest(subject)
    first = order[:DIMS]
    shown = codes[:, first]
    title = "Mean and standard deviation of each latent over the codes; the prior has 0 and 1"
    spread = charts.spreads([str(n) for n in first], shown.mean(0), shown.std(0), title)
    blocks: list[Block] = [Chart(spread, title)]
    if codes.shape[1] > 1:
        two = order[:2]
        title = f"Latents {two[0]} (to the right) and {two[1]} of codes, beside draws of the prior"
        drawn = _draws(subject)[:, two]
        svg = charts.scatter(_by_class(subject, codes[:POINTS, two]), ("the prior", drawn), title)
        blocks.append(Chart(svg, title))
    note = (
        f"The codes of {len(codes)} validation examples, those latents first that tell most. A "
        "code is the mean of what the encoder says of an example: over all of the data, means "
        "alone vary less than draws do, and a latent of deviation 0 tells nothing."
    )
    return Look("Codes against the prior", tuple(blocks), "row", (note,))


def _draws(subject: Subject) -> np.ndarray:
    """Draws [n z] of the prior; of every class in turn, where it has classes."""
    num = subject.model.spec.num_classes
    label = (np.arange(POINTS) % num).astype(np.int32) if num else None
    return subject.able("draw_latents", POINTS, {"label": label})


def _by_class(subject: Subject, at: np.ndarray) -> dict[str, np.ndarray]:
    """The points of each class that there are, by its name; all as one where there are none, or too
    many for colours."""
    label = subject.dataset.materialize("validation").label
    names = subject.dataset.class_names
    if label is None or not 1 < len(names) <= charts.MOST_COLOURS:
        return {"codes": at}
    label = np.asarray(label)[: len(at)]
    groups = {str(name): at[label == i] for i, name in enumerate(names)}
    groups |= {"unlabelled": at[label < 0]}
    return {name: points for name, points in groups.items() if len(points)}
