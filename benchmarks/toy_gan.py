"""Modes that the GAN step covers on a ring of eight Gaussians, seeds trained at once by vmap.

    python benchmarks/toy_gan.py [--seeds 4] [--steps 3000] [--loss nonsaturating] [--r1 0.1]

Ring of radius 2 with standard deviation 0.1, the points being real numbers [1 1 2]. The
step is `GAN.train_step`, vmapped over seeds and scanned over steps. A mode counts as covered if
at least 20 of 2,500 samples of the averaged generator are nearest to it and lie within three
standard deviations.
"""

import argparse
from pathlib import Path

import common
import jax
import jax.numpy as jnp
import numpy as np
from common import RESULTS

from jaxgen import GAN, DataSpec, Optimizer
from jaxgen.models.adversarial.base import GameState

MODES, RADIUS, SIGMA = 8, 2.0, 0.1


def ring(key: jax.Array, num: int) -> jax.Array:
    """Points of the ring, [num 1 1 2]."""
    key_mode, key_noise = jax.random.split(key)
    angle = 2 * jnp.pi * jax.random.randint(key_mode, (num,), 0, MODES) / MODES
    centre = RADIUS * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    noise = jax.random.normal(key_noise, (num, 2))
    return (centre + SIGMA * noise)[:, None, None]


def train(model: GAN, seed: jax.Array, steps: int, batch_size: int) -> GameState:
    """The state after `steps` steps on fresh points."""
    key_init, key_data, key_train = jax.random.split(jax.random.key(seed), 3)

    def step(state: GameState, t: jax.Array) -> tuple[GameState, None]:
        num = batch_size * model.minibatches
        batch = {"x": ring(jax.random.fold_in(key_data, t), num), "index": jnp.arange(num)}
        return model.train_step(jax.random.fold_in(key_train, t), state, batch, t)[0], None

    state = model.init(key_init, model.spec.example(1))
    return jax.lax.scan(step, state, jnp.arange(steps))[0]


def hits(points: np.ndarray) -> np.ndarray:
    """Points [n 2] near each mode, [8]."""
    angle = 2 * np.pi * np.arange(MODES) / MODES
    centres = RADIUS * np.stack([np.cos(angle), np.sin(angle)], -1)
    distance = np.linalg.norm(points[:, None] - centres, axis=-1)
    near = distance.argmin(1)[distance.min(1) < 3 * SIGMA]
    return np.bincount(near, minlength=MODES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--loss", default="nonsaturating")
    parser.add_argument("--r1", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=RESULTS / "toy_gan.json")
    flags = parser.parse_args()
    adam = Optimizer(learning_rate=1e-3, b1=0.5, b2=0.99)
    model = GAN(
        DataSpec(1, 1, 2, levels=0), latents=2, hidden=(64, 64, 64), g_norm="none",
        d_norm="none", loss=flags.loss, r1=flags.r1, ema=0.995, g_optimizer=adam, d_optimizer=adam,
    )  # fmt: skip
    seeds = jnp.arange(flags.seeds)
    states = jax.jit(jax.vmap(lambda s: train(model, s, flags.steps, flags.batch_size)))(seeds)
    rows = []
    for seed in range(flags.seeds):
        state = jax.tree.map(lambda x: x[seed], states)  # noqa: B023
        points = np.asarray(model.sample(jax.random.key(10_000 + seed), state, 2500))[:, 0, 0]
        counts = hits(points)
        rows.append({"seed": seed, "modes": int((counts >= 20).sum()), "hits": counts.tolist()})
        share = counts.sum() / len(points)
        print(f"seed {seed}: {rows[-1]['modes']} of {MODES} modes, {share:.0%} within 3 sigma")
    every = sum(row["modes"] == MODES for row in rows)
    print(f"all modes in {every} of {flags.seeds} seeds ({flags.loss}, R1 {flags.r1})")
    settings = {k: v for k, v in vars(flags).items() if k != "out"}
    common.write(flags.out, {"settings": settings, "seeds": rows})


if __name__ == "__main__":
    main()
