"""Train steps against PyTorch's on the same networks, and against the matrix-product rate.

    python benchmarks/train_step.py [--cases "pixelcnn 3x3" …] [--rounds 5] [--quick]

Both sides train from images that lie on the device, with Adam and a moving average of the
parameters. Ours runs as the trainer runs it; PyTorch's is the best of eager, eager channels-last
and torch.compile (`peers.py`), float32 on a CPU and bfloat16 on an accelerator. Every round times
every side. Without PyTorch (`pip install '.[bench]'`) the limit alone is shown. The presets of
the registry, on images of their own data's shape, have no peer. Rows of other cases that the
results hold already are kept.
"""

import dataclasses
import os
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

# PyTorch's threads would otherwise spin for a while after each of its blocks, on our cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# On a GPU both libraries share the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import common
import jax

import jaxgen
from jaxgen.causal.masked import causal_mask
from jaxgen.evaluation.describe import parameters
from jaxgen.models.adversarial.cyclegan import CycleGAN
from jaxgen.models.adversarial.progan import ProGAN
from jaxgen.models.adversarial.stylegan2 import StyleGAN2
from jaxgen.models.latent.iaf import IAF
from jaxgen.models.latent.ladder import Ladder
from jaxgen.parallel.mesh import make_mesh
from jaxgen.spec import DataSpec

MATMUL = "matrix product"
WHOLE_BATCH = "ours, the batch in one part"
BINARY, COLOUR = DataSpec(28, 28, 1, 2), DataSpec(32, 32, 3, 256)


@dataclass(frozen=True)
class Case:
    """A model, its batch, and what is asked of it against each kind of peer."""

    model: Any
    batch: int
    peers: dict[str, str] = field(default_factory=dict)


def pixelcnn(kernel: int, **changes: int) -> jaxgen.PixelCNN:
    """Seven masked layers of 64 features, then two 1x1 layers; the batch in eight parts, which
    makes the same step and keeps more of the activations in the processor's cache."""
    sizes = {"features": 64, "blocks": 6, "head": 64, "accumulate": 8, **changes}
    return jaxgen.PixelCNN(
        BINARY, block="plain", kernel=kernel, first_kernel=7, dropout=0.0, **sizes
    )


