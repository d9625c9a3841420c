"""Tables in plain text, for the terminal."""

from jaxgen.evaluation.across_seeds import Summary
from jaxgen.evaluation.results import Results
from jaxgen.evaluation.sections import Table, shown


def tables(results: Results) -> list[Table]:
    """All tables of the results, in order."""
    return [table for section in results.sections for table in section.tables(results.about)]


def text(results: Results) -> str:
    """The results in plain text."""
    about = results.about
    head = (
        f"{about.protocol}\n{about.model}, {about.parameters:,} parameters, "
        f"checkpoint of step {about.step}"
    )
    return "\n\n".join([head, *map(plain, tables(results))])


def seeds_text(summary: Summary) -> str:
    """The summary of several seeds in plain text."""
    return f"{summary.about.protocol}\n\n{plain(summary.table())}"


def plain(table: Table) -> str:
    """A table in plain text."""
    rows = [table.columns, *(tuple(map(shown, row)) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n  ".join([table.title, *lines]) + (f"\n  {table.note}" * bool(table.note))
