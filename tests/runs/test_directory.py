"""The run directory: one owner at a time, one configuration, and nobody else's files."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from jaxgen.errors import UserError
from jaxgen.runs import environment
from jaxgen.runs.directory import claim, difference, lock, read_run, write_run

RECORD = {"model": {"name": "vae", "width": 64, "dims": (8, 8)}, "train": {"steps": 10}}

HOLD = """
import sys, time
from jaxgen.runs.directory import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the run directory."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def contents(path):
    return {p.relative_to(path): p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


def test_lock_names_its_holder_and_dies_with_it(tmp_path, holder):
    with pytest.raises(UserError, match=rf"--run=.* is in use by .*pid {holder.pid}"):
        with lock(tmp_path / "run"):
            pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock(tmp_path / "run"):
        assert f"pid {os.getpid()}" in (tmp_path / "run" / ".holder").read_text()
        with pytest.raises(UserError, match="in use"):
            with lock(tmp_path / "run"):
                pass
    with lock(tmp_path / "run"):  # released at the end of the block
        pass


def test_claim_makes_then_resumes(tmp_path):
    run = tmp_path / "a" / "run"
    with lock(run):
        assert claim(run, RECORD) is None
        assert claim(run, RECORD) == read_run(run)
    assert read_run(run) == json.loads(json.dumps(RECORD))
    assert {p.name for p in run.iterdir()} == {".lock", ".holder", "run.json"}


def test_claim_survives_a_first_attempt_killed_before_run_json(tmp_path):
    with lock(tmp_path / "run"):
        (tmp_path / "run" / ".run.json.partial").write_text('{"form')
    with lock(tmp_path / "run"):
        assert claim(tmp_path / "run", RECORD) is None
        assert claim(tmp_path / "run", RECORD) is not None


def test_claim_refuses_another_configuration_and_changes_nothing(tmp_path):
    claim(tmp_path, RECORD)
    before = contents(tmp_path)
    other = {"model": {"name": "gan", "dims": (8, 8), "z": 4}, "train": {"steps": 10}}
    with pytest.raises(UserError) as caught:
        claim(tmp_path, other)
    lines = str(caught.value).splitlines()
    assert lines[1:-1] == [
        '  model.name: "vae" -> "gan"',
        "  model.width: 64 -> absent",
        "  model.z: absent -> 4",
    ]
    assert "choose another --run" in lines[-1]
    assert contents(tmp_path) == before


def test_claim_ignores_what_may_change_and_keeps_it_current(tmp_path):
    claim(tmp_path, {**RECORD, "environment": {"python": "3.11"}})
    longer = {**RECORD, "train": {"steps": 20}, "environment": {"python": "3.12"}}
    with pytest.raises(UserError, match=r"train\.steps: 10 -> 20"):
        claim(tmp_path, longer)
    assert claim(tmp_path, longer, ignore=("environment", "train.steps"))
    assert read_run(tmp_path)["train"] == {"steps": 20}
    with pytest.raises(UserError, match="train.steps_more"):
        more = {**RECORD, "train": {"steps": 20, "steps_more": 1}}
        claim(tmp_path, more, ignore=("environment", "train.steps"))


def steps(number):
    return {**RECORD, "train": {"steps": number}, "environment": number}


def test_a_number_grows_and_both_are_kept(tmp_path):
    grows = ("train.steps",)
    claim(tmp_path, steps(10), grows=grows)
    for more, before in ((20, 10), (20, 20), (40, 20)):
        assert claim(tmp_path, steps(more), grows=grows)["train"]["steps"] == before
    lines = ["train.steps: 10 -> 20", "train.steps: 20 -> 40"]
    assert read_run(tmp_path) == json.loads(json.dumps({**steps(40), "grown": lines}))
    claim(tmp_path, {**steps(40), "environment": "new"}, grows=grows)
    assert read_run(tmp_path)["grown"] == lines
    before = contents(tmp_path)
    other = {**steps(50), "model": {}}
    for wrong in (steps(20), steps(41.5), steps(True), other):
        with pytest.raises(UserError) as refused:
            claim(tmp_path, wrong, grows=grows)
    assert "train.steps" not in str(refused.value)
    with pytest.raises(UserError, match="train.steps: 40 -> 50"):
        claim(tmp_path, steps(50))
    assert contents(tmp_path) == before


def test_folders_for_files_are_named_before_anything_is_done(tmp_path):
    claim(tmp_path, RECORD)
    (tmp_path / "results.json").mkdir()
    (tmp_path / "samples").write_text("")
    before = contents(tmp_path)
    told = "results.json is a folder, and has to be a file; samples is a file, and has to be a"
    with pytest.raises(UserError, match=told):
        claim(tmp_path, RECORD)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("use", [lambda p: claim(p, RECORD), lambda p: lock(p)])
def test_foreign_directories_and_files_are_refused_untouched(tmp_path, use):
    def attempt(path):
        with use(path) or contextlib.nullcontext():
            pass

    (tmp_path / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"other files \(thesis.tex, no run.json\)"):
        attempt(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        attempt(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match="--run=.* cannot be used"):
        attempt(tmp_path / "thesis.tex" / "run")
    assert contents(tmp_path) == before


def test_a_failed_write_leaves_the_old_record(tmp_path, monkeypatch):
    write_run(tmp_path, RECORD)
    before = contents(tmp_path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="--run=.*No space left"):
        claim(tmp_path, {**RECORD, "environment": 1})
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no run.json"),
        ('{"format": 1, "model', "damaged or half written"),
        ("\x00\x00", "damaged or half written"),
        (
            '{"format": 99}',
            "has format 99, that of another version",
        ),
        ("{}", "has format None"),
        ("[]", "has format None"),
        ("[" * 100_000, "damaged or half written .it is nested too deeply"),
    ],
)
def test_read_run_says_what_is_wrong(tmp_path, text, message):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_run(tmp_path)