def cases(quick: bool) -> dict[str, Case]:
    small = {"features": 4, "head": 4, "blocks": 1} if quick else {}
    vae = jaxgen.VAE(BINARY, hidden=(8 if quick else 400,), latents=20, dropout=0.0)
    width = 8 if quick else 400
    ladder = Ladder(BINARY, hidden=(width, width // 2), latents=(32, 16), dropout=0.0)
    iaf = IAF(BINARY, hidden=(width,), latents=20, dropout=0.0)
    gan = jaxgen.GAN(COLOUR, filters=2 if quick else 64, latents=100)
    wide = 2 if quick else 32
    progan = ProGAN(COLOUR, filters=wide, stage_steps=0, r1=0.1, penalty_every=4)
    stylegan2 = StyleGAN2(COLOUR, filters=wide, r1=0.1, penalty_every=4)
    cyclegan = CycleGAN(
        DataSpec(32, 32, 3, 256, source=COLOUR), architecture="resnet", filters=wide,
        d_filters=wide, blocks=1 if quick else 6, output="tanh", ema=0.999,
    )  # fmt: skip
    found = {
        "pixelcnn 7x7": Case(pixelcnn(7, **small), 64, {"masked": ">= 1.25", "cropped": ">= 0.9"}),
        "pixelcnn 3x3": Case(pixelcnn(3, **small), 64, {"masked": ">= 1.1", "cropped": ">= 0.9"}),
        "dcgan 32x32": Case(gan, 64, {"dcgan": ">= 1.0"}),
        "vae 784-400-20": Case(vae, 128, {"vae": ">= 2.0"}),
        "ladder 784-400-32-200-16": Case(ladder, 128, {"ladder": ">= 1.5"}),
        "iaf 784-400-20": Case(iaf, 128, {"iaf": ">= 1.5"}),
        "progan 32x32": Case(progan, 32, {"progan": ">= 0.9"}),
        "stylegan2 32x32": Case(stylegan2, 32, {"stylegan2": ">= 0.9"}),
        "cyclegan 32x32": Case(cyclegan, 8, {"cyclegan": ">= 0.9"}),
    }
    for name, preset in jaxgen.MODELS.items():
        found[f"preset {name}"] = Case(preset.model, preset.train.batch_size)
    return found


def live_parameters(model: jaxgen.Model) -> int:
    """Parameters that no mask holds at zero."""
    state = common.state_shapes(model)
    total = parameters(state)
    if isinstance(model, jaxgen.PixelCNN):
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.net.params):
            if leaf.ndim == 4:
                kind = "A" if "'first'" in jax.tree_util.keystr(path) else "B"
                _, kernel, i, o = leaf.shape
                # The last stored row is the pixel's own: live where causal_mask says so.
                own = causal_mask(kernel, i, o, kind, model.spec.channels).sum()
                total -= kernel * i * o - int(own)
    return total


def peer_sides(
    case: Case, images: Any, peers: ModuleType | None, quick: bool
) -> dict[str, common.Run]:
    """PyTorch's variants as "kind: variant"; none without PyTorch on this device."""
    found: dict[str, common.Run] = {}
    if peers is None:
        return found
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    peers.forget_compiled()
    for kind in case.peers:
        ours, theirs = live_parameters(case.model), peers.networks(kind, case.model)
        assert ours == peers.live_parameters(*theirs), f"{kind} is another network than ours"
        sides = peers.sides(kind, case.model, images, case.batch, device, compiled=not quick)
        found |= {f"{kind}: {variant}": run for variant, run in sides.items()}
    return found


def load_peers() -> tuple[ModuleType | None, str]:
    """The PyTorch side, or None and why there is none."""
    try:
        import peers
    except ImportError:
        return None, "no PyTorch: pip install '.[bench]'"
    if jax.default_backend() != "cpu" and not peers.torch.cuda.is_available():
        return None, f"this PyTorch has no {jax.default_backend()}"
    return peers, ""


def measure(
    name: str, case: Case, asked: Any, peers: ModuleType | None, why: str
) -> tuple[list[dict], list[dict]]:
    """The rows of one case, one a side, and its targets."""
    dataset = common.synthetic(case.model.spec, 4096)
    # One device on either side.
    ours = common.steps_of(case.model, dataset, make_mesh(1), case.batch)
    images = dataset.splits["train"].x
    product, unit = common.matmul(asked.quick)
    runs = {"ours": ours}
    if getattr(case.model, "accumulate", 1) > 1:
        whole = dataclasses.replace(case.model, accumulate=1)
        runs[WHOLE_BATCH] = common.steps_of(whole, dataset, make_mesh(1), case.batch)
    runs |= {**peer_sides(case, images, peers, asked.quick), MATMUL: product}
    sides = {side: common.block(run, asked.seconds) for side, run in runs.items()}
    times = common.alternate(sides, asked.rounds)
    work = common.step_flops(case.model, case.batch)
    share = common.share(work, times, MATMUL, unit)
    rate = unit / common.spread(times.pop(MATMUL))["median"] / 1e9
    rows = []
    for side, values in times.items():
        seconds = common.spread(values)
        rows.append({
            "case": name, "side": side, "batch": case.batch, "step_s": seconds,
            "over_ours": common.ratio(values, times["ours"]),
            "images_per_s": case.batch / seconds["median"], "gflop": work / 1e9,
            "matmul_gflops": rate, "share_of_matmul": share if side == "ours" else None,
        })  # fmt: skip
    asks = targets_of(name, case, times, why, rows[0])
    return rows, [{"case": name, **each} for each in asks]


def targets_of(
    name: str, case: Case, times: dict[str, list[float]], why: str, ours: dict
) -> list[dict]:
    """Ours against the limit, and against the best variant of each kind of peer."""
    task = f"train step, {name}, batch {case.batch}"
    rate = f"{ours['gflop'] / ours['step_s']['median']:,.3g} GFLOP/s"
    limit = f"matrix product, {ours['matmul_gflops']:,.0f} GFLOP/s"
    rows = [common.target(task, rate, limit, ours["share_of_matmul"])]
    shown = f"{common.span(ours['step_s'], 1e3)} ms"
    for kind, need in case.peers.items():
        what = {"masked": ", masked kernels", "cropped": ", cropped kernels"}.get(kind, "")
        if jax.default_backend() != "cpu":
            need, what = ">= 1.0", f"{what}, bfloat16"
        variants = {side: t for side, t in times.items() if side.startswith(f"{kind}:")}
        if not variants:
            rows.append(common.target(task, shown, why, None, need))
            continue
        best = min(variants, key=lambda side: common.spread(variants[side])["median"])
        peer = f"PyTorch {best.split(': ')[1]}{what}, "
        peer += f"{common.span(common.spread(times[best]), 1e3)} ms"
        rows.append(
            common.target(task, shown, peer, common.ratio(times[best], times["ours"]), need)
        )
    return rows


def draw(figure: Any, rows: list[dict]) -> None:
    """Milliseconds of a step, a bar a side, log scale."""
    axes = figure.subplots()
    bars = [(f"{r['case']}, {r['side']}", r["step_s"], r["side"].startswith("ours")) for r in rows][
        ::-1
    ]
    middle = [1e3 * b[1]["median"] for b in bars]
    low = [1e3 * (b[1]["median"] - b[1]["min"]) for b in bars]
    high = [1e3 * (b[1]["max"] - b[1]["median"]) for b in bars]
    colours = ["#3b7dd8" if b[2] else "#b8b8b8" for b in bars]
    axes.barh([b[0] for b in bars], middle, xerr=(low, high), color=colours)
    axes.set_xscale("log")
    axes.set_xlabel("ms per train step: median, smallest and largest of the rounds")
    axes.tick_params(axis="y", labelsize=7)
    figure.set_figheight(1 + 0.2 * len(bars))


def main() -> None:
    parser = common.arguments(__doc__, "train_step", seconds=2.0)
    parser.add_argument("--cases", nargs="+", choices=list(cases(True)), help="default: all")
    asked = common.parse(parser)
    peers, why = load_peers()
    rows: list[dict] = []
    targets: list[dict] = []
    chosen = {n: c for n, c in cases(asked.quick).items() if n in (asked.cases or [n])}
    for name, case in chosen.items():
        some, asks = measure(name, case, asked, peers, why)
        print(("\n" if rows else "") + common.table([shown(row) for row in some]), flush=True)
        rows, targets = rows + some, targets + asks
    old_rows, old_targets = common.beside(asked.out, list(chosen))
    rows, targets = old_rows + rows, old_targets + targets
    machine = {"torch": peers.torch.__version__} if peers else {}
    common.finish(
        asked, rows, targets, lambda f: draw(f, rows), no_peer_because=why, machine=machine
    )


def shown(row: dict) -> dict[str, str]:
    share = row["share_of_matmul"]
    return {
        row["case"]: row["side"],
        "ms (min..max)": common.span(row["step_s"], 1e3),
        "images/s": f"{row['images_per_s']:,.0f}",
        "time / ours": common.span(row["over_ours"]),
        "of matmul rate": common.span(share) if share else "",
    }


if __name__ == "__main__":
    main()
