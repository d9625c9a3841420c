"""What training ended with, beside the checkpoint that validation chose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxgen.evaluation.sample_scores import Scores, sample_scores
from jaxgen.evaluation.sections import About, Headline, Number, Section, Table
from jaxgen.evaluation.subject import Subject
from jaxgen.evaluation.translation import Translations, translations


@dataclass(frozen=True)
class Last(Section):
    """The same measures of the last checkpoint; none of them where it is the chosen one."""

    name: ClassVar = "last"

    step: int
    """The last checkpoint's."""
    scores: Scores | None
    translation: Translations | None

    def tables(self, about: About) -> tuple[Table, ...]:
        if self.step == about.step:
            columns, row = ("checkpoint", "step"), ("the best, which is the last", self.step)
            return (Table("Checkpoints", columns, (row,)),)
        sections = (s for s in (self.scores, self.translation) if s is not None)
        return tuple(
            table._replace(
                title=f"At the last step, {self.step}, not the chosen {about.step}: {table.title}",
                note="Measured as above.",
            )
            for section in sections
            for table in section.tables(about)
        )

    def headlines(self, about: About) -> tuple[Headline, ...]:
        return ()

    def numbers(self) -> Mapping[str, Number]:
        return {}


def last(subject: Subject) -> Last | None:
    """What the last checkpoint reaches, where the subject knows of it."""
    if subject.last is None:
        return None
    step = subject.last.step
    if step == subject.step:
        return Last(step, None, None)
    return Last(step, sample_scores(subject.last), translations(subject.last))
