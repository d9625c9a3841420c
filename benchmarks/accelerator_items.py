"""What the items of accelerator.py share: their record, their clock, small models, profiles."""

import contextlib
import dataclasses
import gzip
import json
import re
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.models.autoregressive.base import Autoregressive
from jaxgen.optim.optimizer import Optimizer

THREADS = 12
"""Models compiled at a time, where there are so many processors."""
CHECKS = "check-of"
"""What the names of the threads of `each` begin with."""
FEW = "made", "vae"
"""Looked at with --quick."""
KERNELS = 30
"""Shown of a profile."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One question."""

    name: str
    what: str
    run: Callable[["Context"], None]
    limit: float
    """Seconds it may take."""
    least: float
    """Seconds that must be left for it to be worth starting."""
    needs: tuple[str, ...] = ()
    """torch, or the names of data sets."""
    flags: str = ""
    """XLA_FLAGS of its process."""


class TimeUp(BaseException):
    """An item's own time is up; no `except Exception` of a part of it holds it back."""


class Record:
    """The JSON of a run: read and rewritten whole, so that it is always complete."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def read(self) -> dict[str, Any]:
        return json.loads(self.out.read_text()) if self.out.exists() else {"items": {}}

    def update(self, **values: Any) -> None:
        common.write(self.out, {**self.read(), **values})

    def item(self, name: str, **values: Any) -> None:
        result = self.read()
        result["items"].setdefault(name, {}).update(values)
        common.write(self.out, result)


class Context:
    """What an item is given: sizes, its clock, and where its figures go."""

    def __init__(self, item: Item, record: Record, data: Path, quick: bool, end: float) -> None:
        self.item, self.record, self.data, self.quick = item, record, data, quick
        self.end = min(end, time.time() + item.limit)
        self.found: dict[str, Any] = {}

    def left(self) -> float:
        """Seconds until the item must have ended."""
        return self.end - time.time()

    def add(self, **values: Any) -> None:
        """Keeps figures at once: what comes after may fail."""
        self.found |= values
        self.record.item(self.item.name, found=self.found)

    def append(self, name: str, row: dict[str, Any]) -> None:
        self.add(**{name: [*self.found.get(name, []), row]})

    def say(self, text: str) -> None:
        print(f"    {text}", flush=True)

    def seconds(self, run: common.Run, rounds: int = 3, longer: float = 1.0) -> dict[str, float]:
        """Of a unit of work: median, smallest and largest; in blocks that take so many times as
        long as usual."""
        timed = common.block(run, longer * self.block)
        return common.spread([timed() for _ in range(rounds)])

    @property
    def block(self) -> float:
        """Seconds of a timed block."""
        return 0.01 if self.quick else 0.3

    @property
    def near(self) -> Path:
        """A folder beside the JSON, for profiles."""
        folder = self.record.out.with_name(f"{self.record.out.stem}-profiles")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises TimeUp after so long, as soon as Python runs again."""

    def ring(*_: Any) -> None:
        raise TimeUp(f"its time of {seconds:.0f} s was up")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def told(error: BaseException) -> dict[str, str]:
    """An error as the JSON keeps it."""
    line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    where = "".join(traceback.format_exception(error))[-4000:]
    # Results are committed: they name no folder of the machine.
    return {"error": line, "traceback": re.sub(r'"/[^"]*/', '"', where)}


def each(context: Context, names: Sequence[str], check: Callable[[str], dict[str, Any]]) -> None:
    """check(name) for every name, several at a time (compiling takes most of it); the figures go
    under `rows`, an error in place of those of the name that raised it."""
    names, failed = [n for n in names if n in FEW] if context.quick else names, []
    # Not a `with` block: that would wait for the threads when time is up.
    pool = ThreadPoolExecutor(2 if context.quick else THREADS, CHECKS)
    try:
        waiting = {pool.submit(check, name): name for name in names}
        for future in as_completed(waiting):
            name = waiting[future]
            try:
                row = {"name": name, **future.result()}
            except Exception as error:
                row = {"name": name, "ok": False, **told(error)}
            failed += [name] if not row["ok"] else []
            context.append("rows", row)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    pool.shutdown()  # all is done: its idle threads end
    context.add(ok=not failed, failed=sorted(failed))
    context.say(f"{len(names) - len(failed)} of {len(names)} as asked; not: {sorted(failed)}")


