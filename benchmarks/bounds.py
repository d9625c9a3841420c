"""`evaluate --k` of Burda's VAE: its rate against matrix products, and its memory as k grows.

    python benchmarks/bounds.py [--images 1000] [--rounds 5] [--quick]

The model is 784-200-200-50 and back (Burda et al. 2016, arXiv:1509.00519, one stochastic layer),
with its first parameters, on random binary images. The work of a draw is that of the decoder and
the densities: x need be encoded but once.
"""

import resource
import sys
from typing import Any

import common
import jax
import numpy as np

import jaxgen
from jaxgen.evaluation.bounds import BLOCK, importance_weighted
from jaxgen.parallel.mesh import make_mesh

MATMUL = "matrix product"
SPEC, BATCH = jaxgen.DataSpec(28, 28, 1, 2), 100


def peak() -> float:
    """The most memory that this process has held, MiB."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 2 ** (20 if sys.platform == "darwin" else 10)


def draw_flops(model: jaxgen.VAE) -> float:
    """Of scoring one draw of a batch."""
    args = common.state_shapes(model).ema, SPEC.shapes(BATCH)
    draw = jax.eval_shape(model.infer, jax.random.key(0), *args)
    return common.flops(model.score, args[0], draw, args[1])


def memory(evaluate: Any, ks: tuple[int, ...]) -> list[dict[str, Any]]:
    """How much the peak has grown after more and more draws, from that of the fewest on."""
    evaluate(ks[0])
    first, rows = peak(), []
    for k in ks:
        evaluate(k)
        rows.append({"k": k, "peak_mib": peak(), "grown_mib": peak() - first})
    return rows


def main() -> None:
    parser = common.arguments(__doc__, "bounds")
    parser.add_argument("--images", type=int, default=1000, help="how many are evaluated")
    asked = common.parse(parser)
    width = 8 if asked.quick else 200
    num = BATCH if asked.quick else asked.images
    model = jaxgen.VAE(SPEC, hidden=(width, width), latents=50, activation="tanh", dropout=0.0)
    split, mesh = common.synthetic(SPEC, num).splits["train"], make_mesh(1)
    state = common.fresh(model)

    def evaluate(k: int, given: Any = split) -> None:
        key = jax.random.key(0)
        found = importance_weighted(model, mesh, key, state, given, BATCH, (k,))
        assert np.isfinite(found.values).all()

    few = common.synthetic(SPEC, BATCH).splits["train"]
    held = memory(lambda k: evaluate(k, few), (50, 500) if asked.quick else (50, 500, 5000))
    product, unit = common.matmul(asked.quick)
    runs = {"ours": lambda count: evaluate(BLOCK * count), MATMUL: product}
    times = common.alternate(
        {side: common.block(run, asked.seconds) for side, run in runs.items()}, asked.rounds
    )
    seconds = common.spread(times["ours"])
    work = draw_flops(model) * BLOCK * num / BATCH
    share = common.share(work, times, MATMUL, unit)
    draws = BLOCK * num / seconds["median"]
    whole = 10_000 * 5_000 / draws
    rate = f"{work / seconds['median'] / 1e9:,.3g} GFLOP/s, {draws:,.0f} draws/s"
    limit = unit / common.spread(times[MATMUL])["median"] / 1e9
    targets = [common.target("bounds, 784-200-200-50", rate, f"{limit:,.0f} GFLOP/s", share)]
    print(common.table([{"draws k": r["k"], "peak MiB": f"{r['peak_mib']:.0f}",
                         "grown MiB": f"{r['grown_mib']:.1f}"} for r in held]))  # fmt: skip
    print(f"10,000 images of 5,000 draws: {whole:,.0f} s")
    rows = [{"images": num, "block_s": seconds, "draws_per_s": draws, "whole_s": whole}]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([r["k"] for r in held], [r["peak_mib"] for r in held], "o-")
        axes.set(xscale="log", xlabel="draws k", ylabel="peak memory, MiB", ylim=(0, None))

    common.finish(asked, rows, targets, draw, memory=held)


if __name__ == "__main__":
    main()
