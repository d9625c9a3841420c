"""How fast on this device: train steps against PyTorch's, samplers against a forward pass."""

import dataclasses
import functools
import importlib
from collections.abc import Iterator
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np
import sampling
import train_step
from accelerator_items import Context, Item, profile, told

import jaxgen
from jaxgen.parallel.mesh import make_mesh

PRECISIONS = "bfloat16", "float32"
LONGER = 4.0
"""How many times as long as other blocks those of a rate are."""
LATEST, PROFILED = 30.0, 10.0
"""Seconds that must be left for one more variant of a peer, and for one more profile."""
IN_GRAPHS = (
    "--xla_gpu_graph_min_graph_size=1 --xla_gpu_enable_command_buffer="
    "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,DYNAMIC_SLICE_FUSION"
)
"""XLA_FLAGS with which loops too are launched as CUDA graphs."""


def rates(context: Context) -> None:
    """The card's own limits: matrix products of random numbers, and copies of its memory.

    Each is warmed up for as long as it is then timed. `steady` says whether the rounds agree:
    where they do not, something else was running, and the rates are no limit.
    """
    size, items = (256, 2**20) if context.quick else (8192, 2**28)
    numbers = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    for name, kind, asked in (
        ("bfloat16", jnp.bfloat16, "default"),
        ("float32", jnp.float32, "default"),
        ("float32, highest", jnp.float32, "highest"),
    ):
        with jax.default_matmul_precision(asked):
            a, multiply = jnp.asarray(numbers, kind), jax.jit(lambda a: a @ a)
            _limit(context, name, functools.partial(_many, multiply, a), 2.0 * size**3)
    array, add = jnp.ones((items,)), jax.jit(lambda a: a + 1)
    _limit(context, "copy", functools.partial(_many, add, array), 8.0 * items)
    spreads = context.found["unit_s"].values()
    context.add(
        size=size,
        copied_bytes=4 * items,
        steady=all(s["max"] <= 1.1 * s["min"] for s in spreads),
        unit="FLOP/s of products (float32 at default precision: factors rounded to TF32 where the "
        "card has it; at the highest: not), bytes/s of copies, read and written",
    )
    context.say(", ".join(f"{k} {v / 1e12:.3g} T/s" for k, v in _limits(context).items()))


def _limit(context: Context, name: str, run: common.Run, work: float) -> None:
    """Keeps the rate of a unit of `work`, and the seconds that it took."""
    timed = common.block(run, LONGER * context.block)
    timed()  # to its clock and temperature
    seconds = common.spread([timed() for _ in range(3)])
    context.add(unit_s={**context.found.get("unit_s", {}), name: seconds})
    context.add(**{name: work / seconds["median"]})


def _many(function: Any, argument: Any, count: int) -> None:
    for _ in range(count):
        out = function(argument)
    jax.block_until_ready(out)


def _limits(context: Context) -> dict[str, float]:
    found = context.record.read()["items"].get("fast.rates", {}).get("found", {})
    if not found.get("steady", True) and not context.quick:
        return {}
    return {name: value for name, value in found.items() if isinstance(value, float)}


def steps(context: Context, name: str) -> None:
    """One case of train_step.py in both precisions, against the best of PyTorch's variants."""
    case = train_step.cases(context.quick)[name]
    fields = {"accumulate": 1} if hasattr(case.model, "accumulate") else {}
    dataset = common.synthetic(case.model.spec, 4096)
    ours, work = {}, common.step_flops(dataclasses.replace(case.model, **fields), case.batch)
    for precision in PRECISIONS:
        model = dataclasses.replace(case.model, precision=precision, **fields)
        run = common.steps_of(model, dataset, make_mesh(1), case.batch)
        ours[precision] = (model, run, common.block(run, context.block))
        seconds = common.spread([ours[precision][2]() for _ in range(3)])
        limit = _limits(context).get(precision)
        share = work / seconds["median"] / limit if limit else None
        context.append("rows", {
            "case": name, "batch": case.batch, "precision": precision, "side": "ours",
            "step_s": seconds, "gflop": work / 1e9, "share_of_matmul": share,
        })  # fmt: skip
        context.say(f"ours, {precision}: {common.span(seconds, 1e3)} ms")
    _peers(context, name, case, {p: timed for p, (_, _, timed) in ours.items()})
    for precision, (model, run, _) in ours.items():
        if context.left() > PROFILED and not (context.quick and precision == "bfloat16"):
            _look_into(context, f"{name} {precision}", model, case.batch, run)


