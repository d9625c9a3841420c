"""Is it right on this device: samplers, causality, resuming, and every preset against a CPU."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np
import sampling
from accelerator_items import (
    Context,
    Item,
    autoregressive,
    batch_of,
    each,
    plain_descent,
    random_state,
    small,
)
from jax.experimental.compilation_cache import compilation_cache

import jaxgen
from jaxgen.causal.condition import NOTHING
from jaxgen.optim.net import Net
from jaxgen.parallel.mesh import make_mesh
from jaxgen.runs.checkpoint import Checkpoints
from jaxgen.training.trainer import Trainer

TOLERANCE = {"highest": 1e-3, "default": 5e-2, "bfloat16": 2e-1}
"""How far a step's change of the parameters may be from the CPU's, relative to it, in the norm.
"highest" and "default" are the precisions of float32 matrix products: by default an accelerator
may round their factors (an H100 to TF32's 10 bits). bfloat16 has 7 bits."""
BATCH = 8


def samplers(context: Context) -> None:
    """Every sampler against the naive one; where they differ, at the highest precision too."""
    plain = sampling.networks(context.quick)["28x28x1, 2 levels, 3x3"]
    models = {"pixelcnn 28x28": plain, **{name: small(name) for name in autoregressive()}}

    def check(name: str) -> dict[str, Any]:
        model = models[name]
        state = random_state(model)
        found: dict[str, Any] = {"default": _differing(model, state, "default")}
        ok = not any(found["default"].values())
        if not ok:  # is it the rounding of factors?
            found["highest"] = _differing(model, state, "highest")
            found["nats_default_from_highest"] = _rounding(model, state)
        return {**found, "ok": ok}

    each(context, list(models), check)


def _differing(model: Any, state: Any, precision: str) -> dict[str, float]:
    """The share of sub-pixels at which a sampler draws something else than the naive one."""
    drawn = {}
    with jax.default_matmul_precision(precision):
        for name in (sampling.NAIVE, *sampling.samplers(model)):
            chosen = dataclasses.replace(model, sampler=name)
            sample = jax.jit(lambda key, state, m=chosen: m.sample(key, state, 2 * BATCH))
            drawn[name] = np.asarray(sample(jax.random.key(0), state))
    naive = drawn.pop(sampling.NAIVE)
    return {name: float((images != naive).mean()) for name, images in drawn.items()}


def _rounding(model: Any, state: Any) -> float:
    """The largest difference of log p of a sub-pixel between the two precisions, in nats."""
    batch = batch_of(model, BATCH)
    values = []
    for precision in ("default", "highest"):
        with jax.default_matmul_precision(precision):
            values.append(jax.jit(model.log_prob)(state.ema, batch))
    return float(jnp.abs(values[0] - values[1]).max())


def causality(context: Context) -> None:
    """No output moves, not by one bit, when what it must not see is changed."""

    def check(name: str) -> dict[str, Any]:
        model = small(name)
        network = model.chain(random_state(model).ema).bound
        see = jax.jit(lambda x: network(x, NOTHING))
        report = jaxgen.check_autoregressive(see, model.arranged.shape)
        ok = report.is_autoregressive and not report.nan_outputs
        return {"ok": ok, "leaks": len(report.leaks), "nan_outputs": report.nan_outputs}

    each(context, autoregressive(), check)


def presets(context: Context) -> None:
    """Two steps of every preset; one step's change against the CPU's, in all precisions."""
    cpu = jax.devices("cpu")[0]
    context.add(tolerance=TOLERANCE, default_precision=_default_precision())

    def check(name: str) -> dict[str, Any]:
        model = plain_descent(small(name))
        batch = batch_of(model, BATCH * model.minibatches)
        state = jax.jit(model.init)(jax.random.key(0), model.spec.example(BATCH))
        args = jax.random.key(1), state, batch, jnp.int32(0)
        # By where its arguments are, a compiled function is run.
        reference = _change(model, jax.device_put(args, cpu), "highest")
        rounded = dataclasses.replace(model, precision="bfloat16")
        changes = {
            "highest": _change(model, args, "highest"),
            "default": _change(model, args, "default"),
            "bfloat16": _change(rounded, args, "default"),
        }
        far = {kind: _distance(change, reference) for kind, change in changes.items()}
        ok = {kind: value <= TOLERANCE[kind] for kind, value in far.items()}
        finite = _two_steps(model, args)
        return {"relative_distance": far, "finite": finite, "ok": all(ok.values()) and finite}

    each(context, list(jaxgen.MODELS), check)


def _params(state: Any) -> Any:
    """What is trained, of any model's state."""
    is_net = lambda x: isinstance(x, Net)  # noqa: E731
    nets = [x for x in jax.tree.leaves(state, is_leaf=is_net) if is_net(x)]
    return [net.params for net in nets]


def _change(model: Any, args: Any, precision: str) -> np.ndarray:
    """What one step adds to the parameters, as one float64 vector."""
    with jax.default_matmul_precision(precision):
        new, _ = jax.jit(model.train_step)(*args)
    flat = lambda tree: np.concatenate(  # noqa: E731
        [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)]
    )
    return flat(_params(new)) - flat(_params(args[1]))


def _distance(change: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(change - reference) / np.linalg.norm(reference))


def _two_steps(model: Any, args: Any) -> bool:
    """Whether all is finite after two steps."""
    key, state, batch, _ = args
    step = jax.jit(model.train_step)
    for i in range(2):
        state, metrics = step(jax.random.fold_in(key, i), state, batch, jnp.int32(i))
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((state, metrics)))


