"""PixelCNN's samplers against one teacher-forced forward pass, and against one pass a sub-pixel.

    python benchmarks/sampling.py [--batches 1 16 64] [--rounds 5] [--quick]

The forward pass, `eval_step` of the same network and batch, is what any exact sampler has to
compute. All of these are compiled as `jax.jit` does it; beside them stands the forward pass with
the compiler options that jaxgen's evaluation passes (`parallel.compiler_options`). The naive time
is extrapolated: a few sub-pixels are drawn by the naive sampler, each by a whole pass, and their
time is multiplied up to all sub-pixels. Every sampler that the model offers is timed; the targets
are asked of the fastest.
"""

import contextlib
import dataclasses
import typing
from typing import Any, ClassVar

import common
import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxgen
from jaxgen.causal.masked import CausalConv
from jaxgen.causal.samplers import draw_from, sample_pixels_naive
from jaxgen.parallel.compiling import compiler_options
from jaxgen.parallel.mesh import SPLIT, WHOLE, data_parallel, make_mesh

MATMUL, FORWARD, NAIVE = "matrix product", "forward", "naive"
TOLD = "forward, compiler options"
USUAL = "naive, full masked kernels"
NEEDS = {
    ("28x28x1, 2 levels, 3x3", 1): ("", ">= 300"),
    ("28x28x1, 2 levels, 7x7", 1): ("", ">= 300"),
    ("28x28x1, 2 levels, 3x3", 64): ("<= 1.5", ">= 1000"),
    ("28x28x1, 2 levels, 7x7", 64): ("<= 1.5", ">= 1000"),
    ("32x32x3, 256 levels, 3x3", 64): ("", ">= 500"),
}
"""What is asked: of the time over a forward pass, and of the time of the usual naive sampler, with
full masked kernels, over it."""


class FewPixels(jaxgen.DataSpec):
    """The spec of an image of which the naive sampler draws the first sub-pixels only."""

    dims: ClassVar[int] = 2


def networks(quick: bool) -> dict[str, jaxgen.PixelCNN]:
    """Seven masked layers of 64 features, then two 1x1 layers."""
    sizes = {"features": 64, "blocks": 6, "head": 64}
    binary, colour = jaxgen.DataSpec(28, 28, 1, 2), jaxgen.DataSpec(32, 32, 3, 256)
    if quick:
        sizes = {"features": 4, "blocks": 1, "head": 4}
        binary, colour = jaxgen.DataSpec(8, 8, 1, 2), jaxgen.DataSpec(4, 4, 3, 256)
    names = list(dict.fromkeys(name for name, _ in NEEDS))
    chosen = zip(names, ((binary, 3), (binary, 7), (colour, 3)), strict=True)
    return {
        name: jaxgen.PixelCNN(spec, block="plain", kernel=kernel, dropout=0.0, **sizes)
        for name, (spec, kernel) in chosen
    }


def samplers(model: jaxgen.PixelCNN) -> list[str]:
    """The names of the model's exact samplers, without the naive one."""
    hint = typing.get_type_hints(type(model))["sampler"]
    return [name for name in typing.get_args(hint) if name != NAIVE]


