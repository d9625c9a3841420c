"""Checkpoints: what is kept, what is trusted, and what happens when the disk lies or is full."""

import contextlib
import errno
import gc
import resource
import shutil
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxgen.errors import UserError
from jaxgen.runs import kept
from jaxgen.runs.checkpoint import Checkpoints, NoCheckpoint
from jaxgen.runs.digest import digest, leaf_table

# Orbax abandons coroutines when a file is damaged or a write fails; they complain when collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """What was there before is not looked through by every collection of these tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def collect_here():
    yield
    gc.collect()


class Pair(NamedTuple):
    g: Any
    d: Any


@flax.struct.dataclass
class Counter:
    count: Any


def make_state(seed: int = 0, width: int = 64, dtype=jnp.float32) -> dict:
    params = {"w": jax.random.normal(jax.random.key(seed), (width, 64), dtype)}
    return {
        "nets": Pair(params, {"b": jnp.full(3, seed, jnp.bfloat16)}),
        "opt": optax.adam(1e-3).init(params),
        "counter": Counter(jnp.int32(seed)),
        "key": jax.random.key(seed),
    }


@pytest.fixture
def said():
    return []


@pytest.fixture
def open_(tmp_path, said):
    """Opens the checkpoints of one run, again and again, and closes them at the end."""
    opened = []

    def open_(**options):
        for earlier in opened:
            earlier.close()
        opened.append(Checkpoints(tmp_path / "checkpoints", say=said.append, **options))
        return opened[-1]

    yield open_
    opened[-1].close()


def save_all(checkpoints: Checkpoints, monitors: dict[int, float | None]) -> None:
    for step, monitor in monitors.items():
        assert checkpoints.save(step, make_state(step), monitor)
    assert checkpoints.wait()