def test_read_run_of_no_directory(tmp_path):
    with pytest.raises(UserError, match="is not a directory"):
        read_run(tmp_path / "absent")


def test_data_that_changed_are_told_without_their_hashes(tmp_path):
    record = {"dataset": {"fingerprint": "0f" * 32, "protocol": "24 images"}}
    claim(tmp_path, record)
    other = {"dataset": {"fingerprint": "1e" * 32, "protocol": "23 images"}}
    with pytest.raises(UserError) as error:
        claim(tmp_path, other)
    told = [line.strip() for line in str(error.value).splitlines()[1:-1]]
    protocols = 'dataset.protocol: "24 images" -> "23 images"'
    assert told == ["dataset: the data have changed", protocols]


def test_difference():
    old = {"model": {"lr": 0.001, "same": [1, 2], "sub": {"x": 1}}, "gone": None}
    new = {"model": {"lr": 0.002, "same": [1, 2], "sub": 3}, "new": True}
    assert difference(old, new) == [
        "model.lr: 0.001 -> 0.002",
        'model.sub: {"x": 1} -> 3',
        "gone: null -> absent",
        "new: absent -> true",
    ]
    assert difference(old, old) == []


def test_environment_is_json_and_names_the_versions():
    import jax

    found = json.loads(json.dumps(environment.environment()))
    assert found["packages"]["jax"] == jax.__version__
    assert found["device_count"] == jax.device_count()
    assert found["command"] == sys.argv


def test_commit_only_of_a_checkout_that_tracks_the_package(tmp_path, monkeypatch):
    def git(*args):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *args], check=True, capture_output=True)

    module = tmp_path / "rundir.py"
    module.write_text("1")
    monkeypatch.setattr(environment, "__file__", str(module))
    assert environment._commit() is None
    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    assert environment._commit() is None
    git("add", "rundir.py")
    git("commit", "-m", "ours")
    assert len(environment._commit()) == 40
    module.write_text("2")
    assert environment._commit().endswith("-dirty")