def still_at_work() -> bool:
    """Whether threads of an item that has ended still compile."""
    return any(thread.name.startswith(CHECKS) for thread in threading.enumerate())


# Models.


def small(name: str) -> Any:
    """The tiny model of a preset of the registry, unconditional and without dropout."""
    model = jaxgen.MODELS[name].tiny
    spec = dataclasses.replace(model.spec, num_classes=0)
    fields = {"dropout": 0.0} if hasattr(model, "dropout") else {}
    return dataclasses.replace(model, spec=spec, **fields)


def plain_descent(model: Any, rate: float = 0.01) -> Any:
    """The model with gradient descent: its step is the gradient, to a factor, where Adam's is
    the sign of what may be rounding."""
    plain = Optimizer("sgd", rate, b1=0.0)
    names = [f.name for f in dataclasses.fields(model) if f.name.endswith("optimizer")]
    return dataclasses.replace(model, **dict.fromkeys(names, plain))


def autoregressive() -> list[str]:
    return [n for n, p in jaxgen.MODELS.items() if isinstance(p.model, Autoregressive)]


def random_state(model: Any) -> Any:
    """A state of random numbers, biases too: a fresh one draws nearly uniform images."""
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 9.0
        values = rng.normal(size=leaf.shape) * (1.5 / fan_in**0.5)
        return jnp.asarray(values if len(leaf.shape) > 1 else np.abs(values), leaf.dtype)

    state = jax.tree.map(fill, common.state_shapes(model))
    return state.replace(ema=state.net.variables) if hasattr(state, "net") else state


def batch_of(model: Any, num: int) -> dict[str, Any]:
    return {**model.spec.example(num), "x": common.synthetic(model.spec, num).splits["train"].x}


# Profiles.


def profile(context: Context, name: str, run: Callable[[], Any], hlo: str = "") -> dict[str, Any]:
    """The kernels of run() by time, written as a table beside the JSON; `hlo`, the optimized
    program, goes beside it. Gives back the busy share and the top ten."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with jax.profiler.trace(folder):
            run()
            wall = time.perf_counter() - start
        [written] = Path(folder).rglob("*.xplane.pb")
        kernels = _kernels(jax.profiler.ProfileData.from_file(str(written)))
    busy = sum(ns for ns, _ in kernels.values()) / 1e9
    launches = sum(count for _, count in kernels.values())
    top = sorted(kernels.items(), key=lambda kernel: -kernel[1][0])[:KERNELS]
    lines = [f"{name}: {wall:.4f} s of the clock, kernels {busy:.4f} s, {launches} of them", ""]
    lines += [f"{ns / 1e6:10.3f} ms {count:7d} x  {kernel}" for kernel, (ns, count) in top]
    stem = "".join(c if c.isalnum() else "-" for c in name)
    (context.near / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    if hlo:
        (context.near / f"{stem}.hlo.txt.gz").write_bytes(gzip.compress(hlo.encode()))
    shown = [[kernel[:120], ns / 1e6, count] for kernel, (ns, count) in top[:10]]
    return {"wall_s": wall, "kernels_s": busy, "kernels": launches, "top_ms": shown}


def _kernels(data: Any) -> dict[str, tuple[float, int]]:
    """Nanoseconds and runs of every kernel of the device; on a CPU, of every operation."""
    planes = [p for p in data.planes if p.name.startswith("/device:")]
    found: dict[str, tuple[float, int]] = {}
    for plane in planes or data.planes:
        for line in plane.lines:
            # Other lines of a device repeat the same time by module, step or source line.
            if planes and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                op = dict(event.stats).get("hlo_op", "")
                if not planes and not op:
                    continue
                name = event.name if event.name == op or not op else f"{event.name} ({op})"
                ns, count = found.get(name, (0.0, 0))
                found[name] = ns + event.duration_ns, count + 1
    return found