def largest(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_bit(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def entries(directory) -> set[str]:
    return {p.name for p in directory.iterdir()}


def test_digest_sees_path_dtype_shape_and_bytes():
    base = {"a": jnp.zeros((2, 3))}
    others = [
        {"b": jnp.zeros((2, 3))},
        {"a": jnp.zeros((3, 2))},
        {"a": jnp.zeros((2, 3), jnp.int32)},
        {"a": jnp.zeros((2, 3)).at[1, 2].set(1e-30)},
        {"a": -jnp.zeros((2, 3))},
    ]
    digests = {digest(tree) for tree in [base, *others]}
    assert len(digests) == 1 + len(others)
    assert digest({"a": np.zeros((2, 3), np.float32)}) == digest(base)
    assert digest(jax.random.key(1)) != digest(jax.random.key(2))


def test_round_trip_keeps_structure_bits_and_placement(open_):
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    replicated = NamedSharding(mesh, PartitionSpec())
    make = jax.jit(make_state, static_argnums=0, out_shardings=replicated)
    saved, fresh = make(3), make(0)
    checkpoints = open_()
    checkpoints.save(7, saved)
    restored, step = checkpoints.restore(fresh)
    assert step == 7
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    assert digest(restored) == digest(saved)
    assert leaf_table(restored) == leaf_table(fresh)
    assert all(x.sharding == replicated for x in jax.tree.leaves(restored["nets"]))
    assert jax.random.bits(restored["key"]) == jax.random.bits(jax.random.key(3))


def test_restore_into_shapes_alone(open_):
    checkpoints = open_()
    save_all(checkpoints, {1: None})
    restored, _ = checkpoints.restore(jax.eval_shape(lambda: make_state()))
    assert digest(restored) == digest(make_state(1))


def test_keeps_the_latest_two_and_the_best_also_when_reopened(open_):
    checkpoints = open_()
    save_all(checkpoints, {1: 0.5, 2: 0.1, 3: 0.9, 4: float("nan"), 5: None, 6: float("-inf")})
    assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([2, 5, 6], 6, 2)
    checkpoints = open_()
    save_all(checkpoints, {7: 0.3})
    assert (checkpoints.steps(), checkpoints.best()) == ([2, 6, 7], 2)
    assert checkpoints.restore(make_state(), "best")[1] == 2
    save_all(checkpoints, {8: 0.05})
    assert (checkpoints.steps(), checkpoints.best()) == ([7, 8], 8)
    assert entries(checkpoints.directory) == {"7", "8"}


@pytest.mark.parametrize("sign", [1, -1])
def test_a_later_one_within_the_slack_is_the_best(open_, sign):
    """What it is measured by is kept beside it, so that slack never adds up."""

    def save(checkpoints, monitors):
        for step, above in monitors.items():
            assert checkpoints.save(step, make_state(step), sign + above, slack=0.05)
        checkpoints.wait()
        return checkpoints.steps(), checkpoints.best()

    checkpoints = open_()
    assert save(checkpoints, {1: 0.0, 2: 0.04, 3: 0.07, 4: 0.2, 5: 0.3}) == ([1, 2, 4, 5], 2)
    checkpoints = open_()
    assert (checkpoints.steps(), checkpoints.best()) == ([1, 2, 4, 5], 2)
    assert save(checkpoints, {6: -0.02}) == ([5, 6], 6)


def test_a_stop_costs_no_planned_checkpoint_its_place(open_):
    """What is kept is what a run that was never stopped keeps, and where it is stopped last."""
    checkpoints = open_()
    save_all(checkpoints, {10: 0.1, 20: 0.3, 30: 0.2})
    for stop in (33, 37):
        assert checkpoints.save(stop, make_state(stop), planned=False) and checkpoints.wait()
        assert checkpoints.steps() == [10, 20, 30, stop]
        checkpoints = open_()
        assert checkpoints.restore(make_state())[1] == stop
    save_all(checkpoints, {40: 0.2})
    assert checkpoints.steps() == [10, 30, 40]
    assert entries(checkpoints.directory) == {"10", "30", "40"}


def test_notes_come_back_with_their_step(open_):
    checkpoints = open_()
    notes = {"sums": {"loss": [0.1 + 0.2, 3]}, "skipped": 0}
    checkpoints.save(1, make_state(1), notes=notes)
    checkpoints.save(2, make_state(2))
    checkpoints = open_()
    assert checkpoints.notes(1) == notes and checkpoints.notes(2) is None


def test_a_kill_before_the_clearing_up(open_, monkeypatch):
    checkpoints = open_()
    with monkeypatch.context() as patch:
        patch.setattr(kept, "LATEST", 9)  # nothing is removed
        save_all(checkpoints, {1: 0.1, 2: 0.4, 3: 0.3, 4: 0.2})
    assert open_(read_only=True).steps() == [1, 2, 3, 4]
    assert open_().steps() == [1, 3, 4]
    assert entries(checkpoints.directory) == {"1", "3", "4"}


def test_what_is_kept_is_told_in_words(open_):
    checkpoints = open_()
    assert checkpoints.told() == f"no checkpoint was saved in {checkpoints.directory}"
    checkpoints.save(5, make_state(5))
    assert "of step 5, is kept in" in checkpoints.told()


def test_a_step_is_not_saved_twice_nor_below_the_latest(open_, said):
    checkpoints = open_()
    save_all(checkpoints, {2: None, 4: None})
    assert not checkpoints.save(4, make_state(9))
    assert said == []
    assert not checkpoints.save(3, make_state(9))
    assert said == ["checkpoint 3 is not saved: there is a later one, 4"]
    assert checkpoints.wait()
    assert digest(checkpoints.restore(make_state())[0]) == digest(make_state(4))


def test_state_donated_right_after_save(open_):
    @jax.jit
    def fresh():
        return jnp.zeros((1024, 1024)), jnp.int32(0)

    step = jax.jit(lambda s: (s[0] + 1, s[1] + 1), donate_argnums=0)
    control = fresh()
    step(control)
    assert control[0].is_deleted()  # so a donated buffer is reused here, if nothing holds it
    checkpoints, state, wanted = open_(), fresh(), {}
    for i in range(1, 5):
        state = step(state)
        wanted[i] = digest(state)
        checkpoints.save(i, state)
        for _ in range(3):
            state = step(state)
    for i in (3, 4):
        assert digest(checkpoints.restore(fresh(), i)[0]) == wanted[i]


def test_restored_buffers_can_be_donated_and_restored_again(open_):
    checkpoints = open_()
    save_all(checkpoints, {1: None})
    first, _ = checkpoints.restore(make_state())
    jax.jit(lambda w: w * 2, donate_argnums=0)(first["nets"].g["w"])
    assert digest(checkpoints.restore(make_state())[0]) == digest(make_state(1))


def test_bit_flip_is_found_where_orbax_alone_is_silent(open_, said):
    checkpoints = open_()
    save_all(checkpoints, {1: None, 2: None})
    flip_a_bit(largest(checkpoints.directory / "2" / "state"))

    fresh = make_state()
    with ocp.CheckpointManager(checkpoints.directory) as plain:
        args = ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, fresh))
        wrong = plain.restore(2, args=ocp.args.Composite(state=args)).state
    assert digest(wrong) != digest(make_state(2))

    restored, step = open_().restore(fresh)
    assert (step, digest(restored)) == (1, digest(make_state(1)))
    assert "checkpoint 2 is unusable" in said[0] and "digest mismatch" in said[0]
    assert said[1:] == ["checkpoint 1 is used instead"]
    assert [n.startswith("corrupt-2-") for n in sorted(entries(checkpoints.directory))] == [0, 1]