def full_kernels(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Runs a masked convolution as it is usually written: the whole kernel, times a mask."""
    layer = context.module
    if not isinstance(layer, CausalConv) or context.method_name != "__call__":
        return run(*args, **kwargs)
    terms, (x,) = layer.terms(), args
    k, start = terms.kernel, 0
    taps = jnp.zeros((k * k, x.shape[-1], layer.features)).at[: k * k // 2].set(terms.before)
    for weights in terms.centre:
        rows, stop = weights.shape[0], start + weights.shape[1]
        taps, start = taps.at[k * k // 2, :rows, start:stop].set(weights), stop
    numbers = ("NHWC", "HWIO", "NHWC")
    kernel = taps.reshape(k, k, *taps.shape[1:])
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    return y + terms.bias


def naive_pass(model: jaxgen.PixelCNN, state: Any, num: int, usual: bool = False) -> common.Run:
    """Draws the first sub-pixels, by one whole pass each; a unit is `FewPixels.dims` of them.

    `usual`: with full masked kernels, instead of our cropped ones.
    """
    few = FewPixels(*dataclasses.astuple(model.spec))
    image = jnp.zeros((num, *model.spec.shape), jnp.uint8)
    draw = draw_from(model.likelihood, jax.random.split(jax.random.key(0), num))

    def step(variables: Any) -> Any:
        bound = model.network.bind(variables)
        with nn.intercept_methods(full_kernels) if usual else contextlib.nullcontext():
            return sample_pixels_naive(bound, few, draw, image, jnp.zeros(image.shape, bool))

    some = data_parallel(step, make_mesh(1), (WHOLE,), SPLIT)

    def run(count: int) -> None:
        for _ in range(count):
            some(state.ema).block_until_ready()

    return run


def forward(model: jaxgen.PixelCNN, state: Any, num: int, told: bool = False) -> common.Run:
    """Log-likelihoods of a batch; `told`: with compiler options."""
    options, specs = compiler_options(model.convolutional) if told else {}, (WHOLE, WHOLE, SPLIT)
    step = data_parallel(model.eval_step, make_mesh(1), specs, SPLIT, options=options)
    images = common.synthetic(model.spec, num).splits["train"].x
    batch = {"x": jnp.asarray(images), "index": jnp.arange(num)}

    def run(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(step(jax.random.key(0), state, batch))

    return run


def sampler(model: jaxgen.PixelCNN, name: str, state: Any, num: int) -> common.Run:
    """Batches of samples."""
    chosen = dataclasses.replace(model, sampler=name)
    step = data_parallel(
        lambda key, state: chosen.sample(key, state, num),
        make_mesh(1),
        (WHOLE, WHOLE),
        SPLIT,
    )

    def run(count: int) -> None:
        for i in range(count):
            step(jax.random.key(i), state).block_until_ready()

    return run


def measure(name: str, model: jaxgen.PixelCNN, num: int, asked: Any) -> list[dict]:
    """A row for each side of one network and batch; seconds are per batch of images."""
    state = common.fresh(model)
    product, unit = common.matmul(asked.quick)
    runs = {FORWARD: forward(model, state, num), TOLD: forward(model, state, num, True)}
    runs |= {kind: sampler(model, kind, state, num) for kind in samplers(model)}
    runs |= {NAIVE: naive_pass(model, state, num), USUAL: naive_pass(model, state, num, True)}
    runs[MATMUL] = product
    sides = {side: common.block(run, asked.seconds) for side, run in runs.items()}
    times = common.alternate(sides, asked.rounds)
    for side in (NAIVE, USUAL):
        times[side] = [t * model.spec.dims / FewPixels.dims for t in times[side]]
    key = jax.random.key(0)
    work = common.flops(model.eval_step, key, state, model.spec.shapes(num))
    rows = []
    for side in (FORWARD, TOLD, *samplers(model), NAIVE, USUAL):
        seconds = common.spread(times[side])
        of_limit = common.share(work, {**times, "ours": times[side]}, MATMUL, unit)
        rows.append({
            "network": name, "batch": num, "side": side, "extrapolated": side in (NAIVE, USUAL),
            "batch_s": seconds, "images_per_s": num / seconds["median"],
            "over_forward": common.ratio(times[side], times[FORWARD]),
            "naive_over": common.ratio(times[NAIVE], times[side]),
            "usual_over": common.ratio(times[USUAL], times[side]),
            "forward_gflop": work / 1e9, "share_of_matmul": of_limit,
        })  # fmt: skip
    return rows


def targets_of(rows: list[dict]) -> list[dict]:
    """The fastest sampler of one network and batch against the forward pass and against naive."""
    offered = [row for row in rows if row["side"] not in (FORWARD, TOLD, NAIVE, USUAL)]
    best = min(offered, key=lambda row: row["batch_s"]["median"])
    name, num = best["network"], best["batch"]
    over_forward, over_naive = NEEDS.get((name, num), ("", ""))
    task = f"sampling, {name}, batch {num} ({best['side']})"
    shown = f"{common.span(best['batch_s'])} s"
    peers = {row["side"]: f"{common.span(row['batch_s'])} s" for row in rows}
    one_pass = f"one forward pass, {peers[FORWARD]}"
    cropped = f"with our cropped ones {peers[NAIVE]}: {common.span(best['naive_over'])}"
    naive = f"naive with full masked kernels, {peers[USUAL]}, extrapolated ({cropped})"
    return [
        common.target(task, shown, one_pass, best["over_forward"], over_forward),
        common.target(task, shown, naive, best["usual_over"], over_naive),
    ]


def shown(row: dict) -> dict[str, str]:
    return {
        f"{row['network']}, batch {row['batch']}": row["side"],
        "s per batch (min..max)": common.span(row["batch_s"]),
        "images/s": f"{row['images_per_s']:,.4g}",
        "time / forward": common.span(row["over_forward"]),
        "naive / time": common.span(row["naive_over"]),
        "forward's FLOPs, of matmul rate": common.span(row["share_of_matmul"]),
    }


def draw(figure: Any, rows: list[dict]) -> None:
    """Seconds per image against the batch, a panel a network."""
    names = list(dict.fromkeys(row["network"] for row in rows))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for side in dict.fromkeys(row["side"] for row in rows):
            some = [r for r in rows if (r["network"], r["side"]) == (name, side)]
            seconds = [r["batch_s"]["median"] / r["batch"] for r in some]
            axes.plot([r["batch"] for r in some], seconds, marker="o", label=side)
        axes.set(title=name, xlabel="batch", xscale="log", yscale="log")
        axes.title.set_size(9)
    panels[0].set_ylabel("s per image")
    panels[0].legend(fontsize=8)


def main() -> None:
    parser = common.arguments(__doc__, "sampling")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 64])
    asked = common.parse(parser)
    if asked.quick:
        asked.batches = [1]
    rows: list[dict] = []
    targets: list[dict] = []
    for name, model in networks(asked.quick).items():
        for num in asked.batches:
            some = measure(name, model, num, asked)
            print(("\n" if rows else "") + common.table([shown(r) for r in some]), flush=True)
            rows, targets = rows + some, targets + targets_of(some)
    common.finish(asked, rows, targets, lambda figure: draw(figure, rows))


if __name__ == "__main__":
    main()
