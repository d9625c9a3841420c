"""One prepared run on an accelerator: is it right, how fast is it, what does a full budget reach.

    python benchmarks/accelerator.py --prepare=FOLDER [--data_dir=TFDS]   # where TFDS is: MNIST
    python benchmarks/accelerator.py --data=FOLDER [--minutes=8] [--only right fast.rates …]
    python benchmarks/accelerator.py --list | --quick | --table | --check

The run needs no network, TFDS, tyro or tensorboardX. What must travel beside the repository is
FOLDER alone: mnist-static.npz (3.0 MB) and mnist-dynamic.npz (9.1 MB). It checks first that these
and the packages are there, and exits with 2 and one line if not; see benchmarks/README.md.

Items run in order of worth, in one process, each with its own time limit, until the minutes are
up. The JSON is rewritten after every figure, so a run cut short keeps what it has. An item that
raises is recorded with its error; one that hangs or crashes ends its process, and so does one
whose time is up while it still compiles; a new one goes on with the next. What does not fit into
the time left is skipped, and says so. The same command with another --only adds to the same JSON;
items asked for are made anew.
"""

import argparse
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Two libraries share the memory, and PyTorch's threads must not spin on our processors.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import accelerator_data
import accelerator_fast
import accelerator_numbers
import accelerator_right
import accelerator_table
import common
import jax
from accelerator_items import Context, Item, Record, TimeUp, alarm, still_at_work, told

ORDER = (
    "fast.rates", "right.samplers", "right.presets", "right.causality", "fast.sampling-3x3",
    "fast.pixelcnn-3x3", "fast.vae", "fast.adjoints", "right.resume-cached",
    "numbers.pixelcnn-static", "right.resume", "right.precision", "fast.pixelcnn-7x7",
    "fast.dcgan", "numbers.gated-dynamic", "fast.sampling-others", "fast.graphs",
    "right.deterministic", "numbers.vae-static",
)  # fmt: skip
"""In order of worth; items that are not named come last."""
FOUND = {
    item.name: item
    for module in (accelerator_right, accelerator_fast, accelerator_numbers)
    for item in module.ITEMS
}
ITEMS: list[Item] = [FOUND[name] for name in dict.fromkeys((*ORDER, *FOUND))]
QUICK = (
    "right.samplers", "right.presets", "right.causality", "right.resume",
    "fast.rates", "fast.sampling-3x3", "fast.vae", "numbers.pixelcnn-static",
)  # fmt: skip
"""What --quick runs unless told otherwise: items of every kind, within two minutes."""
PACKAGES = "jax", "flax", "optax", "orbax.checkpoint", "jaxtyping", "sklearn", "scipy"
GRACE = 15.0
"""Seconds that an item may overrun before its process is ended."""
NO_DEVICE = 2


def chosen(only: Sequence[str]) -> list[Item]:
    """Items of those names, or of those groups."""
    if not only:
        return ITEMS
    return [item for item in ITEMS if {item.name, item.name.split(".")[0]} & set(only)]


def missing(items: Sequence[Item], data: Path | None, quick: bool) -> str:
    """What this machine lacks for these items, in one line; "" if nothing."""
    needs = {need for item in items for need in item.needs} if not quick else set()
    packages = [*PACKAGES, *(["torch"] if "torch" in needs else [])]
    lacks = [f"the package {name}" for name in packages if not _installed(name)]
    for name in sorted(needs - {"torch"}):
        file = accelerator_data.path(data, name) if data else None
        if file is None or not file.exists():
            lacks.append(f"{file or f'--data=FOLDER with mnist-{name}.npz'} (--prepare writes it)")
    return f"missing: {', '.join(lacks)}; --only leaves items out" if lacks else ""


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def work(asked: Any, items: Sequence[Item]) -> int:
    """The process that measures: runs the items that have no status yet."""
    record = Record(asked.out)
    if asked.quick:
        jax.config.update("jax_disable_most_optimizations", True)  # compiling takes most of it
    elif jax.default_backend() == "cpu":
        print("no accelerator: JAX sees a CPU alone (--quick runs there)", file=sys.stderr)
        return NO_DEVICE
    record.update(machine={**common.machine(), **_torch()})
    for item in items:
        if not skipped(item, asked.end, record):
            one(asked, item, record)
            if still_at_work():
                # Nothing ends a thread that compiles, and the next item must not be timed beside
                # it; `sys.exit` would wait for it.
                sys.stdout.flush()
                os._exit(0)
    return 0


def skipped(item: Item, end: float, record: Record) -> bool:
    """Whether too little time is left for an item, which is then recorded."""
    left = max(0.0, end - time.time())
    if left >= item.least:
        return False
    why = f"{left:.0f} s were left, and it needs {item.least:.0f}"
    record.item(item.name, status="skipped", why=why)
    print(f"{item.name}: skipped, {why}", flush=True)
    return True


def one(asked: Any, item: Item, record: Record) -> None:
    """Runs an item under its clock, and records how it ended."""
    context = Context(item, record, asked.data or Path(), asked.quick, asked.end)
    start = time.time()
    record.item(item.name, status="running", what=item.what, ends=int(context.end) + 1, found={})
    print(f"{item.name} (at most {context.left():.0f} s): {item.what}", flush=True)
    try:
        with alarm(context.left()):
            item.run(context)
        ended: dict[str, Any] = {"status": "done"}
    except TimeUp as error:
        ended = {"status": "time up", **told(error)}
    except Exception as error:
        ended = {"status": "failed", **told(error)}
    record.item(item.name, **ended, seconds=time.time() - start)
    print(
        f"    {ended['status']} in {time.time() - start:.0f} s {ended.get('error', '')}", flush=True
    )


