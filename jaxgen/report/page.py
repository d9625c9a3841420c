"""The page that a run leaves behind: one HTML file that loads nothing."""

import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jaxgen.evaluation.results import Results
from jaxgen.evaluation.sections import shown
from jaxgen.evaluation.subject import Subject
from jaxgen.files import write_atomic
from jaxgen.model import Metric
from jaxgen.report.blocks import Code, Look
from jaxgen.report.looks import LOOKS
from jaxgen.report.text import ESCAPE


def write_report(subject: Subject, results: Results, commands: Sequence[str] = ()) -> Path:
    """Writes report.html into the subject's directory: the results, every look at the subject,
    and the commands that can be given next. Returns its path."""
    looks = [look for each in LOOKS if (look := each(subject, results)) is not None]
    if commands:
        looks.append(Look("Use it", (Code(tuple(commands)),)))
    path = subject.directory / "report.html"
    write_atomic(path, render(subject, results, looks).encode("utf-8", ESCAPE))
    return path


def render(subject: Subject, results: Results, looks: Sequence[Look]) -> str:
    """The page as HTML: the same text each time."""
    from jinja2 import Environment, StrictUndefined

    about = results.about
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": shown, "data_url": data_url}
    monitor = subject.metrics.get(about.monitor, Metric(about.monitor))
    return environment.from_string(_text("page.html.j2")).render(
        css=_text("page.css"),
        kind_of=lambda block: type(block).__name__,
        title=f"{about.model} on {about.dataset}",
        words=(
            f"{about.protocol}. All numbers and pictures are of the checkpoint of step "
            f"{about.step}, chosen by {monitor.label} on the validation split."
        ),
        headlines=[h for section in results.sections for h in section.headlines(about)],
        looks=looks,
    )


def _text(name: str) -> str:
    """A file beside this one."""
    return (resources.files("jaxgen.report") / name).read_text(encoding="utf-8")


def data_url(content: bytes, kind: str) -> str:
    """The content as a URL that loads nothing."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
