"""Images per second and compile time of a train step, for every registered model.

    python benchmarks/train_step.py [--models pixelcnn vae gan] [--steps 50] [--repeats 5]

Measured the way the trainer runs it: many steps in one compiled program, on data that lies on
the device. Times are medians over the repeats, with the smallest and the largest; the limit is
the machine's own measured rate of matrix products.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import loop
from jaxgen.feed import Feed
from jaxgen.parallel import on_every_device
from jaxgen.rundir import environment

RESULTS = Path(__file__).parent / "results"


def matmul_rate(size: int = 1024, repeats: int = 5) -> float:
    """FLOP/s of a float32 matrix product, the best of `repeats`."""
    a = jnp.ones((size, size))
    multiply = jax.jit(lambda a: a @ a)
    multiply(a).block_until_ready()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def flops_per_step(model: jaxgen.Model, batch_size: int) -> float:
    """XLA's count for one train step."""
    key = jax.random.key(0)
    state = jax.eval_shape(model.init, key)
    num = batch_size * model.minibatches
    batch = {
        "image": jax.ShapeDtypeStruct((num, *model.spec.shape), jnp.uint8),
        "index": jax.ShapeDtypeStruct((num,), jnp.int32),
    }
    cost = jax.jit(model.train_step).lower(key, state, batch).cost_analysis() or {}
    return float(cost.get("flops", float("nan")))


def measure(name: str, steps: int, repeats: int) -> dict[str, float]:
    """Times the registered preset on its own data."""
    chosen = jaxgen.preset(name)
    dataset = jaxgen.load(chosen.data)
    size = chosen.train.batch_size
    mesh = jaxgen.make_mesh(0, size)
    feed = Feed(dataset, 0, size * chosen.model.minibatches, mesh, steps)
    init = lambda key: loop.start(chosen.model.init(key))  # noqa: E731
    progress = on_every_device(mesh, init, jax.random.key(0))
    run, key = loop.compile_steps(chosen.model, feed, mesh), jax.random.key(1)
    start = time.perf_counter()
    progress, _ = run(progress, key, feed.chunk(0, 1), np.int32(1))
    jax.block_until_ready(progress)
    first = time.perf_counter() - start
    times = []
    for _ in range(repeats):
        chunk = feed.chunk(0, steps)
        start = time.perf_counter()
        progress, _ = run(progress, key, chunk, np.int32(steps))
        jax.block_until_ready(progress)
        times.append((time.perf_counter() - start) / steps)
    return {
        "batch_size": size,
        "first_step_s": first,
        "step_ms": 1e3 * statistics.median(times),
        "step_ms_min": 1e3 * min(times),
        "step_ms_max": 1e3 * max(times),
        "images_per_s": size / statistics.median(times),
        "gflop_per_step": flops_per_step(chosen.model, size) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(jaxgen.MODELS), choices=jaxgen.MODELS)
    parser.add_argument("--steps", type=int, default=50, help="steps per compiled call")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls")
    parser.add_argument("--out", type=Path, default=RESULTS / "train_step.json")
    asked = parser.parse_args()
    peak = matmul_rate()
    rows = {name: measure(name, asked.steps, asked.repeats) for name in asked.models}
    head = "model", "batch", "images/s", "step ms (min..max)", "compile s", "of matmul rate"
    print("{:10s} {:>6s} {:>10s} {:>22s} {:>10s} {:>15s}".format(*head))
    for name, r in rows.items():
        share = r["gflop_per_step"] * 1e9 / (r["step_ms"] / 1e3) / peak
        r["share_of_matmul_rate"] = share
        span = f"{r['step_ms']:.2f} ({r['step_ms_min']:.2f}..{r['step_ms_max']:.2f})"
        print(
            f"{name:10s} {r['batch_size']:6d} {r['images_per_s']:10,.0f} {span:>22s} "
            f"{r['first_step_s']:10.1f} {share:15.1%}"
        )
    print(f"matrix products here: {peak / 1e9:.0f} GFLOP/s in float32")
    machine = {k: v for k, v in environment().items() if k not in ("command", "commit")}
    result = {"machine": machine, "matmul_gflops": peak / 1e9, "models": rows}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {asked.out}")


if __name__ == "__main__":
    main()