def _torch() -> dict[str, str]:
    """PyTorch's version, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"torch": version("torch")}
    except PackageNotFoundError:
        return {}


def supervise(asked: Any, items: list[Item]) -> int:
    """Starts the measuring process, and another one when it hangs or dies, until all is done."""
    record, end = Record(asked.out), time.time() + 60 * asked.minutes
    names = [item.name for item in items]
    before = record.read() if asked.only else {"items": {}}
    kept = {k: v for k, v in before["items"].items() if k not in names}
    before.pop("machine", None)
    if "notes" in before:  # what is measured anew needs none
        before["notes"] = {k: v for k, v in before["notes"].items() if k not in names}
        before["spoiled"] = [name for name in before.get("spoiled", []) if name not in names]
    common.write(asked.out, {**before, "items": kept, "quick": asked.quick})
    with tempfile.TemporaryDirectory() as cache:
        while todo := _todo(items, record):
            if skipped(todo[0], end, record):
                continue
            # Items of other XLA flags wait for a process of their own.
            same = [*itertools.takewhile(lambda i, f=todo[0].flags: i.flags == f, todo)]
            code = _process(asked, same, end, cache, record)
            if code == NO_DEVICE:
                return code
            if not _close(record, code):
                if "machine" not in record.read():
                    print(f"the measuring process ended with {code}", file=sys.stderr)
                    return 1
                why = f"its process ended with {code} before it began"
                record.item(same[0].name, status="crashed", error=why)
    result = record.read()
    print(accelerator_table.summary(result))
    if not asked.quick and asked.out.parent == common.RESULTS:
        print(f"written to {asked.out}; --table puts it into RESULTS.md")
    return 0


def _todo(items: Sequence[Item], record: Record) -> list[Item]:
    found = record.read()["items"]
    return [item for item in items if "status" not in found.get(item.name, {})]


def _process(asked: Any, items: Sequence[Item], end: float, cache: str, record: Record) -> int:
    """Runs the items in a process, which is ended if one of them overruns; its exit status."""
    command = [sys.executable, __file__, "--work", f"--end={end}", f"--out={asked.out}"]
    command += ["--only", *(item.name for item in items)]
    command += [f"--data={asked.data}"] if asked.data else []
    command += ["--quick"] if asked.quick else []
    flags = " ".join(f for f in (os.environ.get("XLA_FLAGS", ""), items[0].flags) if f)
    # What a process has compiled, the next one need not; nothing is there before the first.
    env = {"JAX_COMPILATION_CACHE_DIR": cache, **os.environ}
    if flags and not asked.quick:  # a CPU's XLA need not know them
        env["XLA_FLAGS"] = flags
    with subprocess.Popen(command, env=env) as process:
        while process.poll() is None:
            time.sleep(0.2)
            running = _running(record)
            if running and time.time() > running[1] + GRACE:
                process.kill()
        return process.returncode


def _running(record: Record) -> tuple[str, float] | None:
    """The item under way, and when it must have ended."""
    for name, item in record.read()["items"].items():
        if item.get("status") == "running":
            return name, item["ends"]
    return None


def _close(record: Record, code: int) -> bool:
    """Says of an item that its process ended in how that was; False if no item had an end."""
    if running := _running(record):
        why = f"its process ended with {code}" if code != -9 else "it overran and was ended"
        record.item(running[0], status="crashed", error=why)
        print(f"    crashed: {why}", flush=True)
        return True
    return code == 0


def parse(argv: Sequence[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything, starting too")
    path = common.a_path
    parser.add_argument("--data", type=path, help="the folder that --prepare wrote")
    parser.add_argument("--only", nargs="+", default=[], help="names of items, or right, fast, …")
    parser.add_argument("--out", type=path, help="default: benchmarks/results/accelerator-CARD")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--list", action="store_true", help="run nothing, show the items")
    parser.add_argument("--prepare", type=path, metavar="FOLDER", help="write what must travel")
    parser.add_argument("--data_dir", help="--prepare: the TFDS folder (default: $TFDS_DATA_DIR)")
    parser.add_argument(
        "--table", action="store_true", help="run nothing, write RESULTS.md's table"
    )
    parser.add_argument("--check", action="store_true", help="run nothing, compare it")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--end", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main() -> int:
    asked = parse()
    items = chosen(asked.only or (QUICK if asked.quick else ()))
    if asked.table or asked.check:
        return accelerator_table.main(write=asked.table)
    if asked.prepare:
        for file in accelerator_data.prepare(asked.prepare, asked.data_dir):
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
        return 0
    if asked.list:
        lines = [f"{i.name:24s} at most {i.limit:3.0f} s  {i.what}" for i in items]
        print("\n".join(lines))
        return 0
    known = {item.name for item in ITEMS} | {item.name.split(".")[0] for item in ITEMS}
    if odd := set(asked.only) - known:
        print(f"--only: no item {', '.join(sorted(odd))}; see --list", file=sys.stderr)
        return 2
    if asked.work:
        return work(asked, items)
    if lacks := missing(items, asked.data, asked.quick):
        print(lacks, file=sys.stderr)
        return 2
    asked.out = (asked.out or common.RESULTS / f"accelerator-{_card()}.json").absolute()
    return supervise(asked, items)


def _card() -> str:
    """The card's short name, from a process of its own: this one holds no device."""
    code = "import jax; print(jax.devices()[0].device_kind)"
    words = common.python("-c", code).stdout.lower().replace("nvidia", "").split()
    return words[0] if words else "unknown"


if __name__ == "__main__":
    sys.exit(main())
