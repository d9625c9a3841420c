"""The page that a run leaves behind: one HTML file that loads nothing."""

import base64
import html
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.evaluation.metrics import METRICS
from jaxgen.files import write_atomic
from jaxgen.media.kinds import legend, picture, save_samples
from jaxgen.media.pictures import heatmap, png_bytes
from jaxgen.media.sound import wav_bytes, waves
from jaxgen.model import Completes, Generates, Inspection, Reconstructs
from jaxgen.report import charts
from jaxgen.report.tables import Table, number, spread, tables
from jaxgen.runs.config import Run
from jaxgen.runs.directory import read_run
from jaxgen.runs.log import METRICS_FILE, read_metrics
from jaxgen.runs.record import to_dict
from jaxgen.spec import ImageSpec

SHOWN = 6
"""Pictures of samples, from the first to the last, that show the training's progress."""
PLAYED = 10
"""Sounds that the page plays."""

CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6570; --line: #dde1e6;
  --page: #ffffff; --card: #f5f7f9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4af; --line: #333a42;
  --page: #14171a; --card: #1d2126; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .8rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
p, figcaption, .note { color: var(--soft); font-size: .88rem; margin: .3rem 0; }
.cards, .row { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.row { grid-template-columns: repeat(auto-fit, minmax(min(27rem, 100%), 1fr)); align-items: start; }
.small { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.card { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.2rem; line-height: 1.4; }
.card span { color: var(--soft); font-size: .8rem; }
figure { margin: 0 0 1rem; }
img { max-width: 100%; min-width: min(9rem, 100%); height: auto;
  image-rendering: pixelated; border-radius: .25rem; }
.small img { width: 100%; }
audio { width: 9rem; height: 2rem; }
.cards { margin: 1rem 0; }
svg { width: 100%; max-width: 40rem; height: auto; display: block; }
.scroll { overflow-x: auto; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--soft); font-weight: 500; }
.ranked tbody tr:first-child { font-weight: 600; }
.pairs td { text-align: left; vertical-align: top; }
.pairs td:first-child { color: var(--soft); white-space: nowrap; }
pre { background: var(--card); border-radius: .5rem; padding: .8rem 1rem; overflow-x: auto; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
"""


def write_report(
    directory: Path,
    run: Run,
    results: dict[str, Any],
    samples: np.ndarray,
    real: np.ndarray,
    shown: Inspection,
) -> Path:
    """Writes report.html and samples/final.png (and .wav, of sounds) into the run's directory;
    returns the page's path.

    `samples` [n h w c] and `shown` come from the checkpoint that `results` are about; `real`
    [m h w c] are images of the split, to compare with.
    """
    spec = run.model.spec
    drawn = save_samples(directory / "samples" / "final", samples, spec)
    record = read_run(directory)
    rows = read_metrics(directory / METRICS_FILE)
    title = f"{run.name} on {results['dataset']}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{_text(results['protocol'])}. {_text(_chosen(results))}</p>",
        _cards(results),
        "<h2>Samples</h2>",
        '<div class="row">',
        _image(png_bytes(drawn), f"The first {len(samples)} samples, none picked{legend(spec)}"),
        _image(png_bytes(picture(real, spec, 10)), f"Real: the {results['split']} split"),
        *(_players(clips[:PLAYED], spec) for clips in (samples, real) if spec.rate),
        "</div>",
        _progress(directory),
        "<h2>Results</h2>",
        *(_table(table) for table in tables(results)),
        _classes(results),
        "<h2>Training</h2>",
        "<p>train: means over the steps since the point before, as trained. validation: the whole "
        "split, by what a checkpoint would be used with.</p>",
        _curves(rows, results),
        "<h2>A look inside</h2>" if shown.grids or shown.heatmaps else "",
        *_inspection(shown, spec),
        "<h2>What was trained</h2>",
        *_trained(run, results, record),
        "<h2>Use it</h2>",
        f"<pre>{_text(commands(run, directory))}</pre>",
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><title>{_text(title)}</title><style>{CSS}</style>'
    )
    body = "\n".join(part for part in parts if part)
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
    write_atomic(directory / "report.html", page.encode())
    return directory / "report.html"


def commands(run: Run, directory: Path) -> str:
    """What can be done with the run next, a command a line."""
    can = [("interpolate", Generates), ("complete", Completes), ("reconstruct", Reconstructs)]
    names = ["sample", "evaluate", *(n for n, kind in can if isinstance(run.model, kind))]
    return "\n".join(f"jaxgen {name} --run={shlex.quote(str(directory))}" for name in names)


def _text(value: Any) -> str:
    """Any value as text that HTML shows as it is."""
    return html.escape(str(value))


def _chosen(results: dict[str, Any]) -> str:
    return (
        f"All numbers and pictures are of the checkpoint of step {results['step']}, chosen by "
        f"{results['monitor']} on the validation split."
    )


def _cards(results: dict[str, Any]) -> str:
    """The numbers to read first."""
    likelihood, scores = results["likelihood"], results["scores"]
    facts = []
    if likelihood:
        ours, others = likelihood["model"], likelihood["baselines"]
        facts = [
            (spread(ours["nats"], ours["nats_se"]), f"nats per image ({likelihood['kind']})"),
            (spread(ours["bits_per_dim"], ours["bits_per_dim_se"]), "bits per dimension"),
        ]
        best = min(others, key=lambda name: others[name]["nats"])
        facts.append((number(others[best]["nats"]), f"nats per image, {best} baseline"))
    if scores:
        for name in ("frechet", "coverage"):
            floor = number(scores["floor"][name])
            label = f"{METRICS[name].split(' (')[0]}; train images: {floor}"
            facts.append((number(scores["model"][name]), label))
    cards = (f'<div class="card"><b>{_text(a)}</b><span>{_text(b)}</span></div>' for a, b in facts)
    return f'<div class="cards">{"".join(cards)}</div>'


def _image(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{_text(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _players(clips: np.ndarray, spec: ImageSpec) -> str:
    """The first clips, to listen to."""
    files = (base64.b64encode(wav_bytes(w, spec.rate)).decode() for w in waves(clips, spec.levels))
    return "".join(f'<audio controls src="data:audio/wav;base64,{data}"></audio>' for data in files)


def _progress(directory: Path) -> str:
    """Samples of the same noise at some of the validations, first and last included."""
    paths = sorted((directory / "samples").glob("step_*.png"))
    some = sorted({round(i) for i in np.linspace(0, len(paths) - 1, SHOWN)}) if paths else []
    images = [_image(paths[i].read_bytes(), f"step {int(paths[i].stem[5:])}") for i in some]
    return f'<div class="cards small">{"".join(images)}</div>' if images else ""


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in table.columns)
    rows = ("".join(f"<td>{_text(cell)}</td>" for cell in row) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll"><table class="{"ranked" * table.ranked}">'
        f"<caption>{_text(table.title)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def _classes(results: dict[str, Any]) -> str:
    """The class histogram: which classes the model draws, and how often."""
    classes = (results["scores"] or {}).get("classes")
    if not classes:
        return ""
    shares = {f"{results['split']} split": classes["real"], "samples": classes["samples"]}
    title = "Classes, as a classifier fitted on the train split sees them"
    return _figure(charts.bars(classes["names"], shares, title), title)


def _curves(rows: list[dict[str, Any]], results: dict[str, Any]) -> str:
    drawn = charts.curves(rows, results["monitor"], results["step"])
    return f'<div class="row">{"".join(_figure(svg, title) for title, svg in drawn)}</div>'


def _figure(svg: str, title: str) -> str:
    return f"<figure><figcaption>{_text(title)}</figcaption>{svg}</figure>"


def _inspection(shown: Inspection, spec: ImageSpec) -> Iterator[str]:
    for name, images in shown.grids.items():
        yield _image(png_bytes(picture(np.asarray(images), spec)), name)
    for name, maps in shown.heatmaps.items():
        finite = np.asarray(maps)[np.isfinite(maps)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        caption = f"{name}: {low:.3g} (dark) to {high:.3g} (light)"
        yield _image(png_bytes(heatmap(np.asarray(maps))), caption)


def _trained(run: Run, results: dict[str, Any], record: dict[str, Any]) -> Iterator[str]:
    """The configuration, the data and what ran."""
    made = record["environment"]
    facts = {
        "model": f"{type(run.model).__name__}, {results['parameters']:,} parameters",
        **run.model.facts(),
        "steps": f"{run.train.steps}, of {run.train.batch_size} examples; seed {run.train.seed}",
        "data": results["protocol"],
        "fingerprint": results["fingerprint"],
        "trained on": f"{made['device_count']} x {made['device']} ({made['backend']})",
        "software": ", ".join(f"{n} {v}" for n, v in made["packages"].items()),
        "python": f"{made['python']}, {made['platform']}",
        "commit": made.get("commit", "not from a checkout"),
        "command": shlex.join(made["command"]),
    }
    yield _pairs(facts)
    for name, config in (("model", run.model), ("data", run.data), ("train", run.train)):
        yield f"<details><summary>{name} configuration</summary>{_pairs(to_dict(config))}</details>"


def _pairs(values: dict[str, Any]) -> str:
    rows = (f"<tr><td>{_text(n)}</td><td>{_text(v)}</td></tr>" for n, v in values.items())
    return f'<div class="scroll"><table class="pairs"><tbody>{"".join(rows)}</tbody></table></div>'