def _peers(context: Context, name: str, case: Any, ours: dict[str, Any]) -> None:
    """Times variant after variant while there is time, each in turns with ours."""
    peers, why = train_step.load_peers()
    context.add(peers=why or f"PyTorch {peers.torch.__version__}, TF32 on as in ours by default")
    if peers is None:
        return
    peers.torch.set_float32_matmul_precision("high")
    peers.torch.backends.cudnn.allow_tf32 = peers.torch.backends.cudnn.benchmark = True
    images = common.synthetic(case.model.spec, 4096).splits["train"].x
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    model = dataclasses.replace(case.model, **({"accumulate": 1} if "pixelcnn" in name else {}))
    for precision, kind, variant, how in _variants(peers, case, context.quick):
        row = {"case": name, "precision": precision, "kind": kind, "side": variant}
        if context.left() < LATEST:
            context.append("skipped", row)
            continue
        try:
            peers.forget_compiled()  # else, after eight, the next ones would run eagerly
            run = peers.side(kind, model, images, case.batch, device, how)
            sides = {"peer": common.block(run, context.block), "ours": ours[precision]}
            times = common.alternate(sides, 3)
        except Exception as error:
            context.append("failed", {**row, **told(error)})
            continue
        ratio = common.ratio(times["peer"], times["ours"])
        context.append("rows", {**row, "step_s": common.spread(times["peer"]), "over_ours": ratio})
        context.say(f"{kind} {variant}, {precision}: {common.span(ratio)} times ours")


def _variants(peers: Any, case: Any, quick: bool) -> Iterator[tuple[str, str, str, Any]]:
    """(precision, kind, name, how), those that are likely the best first."""
    forms = {"": peers.NCHW} if "vae" in case.peers else {" channels-last": peers.NHWC,
                                                          "": peers.NCHW}  # fmt: skip
    modes = {"eager": ""} if quick else {
        "compile": "default", "compile reduce-overhead": "reduce-overhead", "eager": ""
    }  # fmt: skip
    for form in forms:
        for mode in modes:
            for precision in PRECISIONS:
                for kind in case.peers:
                    how = peers.How(forms[form], modes[mode], precision)
                    yield precision, kind, f"{mode}{form}", how


def _look_into(context: Context, name: str, model: Any, batch: int, run: common.Run) -> None:
    """A profile of 20 steps; the bytes that the compiled step moves, against the copy rate."""
    args = (
        jax.random.key(0),
        common.state_shapes(model),
        model.spec.shapes(batch * model.minibatches),
        jax.ShapeDtypeStruct((), np.int32),
    )
    compiled = jax.jit(model.train_step).lower(*args).compile()
    moved = float((compiled.cost_analysis() or {}).get("bytes accessed", float("nan")))
    found = profile(context, f"step {name}", lambda: run(20), compiled.as_text() or "")
    found |= {"steps": 20, "bytes_of_a_step": moved}
    if copy := _limits(context).get("copy"):
        found["copying_them_takes_s"] = moved / copy
    context.append("profiles", {"name": name, **found})


def _sampled(context: Context, name: str, model: Any, num: int, limit: float | None = None) -> None:
    """Every sampler but the naive one, and the forward pass, of one batch."""
    state = common.fresh(model)
    runs = {sampling.FORWARD: sampling.forward(model, state, num)}
    for kind in sampling.samplers(model):
        runs[kind] = sampling.sampler(model, kind, state, num)
    for side, run in runs.items():
        seconds = context.seconds(run)
        row: dict[str, Any] = {"network": name, "batch": num, "side": side, "batch_s": seconds}
        if limit and side != sampling.FORWARD:
            row |= {"goal_s": limit, "met": seconds["median"] <= limit}
        context.append("rows", row)
        context.say(f"{name}, batch {num}, {side}: {common.span(seconds)} s")
        if side != sampling.FORWARD and context.left() > PROFILED:
            found = profile(context, f"sampler {name} batch {num} {side}", lambda r=run: r(1))
            context.append("profiles", {"name": f"{name}, batch {num}, {side}", **found})