def truncate(directory):
    path = largest(directory)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_meta(directory):
    path = directory / "meta" / "metadata"
    path.write_text(path.read_text().replace("float32", "float64"))


DAMAGES = {
    "truncated": truncate,
    "deleted": lambda directory: largest(directory).unlink(),
    "flipped bit in the record": damage_meta,
    "no record": lambda directory: shutil.rmtree(directory / "meta"),
    "emptied": lambda directory: (shutil.rmtree(directory), directory.mkdir()),
    "copy of another step": lambda directory: (
        shutil.rmtree(directory),
        shutil.copytree(directory.parent / "1", directory),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_falls_back_and_the_step_can_be_saved_again(name, open_, said):
    checkpoints = open_()
    save_all(checkpoints, {1: 0.5, 2: 0.1})
    DAMAGES[name](checkpoints.directory / "2")
    checkpoints = open_()
    assert checkpoints.restore(make_state(), "best")[1] == 1
    assert "checkpoint 2 is unusable" in said[0]
    save_all(checkpoints, {2: 0.1})
    assert checkpoints.restore(make_state())[1] == 2


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "null", "5", '["x"]', '{"commit_timestamp_nsecs": "x"}',
             '{"commit_timestamp_nsecs": 1' + "0" * 40 + "}"]
)  # fmt: skip
def test_no_record_of_orbax_keeps_it_from_opening_the_others(text, open_, said):
    """Of every step there is one, which Orbax reads when it opens."""
    checkpoints = open_()
    save_all(checkpoints, {1: None, 2: None})
    path = checkpoints.directory / "2" / "_CHECKPOINT_METADATA"
    assert path.exists()
    path.write_text(text)
    for read_only in (True, False):
        restored, step = open_(read_only=read_only).restore(make_state())
        assert digest(restored) == digest(make_state(step))
        assert bool(said) == (step == 1)


