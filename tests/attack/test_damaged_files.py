"""Files of a run, a cache, a data folder and the codec, damaged in every way: what was asked for is
done, or refused in words, without a traceback. What a damaged cache or checkpoint is replaced by is
tested where they are."""

import shutil

import numpy as np
import pytest

from jaxgen.cli import main
from jaxgen.media.pictures import save_png


def _bit(data, rng):
    at = int(rng.integers(len(data)))
    return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]


DAMAGES = {
    "empty": lambda data, rng: b"",
    "half": lambda data, rng: data[: len(data) // 2],
    "a byte short": lambda data, rng: data[:-1],
    "a bit": _bit,
    "zeros": lambda data, rng: bytes(len(data)),
    "noise": lambda data, rng: rng.integers(256, size=max(len(data), 1), dtype=np.uint8).tobytes(),
    "more": lambda data, rng: data + b"\0more",
    "text": lambda data, rng: b"caf\xe9 {[\n",
    "null": lambda data, rng: b"null",
    "deep": lambda data, rng: b"[" * 100_000,
}


def damaged(path, how, rng):
    """The file in that way; two more ways are to be a folder, and not to be."""
    data = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes(DAMAGES[how](data or b"x", rng))


WAYS = (*DAMAGES, "a folder", "gone")
FEW = 3
MANY = pytest.param(100, marks=pytest.mark.slow)
"""Damages that a test does; together three hundred, in the slow tests."""
few_and_many = pytest.mark.parametrize("num", [FEW, MANY])


@pytest.fixture
def ends_in_words(capfd):
    """What code `main` ends with: 0, 1 or 2, without a traceback."""

    def ends(argv):
        capfd.readouterr()
        try:
            main.main(argv)
        except SystemExit as stopped:
            told = "".join(capfd.readouterr())
            assert stopped.code in (1, 2) and told.strip() and "Traceback" not in told, argv
            return stopped.code
        return 0

    return ends


TRAIN = (
    *("train", "--model=made", "--made.hidden=4", "--made.random_orders=0", "--steps=4"),
    *("--eval_every=2", "--log_every=2", "--samples=50", "--devices=1"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("damage") / "run"
    main.main([*TRAIN, f"--run={path}"])
    return path


def contents(folder, patterns):
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path: path.read_bytes() for path in paths}


def attack(num, whole, tmp_path, commands, ends_in_words, seed):
    """Damages a file of a copy of the folder, and runs each command, which `ends_in_words` and
    leaves every other file of its patterns as it was."""
    rng = np.random.default_rng(seed)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    for i in range(num):
        copy = tmp_path / str(i)
        shutil.copytree(whole, copy)
        name, how = files[int(rng.integers(len(files)))], WAYS[i % len(WAYS)]
        damaged(copy / name, how, rng)
        for command, patterns in commands:
            before = contents(copy, patterns)
            ends_in_words(command(copy))
            after = contents(copy, patterns)
            # What is damaged, with the checkpoint that it belongs to, may be made again.
            of = name.parts[:2] if name.parts[0] == "checkpoints" else name.parts
            lost = [p for p in before if after.get(p) != before[p]]
            assert all(copy.joinpath(*of) in (p, *p.parents) for p in lost), (name, how, lost)
        shutil.rmtree(copy)


@few_and_many
def test_a_run(num, run, tmp_path, ends_in_words, monkeypatch):
    """Sampling from it, and training it on."""
    monkeypatch.chdir(tmp_path)
    commands = [
        (lambda copy: ["sample", f"--run={copy}", f"--out={copy}.png", "--num=2"], ["**/*"]),
        (lambda copy: [*TRAIN, f"--run={copy}"], ["checkpoints/**/*", "metrics.jsonl"]),
    ]
    attack(num, run, tmp_path, commands, ends_in_words, 0)


@few_and_many
def test_a_folder_of_data_and_its_cache(num, tmp_path, ends_in_words, monkeypatch):
    """Training on it."""
    whole, rng = tmp_path / "whole", np.random.default_rng(0)
    for label in ("0", "1"):
        (whole / "pictures" / label).mkdir(parents=True)
        for i in range(30):
            picture = rng.integers(256, size=(8, 8, 1), dtype=np.uint8)
            save_png(whole / "pictures" / label / f"{i}.png", picture)

    def command(copy):
        data = [f"--data_dir={copy / 'pictures'}", f"--cache_dir={copy / 'cache'}"]
        run = copy.parent / f"{copy.name}-run"
        shutil.rmtree(run, ignore_errors=True)
        from_folder = [*TRAIN, "--dataset=folder", "--size=4", "--grey", "--batch_size=10"]
        return [*from_folder, *data, f"--run={run}"]

    monkeypatch.setattr("jaxgen.cli.train.finish_seeds", lambda *args: None)
    assert ends_in_words(command(whole)) == 0
    attack(num, whole, tmp_path, [(command, ["pictures/**/*"])], ends_in_words, 1)


@few_and_many
def test_a_compressed_file(num, run, tmp_path, ends_in_words):
    """It is refused, or what comes back is what was compressed: there is nothing in between."""
    whole = tmp_path / "whole"
    whole.mkdir()
    first = ["compress", f"--run={run}", f"--out={whole / 'x.jxg'}", "--no_verify"]
    assert ends_in_words(first) == 0
    decompress = ["decompress", f"--run={run}", f"--file={whole / 'x.jxg'}"]
    assert ends_in_words([*decompress, f"--out={tmp_path / 'right.npz'}"]) == 0
    right = np.load(tmp_path / "right.npz")["x"]

    def command(copy):
        return [
            *("decompress", f"--run={run}", f"--file={copy / 'x.jxg'}"),
            f"--out={copy.parent / copy.name}.npz",
        ]

    attack(num, whole, tmp_path, [(command, ["**/*"])], ends_in_words, 2)
    for path in tmp_path.glob("*.npz"):
        np.testing.assert_array_equal(np.load(path)["x"], right)
