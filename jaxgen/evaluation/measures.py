"""What is measured of a trained model. A new measure is one file and one line here."""

from collections.abc import Callable

from jaxgen.evaluation.active import active
from jaxgen.evaluation.decoding import decoding
from jaxgen.evaluation.inspection import inspection
from jaxgen.evaluation.labels import labels
from jaxgen.evaluation.last import last
from jaxgen.evaluation.likelihood import likelihood
from jaxgen.evaluation.means import means
from jaxgen.evaluation.modes import modes
from jaxgen.evaluation.sample_scores import sample_scores
from jaxgen.evaluation.sections import Section
from jaxgen.evaluation.stacked import stacked
from jaxgen.evaluation.subject import Subject
from jaxgen.evaluation.translation import translations

MEASURES: tuple[Callable[[Subject], Section | None], ...] = (
    likelihood,
    decoding,
    active,
    sample_scores,
    modes,
    stacked,
    labels,
    translations,
    last,
    means,
    inspection,
)
"""Each decides, by the model's abilities and the kind of the data, whether it has something to
say, and is annotated with the section that it then returns."""