def _default_precision() -> str:
    """What a float32 matrix product is off by at each precision, from float64."""
    a = np.random.default_rng(0).normal(size=(512, 512))
    shown = []
    for precision in ("default", "high", "highest"):
        with jax.default_matmul_precision(precision):
            product = jax.jit(lambda a: a @ a)(a.astype(np.float32))
        far = np.linalg.norm(np.asarray(product, np.float64) - a @ a) / np.linalg.norm(a @ a)
        shown.append(f"{precision} {far:.1e}")
    return "relative error of a float32 512x512 product: " + ", ".join(shown)


def resume_cached(context: Context) -> None:
    """Whether what differs after a resume is that programs are compiled, and tuned, anew: every
    trainer finds what the first one compiled. A second whole run tells whether one and the same
    program has the same bits twice."""
    with tempfile.TemporaryDirectory() as cache:
        before = {name: jax.config.values[name] for name in KEEP_ALL}
        for name, value in {**KEEP_ALL, "jax_compilation_cache_dir": cache}.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        try:
            resume(context, Path(cache))
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def resume(context: Context, cache: Path | None = None) -> None:
    """The trainer: N steps at once, and n steps, a stop, N - n steps; the same bits or not."""
    dataset = jaxgen.load(jaxgen.DataConfig())
    half = 2 if context.quick else 20
    for name in ("vae",) if context.quick else ("pixelcnn", "vae", "gan"):
        chosen = jaxgen.preset(name)
        with tempfile.TemporaryDirectory() as folder:
            model = dataclasses.replace(chosen.model, spec=dataset.spec)
            train = functools.partial(
                dataclasses.replace, chosen.train, eval_every=half, log_every=half
            )
            whole, parts = Path(folder, "whole"), Path(folder, "parts")
            again, kept = Path(folder, "again"), []
            runs = [(whole, 2 * half), (parts, half), (parts, 2 * half)]
            runs += [(again, 2 * half)] if cache else []
            for where, steps in runs:
                run = jaxgen.Run(name, model, chosen.data, train(steps=steps))
                trainer = Trainer(run, dataset, where, None if name != "gan" else _no_score)
                where.mkdir(exist_ok=True)
                trainer.train()
                kept += [len(list(cache.glob("*-cache")))] if cache else []
            states = []
            for where in (whole, parts, *([again] if cache else [])):
                with Checkpoints(where / "checkpoints", read_only=True) as saved:
                    states.append(saved.restore(trainer.fresh(), 2 * half)[0])
        same, far = _same(states[0], states[1])
        row = {"name": name, "steps": 2 * half, "same_bits": same, "largest": far}
        if cache:
            twice, apart = _same(states[0], states[2])
            row |= {"same_bits_of_two_whole_runs": twice, "largest_of_two_whole_runs": apart}
            row["compiled_programs_after_each_run"] = kept
        context.append("rows", row)
        context.say(f"{name}: {'the same bits' if same else f'differs by up to {far:.2g}'}")
    context.add(ok=all(row["same_bits"] for row in context.found["rows"]))


def _same(a: Any, b: Any) -> tuple[bool, float]:
    """Whether two states have the same bits, and their largest difference."""
    pairs = [
        (np.asarray(x), np.asarray(y))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    far = max(float(np.abs(x.astype(float) - y.astype(float)).max()) for x, y in pairs)
    return all(np.array_equal(x, y) for x, y in pairs), far


def _no_score(images: np.ndarray) -> dict[str, float]:
    return {"frechet": 0.0}


def precision(context: Context) -> None:
    """What the precision of matrix products does to a test NLL: the PixelCNN preset on digits."""
    chosen = jaxgen.preset("pixelcnn")
    dataset = jaxgen.load(chosen.data)
    model = dataclasses.replace(chosen.model, spec=dataset.spec)
    if context.quick:
        model = dataclasses.replace(model, features=4, blocks=1, head=4)
    mesh = make_mesh(1)
    advance = common.steps_of(model, dataset, mesh, chosen.train.batch_size)
    state = advance(3 if context.quick else chosen.train.steps)
    nats = {}
    for kind in ("default", "highest"):
        with jax.default_matmul_precision(kind):
            key, test = jax.random.key(0), dataset.materialize("test")
            nats[kind] = jaxgen.per_example(model, mesh, key, state, test, 100)["nll"]
    far = float(np.abs(nats["default"] - nats["highest"]).max())
    means = {kind: float(value.mean()) for kind, value in nats.items()}
    context.add(test_nats=means, largest_of_an_image=far, protocol=dataset.protocol)
    context.say(f"{means}, one image differs by up to {far:.2g} nats")


DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
UNTUNED = f"{DETERMINISTIC} --xla_gpu_autotune_level=0"
KEEP_ALL: dict[str, Any] = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
"""Options with which every program is kept, however soon it is compiled."""

ITEMS = [
    Item("right.samplers", "cached and wavefront equal naive, bit for bit", samplers, 70, 20),
    Item("right.presets", "every preset steps, and as a CPU does", presets, 150, 45),
    Item("right.causality", "causality is exact, of every autoregressive model", causality, 40, 15),
    Item("right.resume", "a resumed run has the bits of an uninterrupted one", resume, 80, 25),
    Item("right.resume-cached", "the same, nothing compiled or tuned anew", resume_cached, 110, 30,
         flags=UNTUNED),
    Item("right.precision", "the precision of matrix products, in test nats", precision, 45, 20),
    Item("right.deterministic", "the same with deterministic operations alone", resume, 80, 30,
         flags=DETERMINISTIC),
]  # fmt: skip
