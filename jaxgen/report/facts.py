"""Looks at what was written down: results, curves, configuration."""

import shlex

from jaxgen.abilities import Watches
from jaxgen.evaluation.results import Results
from jaxgen.evaluation.sample_scores import Scores
from jaxgen.evaluation.subject import Subject
from jaxgen.report import charts
from jaxgen.report.blocks import Block, Chart, Look, Pairs
from jaxgen.report.tables import tables
from jaxgen.runs.directory import GROWN, read_run
from jaxgen.runs.log import METRICS_FILE, read_metrics
from jaxgen.runs.record import to_dict


def numbers(subject: Subject, results: Results) -> Look | None:
    """All tables, and the classes that the model draws."""
    blocks: list[Block] = list(tables(results))
    scores = results.get(Scores)
    if scores is not None and scores.classes is not None:
        classes = scores.classes
        shares = {f"{results.about.split} split": classes.real, "samples": classes.samples}
        title = "Classes, as a classifier fitted on the train split sees them"
        blocks.append(Chart(charts.bars(classes.names, shares, title), title))
    return Look("Results", tuple(blocks)) if blocks else None


def training(subject: Subject, results: Results) -> Look | None:
    """The curves of all metrics, and what a model that watches itself makes of the last ones."""
    rows = read_metrics(subject.directory / METRICS_FILE)
    drawn = charts.curves(rows, subject.metrics, results.about.monitor, results.about.step)
    notes = [
        "train: means over the steps since the point before, as trained. validation: the whole "
        "split, by what a checkpoint would be used with."
    ]
    each = ([r for r in rows if r.get("split") == s][-1:] for s in ("validation", "train"))
    validation, last = each
    if isinstance(subject.model, Watches) and last:
        known = {k: x for row in (*validation, *last) for k, x in row.items()}
        means = {n: x for n, x in known.items() if n not in charts.FACTS and x is not None}
        verdict = subject.model.verdict(means)
        notes += [f"At the last point: {verdict}"] if verdict else []
    blocks = tuple(Chart(svg, title) for title, svg in drawn)
    return Look("Training", blocks, "row", tuple(notes))


def trained(subject: Subject, results: Results) -> Look | None:
    """The configuration, the data and what ran."""
    run, about = subject.run, results.about
    record = read_run(subject.directory)
    made = record["environment"]
    facts = {
        "model": f"{type(run.model).__name__}, {about.parameters:,} parameters",
        **run.model.facts(),
        "steps": f"{run.train.steps}, of {run.train.batch_size} examples; seed {run.train.seed}",
        **({"lengthened": "; ".join(record[GROWN])} if GROWN in record else {}),
        "data": about.protocol,
        "fingerprint": about.fingerprint,
        "trained on": f"{made['device_count']} x {made['device']} ({made['backend']})",
        "software": ", ".join(f"{n} {v}" for n, v in made["packages"].items()),
        "python": f"{made['python']}, {made['platform']}",
        "commit": made.get("commit", "not from a checkout"),
        "command": shlex.join(made["command"]),
    }
    folded = (
        Pairs(to_dict(config), f"{name} configuration")
        for name, config in (("model", run.model), ("data", run.data), ("train", run.train))
    )
    return Look("What was trained", (Pairs(facts), *folded))