def test_leftovers_do_not_matter(open_, said):
    save_all(open_(), {1: 0.1})
    checkpoints = open_()
    checkpoints.close()
    (checkpoints.directory / "99").mkdir()
    (checkpoints.directory / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    checkpoints = open_()
    assert not (checkpoints.directory / "2.orbax-checkpoint-tmp").exists()
    assert (checkpoints.latest(), checkpoints.best()) == (1, 1)
    save_all(checkpoints, {2: 0.2})
    assert checkpoints.restore(make_state())[1] == 2
    assert len(said) == 2 and "checkpoint 99 is unusable" in said[0]


def test_read_only_changes_nothing(open_, said, tmp_path):
    save_all(open_(), {1: 0.1, 2: 0.2})
    checkpoints = open_(read_only=True)
    flip_a_bit(largest(checkpoints.directory / "2"))
    (checkpoints.directory / "99").mkdir()
    (checkpoints.directory / "3.orbax-checkpoint-tmp").mkdir()  # perhaps a save under way
    before = {p: p.stat().st_mtime_ns for p in checkpoints.directory.rglob("*")}
    checkpoints = open_(read_only=True)
    assert checkpoints.restore(make_state())[1] == 1
    assert checkpoints.restore(make_state(), "best")[1] == 1
    assert {p: p.stat().st_mtime_ns for p in checkpoints.directory.rglob("*")} == before
    assert any("checkpoint 2 is unusable" in line for line in said)

    absent = Checkpoints(tmp_path / "absent", say=said.append, read_only=True)
    with pytest.raises(NoCheckpoint):
        absent.restore(make_state())
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"width": 32}, ["['w']: float32[64, 64] -> float32[32, 64]", "and 1 more"]),
        ({"dtype": jnp.bfloat16}, ["['w']: float32[64, 64] -> bfloat16[64, 64]"]),
    ],
)
def test_another_configuration_is_refused_not_repaired(other, names, open_):
    checkpoints = open_()
    save_all(checkpoints, {1: 0.1, 2: 0.2})
    with pytest.raises(UserError, match="belongs to another configuration") as caught:
        checkpoints.restore({**make_state(**other), "more": jnp.zeros(2), "many": jnp.zeros(1)})
    assert not isinstance(caught.value, NoCheckpoint)
    assert names[0] in str(caught.value)
    assert entries(checkpoints.directory) == {"1", "2"}
    with pytest.raises(UserError, match=r"\['more'\]: absent -> float32\[2\]"):
        checkpoints.restore({**make_state(), "more": jnp.zeros(2)})


def test_nothing_usable(open_, said):
    checkpoints = open_()
    with pytest.raises(NoCheckpoint, match="no usable checkpoint"):
        checkpoints.restore(make_state())
    save_all(checkpoints, {1: None})
    with pytest.raises(NoCheckpoint, match=r"no checkpoint 5 \(usable steps: \[1\]\)"):
        checkpoints.restore(make_state(), 5)
    assert checkpoints.restore(make_state(), "best")[1] == 1
    assert "none is the best" in said[0]
    flip_a_bit(largest(checkpoints.directory / "1"))
    with pytest.raises(NoCheckpoint, match="usable steps: none"):
        checkpoints.restore(make_state())


@pytest.fixture
def small_files():
    """Makes writing beyond 64 kB into a file fail, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return small_files


@pytest.mark.parametrize("told_by", ["wait", "save"])
def test_a_save_that_fails_in_the_background(told_by, open_, said, small_files):
    checkpoints = open_()
    save_all(checkpoints, {1: 0.1, 2: 0.2, 3: 0.3})
    large = {"w": jax.random.normal(jax.random.key(0), (1024, 256))}
    with small_files():
        assert checkpoints.save(4, large, 0.01)  # Orbax finds out later
        if told_by == "wait":
            assert not checkpoints.wait()
        else:
            assert checkpoints.save(5, make_state(5), 0.5)
            assert checkpoints.wait()
    assert len(said) == 1 and "checkpoint 4 could not be saved" in said[0]
    after = [1, 2, 3] if told_by == "wait" else [1, 3, 5]
    assert entries(checkpoints.directory) == set(map(str, after))
    assert (checkpoints.steps(), checkpoints.best()) == (after, 1)
    save_all(checkpoints, {6: 0.6})
    assert checkpoints.restore(make_state())[1] == 6
    assert checkpoints.restore(make_state(), "best")[1] == 1


def test_a_save_that_fails_at_once(open_, said, monkeypatch):
    checkpoints = open_()
    save_all(checkpoints, {1: 0.1, 2: 0.2, 3: 0.3})

    def full(*_, **__):
        (checkpoints.directory / "4.orbax-checkpoint-tmp").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", full)
        assert not checkpoints.save(4, make_state(4), 0.01)
    assert not checkpoints.wait()
    assert "checkpoint 4 could not be saved" in said[0] and "No space left" in said[0]
    assert entries(checkpoints.directory) == {"1", "2", "3"}
    assert (checkpoints.steps(), checkpoints.best()) == ([1, 2, 3], 1)
    save_all(checkpoints, {5: 0.5})
    assert checkpoints.steps() == [1, 3, 5]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--run"):
        Checkpoints(tmp_path / "file" / "checkpoints")
