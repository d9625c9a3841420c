"""The adversarial family in one table: games on digits, and translations beside what needs none.

    python benchmarks/adversarial.py [--tasks digits invert …] [--models gan …] [--seeds 0 1 2]
    python benchmarks/adversarial.py --table    # writes RESULTS.md's tables of the rows there are
    python benchmarks/adversarial.py --check    # whether the page shows just those

The tasks mnist, fashion and rotate_mnist read prepared TFDS data: TFDS_DATA_DIR says where.

A row is `python train.py --model=MODEL FLAGS --seed=SEED`: the checkpoint is chosen on validation,
and the report measures the whole test split. Rows that are in the results already are kept;
--again makes them anew.
"""

from rows import Row, Task, cells, main

PAPERS = {
    "gan2014": "Goodfellow et al. 2014",
    "gan": "Radford et al. 2016",
    "lsgan": "Mao et al. 2017",
    "wgan": "Gulrajani et al. 2017",
    "sngan": "Miyato et al. 2018",
    "bigan": "Donahue et al. 2017",
    "ali": "Dumoulin et al. 2017",
    "hali": "Belghazi et al. 2018",
    "progan": "Karras et al. 2018",
    "stylegan2": "Karras et al. 2020",
}
PAIRED: dict[str, tuple[str, ...]] = {"pix2pix_l1": (), "pix2pix": ()}

_STACKED = (
    *("--dataset=stacked_digits", "--gan.deviation_group=0", "--samples=10000"),
    *("--steps=3000", "--eval_every=1000"),
)
"""Variation within a batch is not shown beside packs, which are to do its work."""

_LARGE = (
    *("--steps=10000", "--log_every=500", "--eval_every=2000", "--gan.filters=16"),
    *("--gan.g_optimizer.decay_steps=10000", "--gan.d_optimizer.decay_steps=10000"),
)
"""The preset's rate is for tiny images, of which there are few: here it falls to zero."""

TASKS = {
    "digits": Task("Digits, 17 levels", (), {name: () for name in PAPERS}),
    "mnist": Task("MNIST, 28x28, 10,000 steps of 64", ("--dataset=mnist", *_LARGE), {"gan": ()}),
    "fashion": Task(
        "Fashion-MNIST, 28x28, 10,000 steps of 64",
        ("--dataset=fashion_mnist", *_LARGE),
        {"gan": ()},
    ),
    "invert": Task("Negatives to digits and back, without pairs", (), {"cyclegan": ()}),
    "rotate": Task(
        "Digits turned by 90° to upright ones and back, without pairs",
        ("--pairing=rotate",),
        {"cyclegan": ("--cyclegan.aligned=500",)},
    ),
    "rotate_mnist": Task(
        "MNIST turned by 90° to upright and back, without pairs, 1,000 steps of 50",
        (
            *("--dataset=mnist", "--pairing=rotate", "--unpaired"),
            *("--steps=1000", "--eval_every=500"),
        ),
        {"cyclegan": ("--cyclegan.aligned=2000",)},
    ),
    "inpaint": Task("Digits from digits with a hole", ("--pairing=inpaint",), PAIRED),
    "super2": Task("Digits from 4x4 pixels", ("--pairing=super2",), PAIRED),
    "stacked": Task("1,000 combinations of three digits", _STACKED, {"gan": ()}),
    "packed": Task(
        "1,000 combinations, judged in packs of two", (*_STACKED, "--gan.pack=2"), {"gan": ()}
    ),
    "super4": Task("Digits from 2x2 pixels", ("--pairing=super4",), PAIRED),
    "colorize": Task(
        "Digits in the colours of their classes, from grey",
        ("--dataset=tinted_digits", "--pairing=colorize"),
        PAIRED,
    ),
}


PREPARED = ("mnist", "fashion", "rotate_mnist")
"""What is not made without being asked for: it needs data."""


def table(task: str, rows: list[Row]) -> str:
    if task in ("stacked", "packed"):
        return combinations(rows)
    return samples(rows) if task in ("digits", "mnist", "fashion") else translations(task, rows)


def combinations(rows: list[Row]) -> str:
    """The combinations of classes that samples reach, by seed."""
    shown = {"reached": ".0f", "histogram_kl": ".2f"}
    model, floor = (
        [cells(rows, "stacked", whose, n, form=form) for n, form in shown.items()]
        for whose in ("model", "floor")
    )
    return "\n".join([
        "| `--model` | combinations reached of 1,000 | KL in nats | samples "
        "| seconds, all included |",
        "|---|---|---|---|---|",
        f"| `gan` | {' | '.join(model)} | {rows[0]['stacked']['samples']:,} "
        f"| {cells(rows, 'wall_s', form='.0f')} |",
        f"| real training images, as many | {' | '.join(floor)} | | |",
    ])  # fmt: skip


def last_scores(row: Row) -> str:
    """Both scores of the last step; a dash where that is the best one, which has them already."""
    last = row.get("last")
    if last is None:
        return "not measured"
    if last["scores"] is None:
        return "—"
    return "{frechet:.2f} / {coverage:.2f}".format(**last["scores"]["model"])


def samples(rows: list[Row]) -> str:
    """Scores of samples, by seed."""
    lines = [
        "| `--model` | paper | Fréchet distance | coverage | both at the last step, if another "
        "| classes | KL of classes in nats | parameters | seconds, all included |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, paper in PAPERS.items():
        mine = [row for row in rows if row["model"] == name]
        if not mine:
            continue
        shown = {"frechet": ".2f", "coverage": ".2f", "classes_present": ".0f"}
        shown |= {"histogram_kl": ".3f"}
        scores = [cells(mine, "scores", "model", n, form=form) for n, form in shown.items()]
        scores.insert(2, ", ".join(last_scores(row) for row in mine))
        row = [f"`{name}`", paper, *scores, format(mine[0]["parameters"], ",")]
        lines.append(f"| {' | '.join([*row, cells(mine, 'wall_s', form='.0f')])} |")
    floor = rows[0]["scores"]["floor"]
    lines.append(
        f"| real training images | | {floor['frechet']:.2f} | {floor['coverage']:.2f} | "
        f"| {floor['classes_present']:.0f} | {floor['histogram_kl']:.3f} | | |"
    )
    return "\n".join(lines)


def translations(task: str, rows: list[Row]) -> str:
    """How far translations are from the truth, by seed, and what needs no model."""
    lines = [
        "| made by | way | PSNR in dB | SSIM | absolute difference in % | seconds, all included |",
        "|---|---|---|---|---|---|",
    ]
    shown = {"psnr": ".2f", "ssim": ".3f", "difference": ".1f"}
    for name in TASKS[task].models:
        mine = [row for row in rows if row["model"] == name]
        for way in mine[0]["translation"]["model"] if mine else ():
            row = [cells(mine, "translation", "model", way, n, form=f) for n, f in shown.items()]
            wall = cells(mine, "wall_s", form=".0f")
            lines.append(f"| {' | '.join([f'`{name}`', way, *row, wall])} |")
    for way, others in rows[0]["translation"]["others"].items():
        for what, found in others.items():
            row = [format(found[n], form) for n, form in shown.items()]
            lines.append(f"| {' | '.join([what, way, *row])} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    default = [name for name in TASKS if name not in PREPARED]
    main(__doc__.splitlines()[0], "adversarial", TASKS, default, table)
