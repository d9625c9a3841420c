"""Train steps on 1..n devices of one process, and on 1..n processes of one device each.

    python benchmarks/scaling.py [--devices 2] [--processes 2] [--batch 32] [--rounds 5] [--quick]

Strong scaling divides one batch, weak scaling gives every device a batch of its own. Processes
meet through `jax.distributed` on this machine's loopback. On a CPU the devices are forced host
devices, which share the cores, as the processes do: one alone may already keep every core busy,
so there is nothing to gain but what that one leaves idle, and the ratios show the cost of
splitting. That all agree is checked on the parameters after the same steps.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import common
import jax
import numpy as np

import jaxgen
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.mesh import make_mesh

SPEC = jaxgen.DataSpec(28, 28, 1, 2)
MARK = "> "
STRONG, WEAK = "strong", "weak"
CHECKED = 3
"""Steps after which the parameters are compared."""
TOLERANCE = 1e-4
"""Of the largest entry of an array of parameters."""


def model(quick: bool) -> jaxgen.PixelCNN:
    """Seven masked layers. SGD, so that rounding stays rounding: Adam's first steps are signs."""
    sizes = {"features": 4, "blocks": 1, "head": 4} if quick else {"features": 64, "blocks": 6}
    sgd = Optimizer("sgd", 1e-4)
    return jaxgen.PixelCNN(SPEC, block="plain", dropout=0.0, optimizer=sgd, **sizes)


def side(devices: int, batch: int, quick: bool) -> tuple[common.Run, list[list[float]]]:
    """Train steps on so many devices, and what they make of the parameters: for each array, its
    largest entry, and a projection of it that any wrong entry would move."""
    steps = common.steps_of(model(quick), common.synthetic(SPEC, 2048), make_mesh(devices), batch)
    params = steps(CHECKED).net.params
    found = []
    for leaf in jax.tree.leaves(params):
        values = np.asarray(leaf.addressable_data(0), np.float64)
        direction = np.random.default_rng(0).normal(size=values.shape)
        found.append([float(np.abs(values).max()), float((values * direction).mean())])
    return steps, found


def difference(a: list[list[float]], b: list[list[float]]) -> float:
    """The largest difference of two sides' parameters, relative to each array's largest entry."""
    return max(
        max(abs(x[0] - y[0]), abs(x[1] - y[1])) / x[0] for x, y in zip(a, b, strict=True) if x[0]
    )


# Devices of this process.


def over_devices(counts: list[int], kind: str, asked: Any) -> tuple[dict, dict]:
    sides, params = {}, {}
    for n in counts:
        batch = asked.batch * (n if kind == WEAK else 1)
        steps, params[n] = side(n, batch, asked.quick)
        sides[n] = common.block(steps, asked.seconds)
    return common.alternate(sides, asked.rounds), params


# Processes: each group stays alive and waits for its turn, so that the sides alternate.


