"""Cost of an image, and memory, as the data grows a hundred times; resident and streamed.

    python benchmarks/data.py [--images 1000] [--rounds 5] [--quick]

Resident data lies on the device and batches are gathered there; streamed data is a memory-mapped
file and every chunk is gathered on the host. Timed are the feed alone (a chunk, and each of its
batches gathered and summed) against the rate of copying memory, and the train step of a small VAE
that it feeds. Memory is measured in a fresh process for each size: anonymous memory, since the
pages of a mapped file are the system's to take back.
"""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.data.dataset import Dataset
from jaxgen.data.splits import Split
from jaxgen.parallel.mesh import WHOLE, data_parallel, make_mesh
from jaxgen.training import feed as feed_module

SPEC, BATCH = jaxgen.DataSpec(28, 28, 1, 2), 128
GROWTH = (1, 10, 100)
MODES = ("resident", "streamed")
COPY = "copy"
MODEL = jaxgen.VAE(SPEC, hidden=(100,), latents=10, dropout=0.0)


def mapped(directory: Path, num: int) -> Dataset:
    """Random images in a memory-mapped file, as the cache of a data set is."""
    path = directory / f"{num}.npy"
    if not path.exists():
        rng = np.random.default_rng(0)
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (num, *SPEC.shape))
        for start in range(0, num, 10_000):
            some = images[start : start + 10_000]
            some[:] = rng.integers(SPEC.levels, size=some.shape, dtype=np.uint8)
        images.flush()
    images = np.load(path, mmap_mode="r")
    return Dataset("synthetic", SPEC, {"train": Split.of(images, None)}, (), "", "random images")


class Mode:
    """Feeds made inside the block are resident, or are streamed, whatever the size."""

    def __init__(self, name: str) -> None:
        self.limit = 0 if name == "streamed" else 2**62

    def __enter__(self) -> None:
        self.before, feed_module.RESIDENT_BYTES = feed_module.RESIDENT_BYTES, self.limit

    def __exit__(self, *_: Any) -> None:
        feed_module.RESIDENT_BYTES = self.before


def feed_alone(dataset: Dataset, mode: str) -> common.Run:
    """Chunks, and each of their batches gathered and summed; a unit is one image."""
    mesh, done = make_mesh(1), 0
    with Mode(mode):
        feed = feed_module.Feed(dataset, 0, BATCH, mesh, common.CAPACITY)

    def gather(chunk: Any) -> Any:
        def add(i: Any, total: Any) -> Any:
            return total + feed.batch(chunk, i)["x"].sum(dtype=jnp.uint32)

        return jax.lax.fori_loop(0, common.CAPACITY, add, jnp.uint32(0))

    consume = data_parallel(gather, mesh, (feed.specs,), WHOLE)

    def run(count: int) -> None:
        nonlocal done
        for _ in range(count):
            consume(feed.chunk(done, common.CAPACITY)).block_until_ready()
            done += common.CAPACITY * BATCH

    return run


def training(dataset: Dataset, mode: str) -> common.Run:
    """Train steps of the VAE; a unit is one chunk of steps."""
    with Mode(mode):
        steps = common.steps_of(MODEL, dataset, make_mesh(1), BATCH)
    return lambda count: steps(count * common.CAPACITY)


WHAT = {"feed": feed_alone, "train step": training}


def whole_epochs(run: common.Run, chunks: int) -> Any:
    """Seconds per image of `chunks` chunks, enough to pass once through the largest data: an
    epoch's permutation is paid for by its images."""
    run(1)

    def timed() -> float:
        start = time.perf_counter()
        run(chunks)
        return (time.perf_counter() - start) / (chunks * common.CAPACITY * BATCH)

    return timed


