"""Modes that games cover on a ring of eight Gaussians and a grid of twenty-five, the seeds of each
trained at once by vmap.

    python benchmarks/toy_gan.py [--games …] [--on ring grid] [--seeds 4] [--steps N]
    python benchmarks/toy_gan.py --table    # writes RESULTS.md's table of the rows there are
    python benchmarks/toy_gan.py --check    # whether the page shows just those

Rows of other games that the results hold already are kept.

The ring has a radius of 2 and a standard deviation of 0.1, the grid a spacing of 2 and a standard
deviation of 0.2; points are real numbers [1 1 2]. The step is `GAN.train_step`, vmapped over seeds
and scanned over steps. A mode counts as covered if at least 20 of 2,500 samples of the averaged
generator are nearest to it and lie within three standard deviations, which is also what counts as
good; the KL is of the nearest modes' shares from even ones. The last step is what is measured.
"""

import argparse
import json
import time
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
import pages
from common import RESULTS

from jaxgen import GAN, DataSpec, Optimizer
from jaxgen.models.adversarial.base import GameState

SAMPLES, LEAST = 2500, 20


class Points(NamedTuple):
    """Equally likely Gaussians."""

    centres: np.ndarray
    sigma: float
    steps: int


_ANGLE = 2 * np.pi * np.arange(8) / 8
_SIDE = np.arange(-4.0, 5.0, 2.0)
POINTS = {
    "ring": Points(2 * np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], -1), 0.1, 3000),
    "grid": Points(np.stack(np.meshgrid(_SIDE, _SIDE), -1).reshape(-1, 2), 0.2, 6000),
}

ADAM = Optimizer(learning_rate=1e-3, b1=0.5, b2=0.99)
SLOW = Optimizer(learning_rate=1e-4, b1=0.5, b2=0.99)
"""With the rates of Metz et al. 2017, appendix A: 1e-3 of the generator, 1e-4 of D."""

GAMES: dict[str, dict[str, Any]] = {
    "minimax": {"loss": "minimax"},
    "minimax, R1": {"loss": "minimax", "r1": 0.1},
    "non-saturating": {},
    "non-saturating, unrolled by 5": {"unrolled": 5},
    "non-saturating, slow D": {"d_optimizer": SLOW},
    "non-saturating, slow D, unrolled by 5": {"d_optimizer": SLOW, "unrolled": 5},
    "non-saturating, R1": {"r1": 0.1},
    "non-saturating, lazy R1": {"r1": 0.1, "penalty_every": 4},
    "least squares, R1": {"loss": "least_squares", "r1": 0.1},
    "hinge, R1": {"loss": "hinge", "r1": 0.1},
    "hinge, spectral norm": {"loss": "hinge", "d_norm": "spectral"},
    "WGAN-GP, 5 steps of D": {"loss": "wasserstein", "slope_penalty": 0.1, "d_steps": 5},
    "non-saturating, packs of 2": {"pack": 2},
    "non-saturating, packs of 2, R1": {"pack": 2, "r1": 0.1},
}


def game(name: str) -> GAN:
    optimizers = {"g_optimizer": ADAM, "d_optimizer": ADAM}
    fields: dict[str, Any] = {"d_norm": "none", **optimizers, **GAMES[name]}
    return GAN(
        DataSpec(1, 1, 2, levels=0), latents=2, hidden=(64, 64, 64), g_norm="none", ema=0.995,
        **fields,
    )  # fmt: skip


def draw(key: jax.Array, points: Points, num: int) -> jax.Array:
    """Points [num 1 1 2]."""
    key_mode, key_noise = jax.random.split(key)
    centre = jnp.asarray(points.centres)[
        jax.random.randint(key_mode, (num,), 0, len(points.centres))
    ]
    return (centre + points.sigma * jax.random.normal(key_noise, (num, 2)))[:, None, None]


def train(model: GAN, points: Points, seed: jax.Array, steps: int, size: int) -> GameState:
    """The state after `steps` steps on fresh points."""
    key_init, key_data, key_train = jax.random.split(jax.random.key(seed), 3)

    def step(state: GameState, t: jax.Array) -> tuple[GameState, None]:
        num = size * model.minibatches
        batch = {"x": draw(jax.random.fold_in(key_data, t), points, num), "index": jnp.arange(num)}
        return model.train_step(jax.random.fold_in(key_train, t), state, batch, t)[0], None

    state = model.init(key_init, model.spec.example(1))
    return jax.lax.scan(step, state, jnp.arange(steps))[0]


