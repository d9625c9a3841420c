"""When a run goes back to its best checkpoint, by what its checkpoints hold."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from jaxgen.runs.state import start
from jaxgen.training.rollback import rolled_back


class Kept:
    """Checkpoints of which the best is known, and may be damaged."""

    def __init__(self, best, monitor, found):
        self._best, self._monitor, self._found = best, monitor, found

    def best(self):
        return self._best

    def monitor(self, step):
        assert step == self._best
        return self._monitor

    def restore(self, progress, which):
        assert which == "best"
        return start({"w": jnp.ones(())}), self._found


def back(now, lowest=2.0, times=3.0, since=0, best=5, found=5):
    """The state that is gone on from, None = the present one; and what is said."""
    said = []
    run = SimpleNamespace(
        checkpoints=Kept(best, lowest, found),
        log=SimpleNamespace(say=said.append),
        run=SimpleNamespace(model=SimpleNamespace(monitor="nll")),
        seed=4,
    )
    present = start({"w": jnp.zeros(())}).replace(step=jnp.int32(9))
    then = rolled_back(run, present, 9, now, times, since)
    if then is None:
        assert not said
        return None
    assert int(then.step) == 9, "the clock goes on"
    assert len(said) == 1 and "at step 5: seed 4 goes on from there" in said[0]
    return float(then.state["w"])


@pytest.mark.parametrize(("now", "lowest", "goes"), [
    (5.9, 2.0, False), (6.1, 2.0, True), (float("nan"), 2.0, True), (float("inf"), 2.0, True),
    # Of a best of -3, twice its size above it.
    (2.9, -3.0, False), (3.1, -3.0, True), (-8.0, -3.0, False),
])  # fmt: skip
def test_it_goes_back_from_what_is_so_many_times_as_far(now, lowest, goes):
    assert back(now, lowest) == (1.0 if goes else None)


def test_there_is_somewhere_to_go_back_to():
    assert back(99.0) == 1.0
    assert back(99.0, times=0.0) is None
    assert back(99.0, best=None) is None
    assert back(99.0, since=4) == 1.0
    assert back(99.0, since=5) is None, "the best is of another model"
    assert back(99.0, found=3) is None, "the best is damaged, and an older one is no better"
