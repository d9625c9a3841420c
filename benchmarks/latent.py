"""The latent-variable family in one table: digits, and all families on two-dimensional points.

    python benchmarks/latent.py [--tasks digits moons] [--models vae …] [--seeds 0 1 2]
    python benchmarks/latent.py --tasks static    # MNIST ($TFDS_DATA_DIR): VAE against IWAE
    python benchmarks/latent.py --table    # writes RESULTS.md's tables of the rows there are
    python benchmarks/latent.py --check    # whether the page shows just those

A row is `python train.py --model=MODEL FLAGS --seed=SEED`: the checkpoint is chosen on validation,
and the report measures the whole test split. Rows that are in the results already are kept;
--again makes them anew.
"""

from typing import Any

from rows import Task, cells, main


def burda(name: str, *more: str) -> tuple[str, ...]:
    """The flags of Burda et al.'s one-layer network, 30 epochs."""
    model = {
        "hidden": "200 200", "activation": "tanh", "latents": "50", "dropout": "0", "ema": "0.999",
        "warmup": "6000", "optimizer.learning_rate": "2e-3", "optimizer.decay_steps": "30000",
    }  # fmt: skip
    flags = [word for key, value in model.items() for word in (f"--{name}.{key}", *value.split())]
    return (*flags, *more)


TASKS = {
    "digits": Task(
        "Digits, 17 levels",
        (),
        {name: () for name in ("vae", "iwae", "iaf", "ladder", "pixelvae", "pixelvae2", "vqvae",
                            "realnvp")},
    ),
    "moons": Task(
        "Two moons",
        ("--dataset=moons",),
        {
            "gmm": (),
            "realnvp": ("--steps=6000",),
            "vae": ("--vae.latents=2", "--steps=6000"),
            "made": ("--levels=64",),
            "pixelcnn": ("--levels=64",),
        },
    ),
    "static": Task(
        "Static binarized MNIST, Burda et al.'s one-layer network, 30 epochs, L_500",
        (
            *("--dataset=binarized_mnist", "--draws=500", "--batch_size=50", "--steps=30000"),
            *("--log_every=500", "--eval_every=3000"),
        ),
        {
            "vae": burda("vae"),
            # The paper's own gradient; the preset's is DReG.
            "iwae": burda("iwae", "--iwae.k=5", "--iwae.estimator=reparam"),
        },
    ),
}  # fmt: skip

PAPERS = {
    "vae": "Kingma & Welling 2014",
    "iwae": "Burda et al. 2016, k = 5, DReG",
    "iaf": "Kingma et al. 2016",
    "ladder": "Sønderby et al. 2016",
    "pixelvae": "Gulrajani et al. 2017",
    "pixelvae2": "Gulrajani et al. 2017, two levels",
    "vqvae": "van den Oord et al. 2017",
    "realnvp": "Dinh et al. 2017",
    "gmm": "by gradient",
    "made": "Germain et al. 2015",
    "pixelcnn": "van den Oord et al. 2016",
}


def table(task: str, rows: list[dict[str, Any]]) -> str:
    lines = [
        "| `--model` | paper | test NLL in nats, by seed | density | KL in nats | Fréchet distance "
        "| coverage | parameters | seconds, all included |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    form = ".3f" if task == "moons" else ".2f"
    for name in TASKS[task].models:
        mine = [row for row in rows if row["model"] == name]
        if not mine:
            continue
        likelihood = mine[0]["likelihood"]
        nll = f"**{cells(mine, 'likelihood', 'model', 'nats', form=form)}**"
        nll += f" ± {likelihood['model']['nats_se']:{form}}"
        kl = "—"
        if "kl" in mine[0]["metrics"]:
            kl = cells(mine, "metrics", "kl", "mean", form=".1f")
        scores = [cells(mine, "scores", "model", n) for n in ("frechet", "coverage")]
        paper = PAPERS[name].replace(", DReG", "") if task == "static" else PAPERS[name]
        wall = cells(mine, "wall_s", form=".0f")
        row = [f"`{name}`", paper, nll, likelihood["kind"], kl, *scores]
        lines.append(f"| {' | '.join([*row, format(mine[0]['parameters'], ','), wall])} |")
    first = next(row for row in rows if not row["command"].count("--levels"))
    ends = dict(first["likelihood"]["baselines"])
    if first["likelihood"]["truth"]:
        ends["the true density"] = first["likelihood"]["truth"]
    for name, found in ends.items():
        lines.append(f"| {name} | | {found['nats']:{form}} | exact | | | | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(__doc__.splitlines()[0], "latent", TASKS, ["digits", "moons"], table)