def pixelcnn_samplers(context: Context, kernel: int) -> None:
    name = f"28x28x1, 2 levels, {kernel}x{kernel}"
    model = sampling.networks(context.quick)[name]
    big = 8 if context.quick else 512
    for num in (big, 1):
        _sampled(context, f"pixelcnn {name}", model, num, 0.15 if num == big else None)


def other_samplers(context: Context) -> None:
    for name in ("pixelcnnpp", "wavenet", "pixelsnail"):
        model = jaxgen.MODELS[name].model
        if context.quick and name != "pixelcnnpp":
            continue
        if model.spec.height > 1:
            spec = jaxgen.DataSpec(*((4, 4) if context.quick else (28, 28)), 1, 2)
            model = dataclasses.replace(model, spec=spec)
        _sampled(
            context, f"{name}, preset at {model.spec.shape}", model, 4 if context.quick else 64
        )


def graphs(context: Context) -> None:
    """Ours once more, with loops launched as CUDA graphs: does that help where launches bound?"""
    for name in ("vae 784-400-20", "pixelcnn 3x3"):
        case = train_step.cases(context.quick)[name]
        model = dataclasses.replace(case.model, accumulate=1, precision="bfloat16")
        dataset = common.synthetic(model.spec, 4096)
        run = common.steps_of(model, dataset, make_mesh(1), case.batch)
        seconds = context.seconds(run)
        row = {"case": name, "precision": "bfloat16", "side": "ours, loops as CUDA graphs"}
        context.append("rows", {**row, "step_s": seconds})
        context.say(f"{name}: {common.span(seconds, 1e3)} ms")
    model = sampling.networks(context.quick)["28x28x1, 2 levels, 3x3"]
    for num in (8,) if context.quick else (512, 1):
        _sampled(context, "pixelcnn 3x3, loops as CUDA graphs", model, num)


def adjoints(context: Context) -> None:
    """PixelCNN's step with the adjoints of `jaxgen.nn.conv` as this device has them by default,
    what autodiff derives, and in the form that a CPU has; in turns."""
    case = train_step.cases(context.quick)["pixelcnn 7x7"]
    dataset = common.synthetic(case.model.spec, 4096)
    conv: Any = importlib.import_module("jaxgen.nn.conv")  # its package has a function of the name
    chosen = conv._derived
    for precision in PRECISIONS:
        model = dataclasses.replace(case.model, precision=precision, accumulate=1)
        sides = {}
        for side, form in (("default", chosen), ("as on a CPU", lambda: False)):
            conv._derived = form
            try:
                jax.clear_caches()  # of what was traced in the other form
                run = common.steps_of(model, dataset, make_mesh(1), case.batch)
                sides[side] = common.block(run, context.block)
            finally:
                conv._derived = chosen
        for timed in sides.values():
            timed()  # the first one is compiled again: its program was cleared too
        times = common.alternate(sides, 5)
        for side, values in times.items():
            context.append("rows", {
                "case": "pixelcnn 7x7", "precision": precision, "side": f"ours, adjoints {side}",
                "step_s": common.spread(values),
                "over_default": common.ratio(values, times["default"]),
            })  # fmt: skip
            over = common.span(context.found["rows"][-1]["over_default"])
            context.say(f"{precision}, {side}: {over} of the default's time")


CASES = "pixelcnn 3x3", "vae 784-400-20", "pixelcnn 7x7", "dcgan 32x32"
ITEMS = [
    Item("fast.rates", "the card's matrix products and copies", rates, 40, 15),
    Item("fast.adjoints", "convolutions' adjoints as autodiff derives them, and as on a CPU",
         adjoints, 60, 30),
    Item("fast.sampling-3x3", "PixelCNN's samplers, batch 512 in at most 0.15 s",
         functools.partial(pixelcnn_samplers, kernel=3), 80, 25),
    *(
        Item(f"fast.{case.split()[0]}{'-' + case[9:] if 'pixel' in case else ''}",
             f"train steps against PyTorch's: {case}",
             functools.partial(steps, name=case), 90, 30, ("torch",))
        for case in CASES
    ),
    Item("fast.sampling-others", "samplers of the other families", other_samplers, 120, 25),
    Item("fast.graphs", "ours with loops as CUDA graphs", graphs, 90, 30, flags=IN_GRAPHS),
    Item("fast.sampling-7x7", "PixelCNN's samplers with 7x7 kernels",
         functools.partial(pixelcnn_samplers, kernel=7), 80, 25),
]  # fmt: skip
