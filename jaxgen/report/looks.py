"""What is looked at in a report. A new look is one function and one line here."""

from collections.abc import Callable

from jaxgen.evaluation.results import Results
from jaxgen.evaluation.subject import Subject
from jaxgen.report import abilities, codes, facts, pictures
from jaxgen.report.blocks import Look

LOOKS: tuple[Callable[[Subject, Results], Look | None], ...] = (
    pictures.samples,
    pictures.progress,
    abilities.translations,
    facts.numbers,
    abilities.reconstructions,
    abilities.resampled,
    codes.against_prior,
    abilities.near_codes,
    abilities.interpolations,
    abilities.completions,
    abilities.traversals,
    abilities.plane,
    facts.training,
    pictures.inside,
    facts.trained,
)
"""In the page's order. Each decides, by the model's abilities and the kind of the data, whether
there is something to see."""