def measure(directory: Path, sizes: list[int], rounds: int, quick: bool) -> list[dict]:
    """A row for each of: what, mode, size."""
    chunks = -(-max(sizes) // (common.CAPACITY * BATCH))
    product, unit = common.copy(quick)
    rows = []
    for what, make in WHAT.items():
        sides = {
            f"{mode} {num}": whole_epochs(make(mapped(directory, num), mode), chunks)
            for mode in MODES
            for num in sizes
        }
        sides[COPY] = common.block(product, 0.1)
        times = common.alternate(sides, rounds)
        for mode in MODES:
            for num in sizes:
                each = times[f"{mode} {num}"]
                # An image is read once and written once.
                of_limit = common.share(2.0 * SPEC.dims, {**times, "ours": each}, COPY, unit)
                rows.append({
                    "what": what, "mode": mode, "images": num, "image_s": common.spread(each),
                    "over_smallest": common.ratio(each, times[f"{mode} {sizes[0]}"]),
                    "copy_gb_s": unit / common.spread(times[COPY])["median"] / 1e9,
                    "share_of_copy": of_limit,
                })  # fmt: skip
    return rows


# Memory, each in a process of its own.


def anonymous() -> int:
    """Bytes of this process's memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon")


def remember(directory: Path, mode: str, num: int, chunks: int) -> None:
    """Prints the largest anonymous memory of training, and that of the data on the device."""
    largest, over = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not over.wait(0.005):
            largest = max(largest, anonymous())

    run = training(mapped(directory, num), mode)
    run(1)
    watcher = threading.Thread(target=watch)
    watcher.start()
    run(chunks)
    over.set()
    watcher.join()
    resident = num * SPEC.dims if mode == "resident" else 0
    print(json.dumps({"peak": largest, "data_on_device": resident}))


def memory(directory: Path, sizes: list[int], quick: bool) -> list[dict]:
    rows = []
    for mode in MODES[1:] if quick else MODES:
        for num in sizes:
            mapped(directory, num)
            args = ["--memory", str(directory), mode, str(num), "1" if quick else "5"]
            found = json.loads(common.python(__file__, *args).stdout.splitlines()[-1])
            rows.append({"mode": mode, "images": num, **found})
    return rows


def targets_of(rows: list[dict], remembered: list[dict]) -> list[dict]:
    targets = []
    for row in rows:
        if row["images"] != max(r["images"] for r in rows):
            continue
        name = f"{row['what']}, {row['mode']}"
        shown = f"{common.span(row['image_s'], 1e6)} µs/image"
        flat = "<= 1.1" if row["what"] == "train step" else ""
        task = f"{name}: cost of an image, {row['images']:,} images"
        smallest = min(r["images"] for r in rows)
        peer = f"the same with {smallest:,}"
        targets.append(common.target(task, shown, peer, row["over_smallest"], flat))
        if row["what"] == "feed":
            limit = f"copying memory, {row['copy_gb_s']:.3g} GB/s"
            targets.append(common.target(f"{name}: bytes/s", shown, limit, row["share_of_copy"]))
    for mode in dict.fromkeys(r["mode"] for r in remembered):
        some = [r for r in remembered if r["mode"] == mode]
        few, many = some[0], some[-1]
        # Resident data may take its own size, no more (less, where the device maps the file).
        allowed = few["peak"] + many["data_on_device"] - few["data_on_device"]
        exact = dict.fromkeys(("median", "min", "max"), many["peak"] / allowed)
        task = f"memory, {mode}, {many['images']:,} images"
        peer = f"the same with {few['images']:,}" + " and the data" * (mode == "resident")
        ours, theirs = (f"{b / 1e6:.0f} MB" for b in (many["peak"], allowed))
        targets.append(common.target(task, ours, f"{peer}, {theirs}", exact, "<= 1.1"))
    return targets


def draw(figure: Any, rows: list[dict]) -> None:
    """Microseconds per image against the number of images."""
    panels = figure.subplots(1, len(WHAT))
    for axes, what in zip(panels, WHAT, strict=True):
        for mode in MODES:
            some = [r for r in rows if (r["what"], r["mode"]) == (what, mode)]
            middle, low, high = (
                [1e6 * r["image_s"][k] for r in some] for k in ("median", "min", "max")
            )
            x = [r["images"] for r in some]
            axes.plot(x, middle, marker="o", label=mode)
            axes.fill_between(x, low, high, alpha=0.2)
        axes.set(title=what, xlabel="images in the train split", xscale="log")
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("µs per image")
    panels[0].legend()


def shown(row: dict) -> dict[str, str]:
    return {
        row["what"]: f"{row['mode']}, {row['images']:,} images",
        "µs/image (min..max)": common.span(row["image_s"], 1e6),
        "images/s": f"{1 / row['image_s']['median']:,.0f}",
        "time / smallest": common.span(row["over_smallest"]),
        "of copy rate": common.span(row["share_of_copy"]),
    }


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        directory, mode, num, chunks = sys.argv[2:]
        return remember(Path(directory), mode, int(num), int(chunks))
    parser = common.arguments(__doc__, "data")
    parser.add_argument("--images", type=int, default=1000, help="of the smallest data")
    asked = common.parse(parser)
    if asked.quick:
        asked.images = BATCH
    sizes = [asked.images * n for n in (GROWTH[:2] if asked.quick else GROWTH)]
    with tempfile.TemporaryDirectory() as directory:
        rows = measure(Path(directory), sizes, asked.rounds, asked.quick)
        remembered = memory(Path(directory), sizes, asked.quick)
    for what in WHAT:
        print(common.table([shown(r) for r in rows if r["what"] == what]) + "\n")
    megabytes = [{**r, "peak": f"{r['peak'] / 1e6:.0f} MB"} for r in remembered]
    print(common.table(megabytes))
    targets = targets_of(rows, remembered)
    common.finish(asked, rows, targets, lambda f: draw(f, rows), memory=remembered)


if __name__ == "__main__":
    main()