class Group:
    """n processes that run the data-parallel step together, one device each."""

    def __init__(self, n: int, batch: int, asked: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.members = [
            subprocess.Popen(
                [sys.executable, __file__, "--member", str(port), str(n), str(i), str(batch),
                 str(asked.seconds), str(int(asked.quick))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for i in range(n)
        ]  # fmt: skip
        # The block's length is the first one's choice: all must take the same number of steps.
        self.params, count = self._read()[0]
        self._send(count)

    def _send(self, what: Any) -> None:
        for member in self.members:
            member.stdin.write(json.dumps(what) + "\n")
            member.stdin.flush()

    def _read(self) -> list[Any]:
        return [self._line(member) for member in self.members]

    def _line(self, member: subprocess.Popen) -> Any:
        # The collectives' library prints to stdout as well.
        for line in member.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError("a process of the group ended before its time")

    def timed(self) -> float:
        """Seconds per step of the slowest member."""
        self._send("go")
        return max(self._read())

    def end(self) -> None:
        for member in self.members:
            member.stdin.close()
        for member in self.members:
            member.wait(timeout=60)


def say(what: Any) -> None:
    print(MARK + json.dumps(what), flush=True)


def member(port: str, n: str, i: str, batch: str, seconds: str, quick: str) -> None:
    """One process of a group: prints its parameters, then a time for every line that it reads."""
    # Means nothing to other platforms.
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(f"127.0.0.1:{port}", int(n), int(i), local_device_ids=[int(i)])
    steps, params = side(int(n), int(batch), quick == "1")
    start = time.perf_counter()
    steps(2)
    count = max(1, round(2 * float(seconds) / (time.perf_counter() - start)))
    say([params, count])
    count = json.loads(sys.stdin.readline())
    for _ in sys.stdin:
        start = time.perf_counter()
        steps(count)
        say((time.perf_counter() - start) / count)


def over_processes(counts: list[int], kind: str, asked: Any) -> tuple[dict, dict]:
    groups = {n: Group(n, asked.batch * (n if kind == WEAK else 1), asked) for n in counts}
    try:
        sides: dict[int, Callable[[], float]] = {n: g.timed for n, g in groups.items()}
        times = common.alternate(sides, asked.rounds)
    finally:
        for group in groups.values():
            group.end()
    return times, {n: group.params for n, group in groups.items()}


WHAT = {"devices": over_devices, "processes": over_processes}


def measure(what: str, kind: str, counts: list[int], asked: Any) -> list[dict]:
    """A row for each count; efficiency is the speed over n times that of one."""
    times, params = WHAT[what](counts, kind, asked)
    rows = []
    for n in counts:
        batch = asked.batch * (n if kind == WEAK else 1)
        found = common.ratio([t * batch / asked.batch for t in times[1]], times[n])
        off = difference(params[1], params[n]) if kind == STRONG else None
        if off is not None and not off <= TOLERANCE:
            raise AssertionError(f"{n} {what} give other parameters than one: {off:.2g}")
        rows.append({
            "what": what, "kind": kind, "count": n, "batch": batch,
            "step_s": common.spread(times[n]), "speed_over_one": found,
            "efficiency": found["median"] / n, "difference": off,
        })  # fmt: skip
    return rows


def targets_of(rows: list[dict]) -> list[dict]:
    targets = []
    for row in rows:
        if row["count"] == 1:
            continue
        one = next(
            r for r in rows if (r["what"], r["kind"], r["count"]) == (row["what"], row["kind"], 1)
        )
        task = f"{row['kind']} scaling, {row['count']} {row['what']}, batch {row['batch']}"
        task += " in all" * (row["kind"] == WEAK)
        shown = f"{common.span(row['step_s'], 1e3)} ms"
        peer = f"one, batch {one['batch']}, {common.span(one['step_s'], 1e3)} ms; images/s"
        targets.append(common.target(task, shown, peer, row["speed_over_one"]))
    return targets


def draw(figure: Any, rows: list[dict]) -> None:
    """Images per second over those of one, and the ideal."""
    panels = figure.subplots(1, len(WHAT), sharey=True)
    for axes, what in zip(panels, WHAT, strict=True):
        for kind in dict.fromkeys(r["kind"] for r in rows):
            some = [r for r in rows if (r["what"], r["kind"]) == (what, kind)]
            counts = [r["count"] for r in some]
            axes.plot(counts, [r["speed_over_one"]["median"] for r in some], "o-", label=kind)
        axes.plot(counts, counts, ":", color="#888888", label="ideal, on cores of their own")
        axes.set(xlabel=what, xticks=counts)
    panels[0].set_ylabel("images/s over those of one")
    panels[0].legend(fontsize=8)


def shown(row: dict) -> dict[str, str]:
    off = row["difference"]
    return {
        f"{row['kind']} scaling": f"{row['count']} {row['what']}, batch {row['batch']}",
        "ms per step (min..max)": common.span(row["step_s"], 1e3),
        "images/s over one's": common.span(row["speed_over_one"]),
        "efficiency": f"{row['efficiency']:.0%}",
        "difference of parameters": "" if off is None else f"{off:.1e}",
    }


def main() -> None:
    if sys.argv[1:2] == ["--member"]:
        return member(*sys.argv[2:])
    parser = common.arguments(__doc__, "scaling")
    cores = os.cpu_count() or 1
    parser.add_argument("--devices", type=int, default=cores, help="on a CPU: forced host devices")
    parser.add_argument("--processes", type=int, default=cores)
    parser.add_argument("--batch", type=int, default=32, help="of one device; strong: of all")
    asked = common.parse(parser)
    if asked.quick:
        asked.batch = 4
    # Means nothing to other platforms; must come before the first use of a device.
    jax.config.update("jax_num_cpu_devices", asked.devices)
    devices = min(asked.devices, jax.device_count())
    on_cpu = jax.default_backend() == "cpu"
    most = {"devices": devices, "processes": asked.processes if on_cpu else devices}
    rows: list[dict] = []
    for what in WHAT:
        # The batch must divide: powers of two.
        counts = [n for n in (1, 2, 4, 8, 16, 32) if n <= most[what]]
        for kind in (STRONG,) if asked.quick else (STRONG, WEAK):
            some = measure(what, kind, counts, asked)
            print(("\n" if rows else "") + common.table([shown(r) for r in some]), flush=True)
            rows += some
    common.finish(asked, rows, targets_of(rows), lambda figure: draw(figure, rows))


if __name__ == "__main__":
    main()