def measured(found: np.ndarray, points: Points) -> dict[str, Any]:
    """How points [n 2] lie around the modes."""
    distance = np.linalg.norm(found[:, None] - points.centres, axis=-1)
    nearest, good = distance.argmin(1), distance.min(1) < 3 * points.sigma
    num = len(points.centres)
    hits = np.bincount(nearest[good], minlength=num)
    share = np.bincount(nearest, minlength=num) / len(found)
    kl = float((share * np.log(np.maximum(share, 1e-12) * num)).sum())
    return {"modes": int((hits >= LEAST).sum()), "kl": kl, "good": float(good.mean())}


def row(name: str, where: str, flags: argparse.Namespace) -> dict[str, Any]:
    """All seeds of one game."""
    model, points = game(name), POINTS[where]
    steps, start = flags.steps or points.steps, time.perf_counter()
    seeds = jnp.arange(flags.seeds)
    each = lambda s: train(model, points, s, steps, flags.batch_size)  # noqa: E731
    states = jax.block_until_ready(jax.jit(jax.vmap(each))(seeds))
    seconds = time.perf_counter() - start
    rows = []
    for seed in range(flags.seeds):
        state = jax.tree.map(lambda x: x[seed], states)  # noqa: B023
        found = np.asarray(model.sample(jax.random.key(10_000 + seed), state, SAMPLES))[:, 0, 0]
        rows.append({"seed": seed, **measured(found, points)})
    print(f"{where}, {name}: modes {[r['modes'] for r in rows]}, {seconds:.0f} s", flush=True)
    by = common.named(common.machine())
    return {"on": where, "game": name, "steps": steps, "seconds": seconds, "by": by, "seeds": rows}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, those of one set of points together."""
    rows = sorted(rows, key=lambda r: (list(POINTS).index(r["on"]), list(GAMES).index(r["game"])))
    machines: dict[str, list[str]] = {}
    for r in rows:
        machines.setdefault(r["by"], []).append(f"{r['game']} ({r['on']})")
    lines = [
        "| points | game | steps | modes, by seed | KL | good samples | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        of = lambda key, form: ", ".join(format(s[key], form) for s in r["seeds"])  # noqa: B023, E731
        modes = f"{of('modes', 'd')} of {len(POINTS[r['on']].centres)}"
        lines.append(
            f"| {r['on']} | {r['game']} | {r['steps']:,} | {modes} | {of('kl', '.2f')} | "
            f"{of('good', '.0%')} | {r['seconds']:.0f} |"
        )
    most, *others = sorted(machines, key=lambda by: -len(machines[by]))
    where = ". ".join([most, *(f"On {by}: {'; '.join(machines[by])}" for by in others)])
    return "\n".join(lines) + f"\n\nMeasured on {where}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", nargs="*", default=list(GAMES), choices=list(GAMES))
    parser.add_argument("--on", nargs="*", default=list(POINTS), choices=list(POINTS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument(
        "--steps", type=int, default=0, help="0 = 3000 on the ring, 6000 on the grid"
    )
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--out", type=common.a_path, default=RESULTS / "toy_gan.json")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table")
    parser.add_argument("--check", action="store_true", help="run nothing, check the table")
    flags = parser.parse_args()
    if flags.table or flags.check:
        kept = json.loads(flags.out.read_text())
        text = table(kept["rows"])
        if flags.check:
            pages.check(pages.RESULTS_PAGE, "games", text, "python benchmarks/toy_gan.py --table")
        else:
            pages.write(pages.RESULTS_PAGE, "games", text)
        return
    old = json.loads(flags.out.read_text())["rows"] if flags.out.exists() else []
    rows = [row(name, where, flags) for where in flags.on for name in flags.games]
    made = {(r["on"], r["game"]) for r in rows}
    rows += [r for r in old if (r["on"], r["game"]) not in made]
    settings = {"seeds": flags.seeds, "batch_size": flags.batch_size}
    common.write(flags.out, {"machine": common.machine(), "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
