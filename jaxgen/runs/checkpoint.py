"""Checkpoints that are verified: Orbax writes them, our own sha256 says whether to trust them.

Orbax makes a save atomic and asynchronous, but stores no checksum of the array data (a flipped
bit is restored silently), casts silently to the target's dtype, and lists an empty directory as
a step. So every checkpoint carries a digest of its state and a table of its leaves, and a
restore walks from the newest checkpoint back until one verifies.
"""

import datetime
import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.errors import UserError
from jaxgen.runs.digest import check, digest, leaf_table, mismatch
from jaxgen.runs.kept import Kept, Saved


class NoCheckpoint(UserError):
    """There is no checkpoint, or none that can be trusted."""


class Checkpoints:
    """The checkpoints of one run: the latest two planned ones, the best one, and the newest.

    `say` is told, in one line, of every save that failed and every checkpoint that cannot be
    used. With `read_only` nothing in the directory is created, renamed or removed, so that a
    run can be sampled from while it trains; otherwise damaged checkpoints are renamed to
    `corrupt-<step>-<ns>` and leftovers of interrupted saves are removed.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        say: Callable[[str], None] = warnings.warn,
        read_only: bool = False,
    ) -> None:
        import orbax.checkpoint as ocp

        logging.getLogger("absl").addFilter(_not_orbax)
        self.directory = Path(os.path.abspath(directory))
        self._ocp, self._say, self._read_only = ocp, say, read_only
        self._pending: int | None = None
        self._safe, self._kept = True, Kept()
        if not read_only:
            self._remove_partial()
        # Not Orbax's own read_only, which warns of itself: what never saves writes nothing.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._kept, create=not read_only,
            step_name_format=_Undated(ocp.path.step.standard_name_format()),
        )  # fmt: skip
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise UserError(
                f"--run: {self.directory} cannot be used for checkpoints ({error}); "
                "choose a directory that can be written to"
            ) from error
        self._scan()
        if not read_only:
            self._remove_spare()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps that have a readable checkpoint, ascending."""
        return sorted(k for k in self._manager.all_steps() if k in self._kept.saved)

    def latest(self) -> int | None:
        """The newest step, if there is one."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The latest step within the slack of the lowest monitor, if a step has a finite one."""
        return self._kept.best(self.steps())

    def monitor(self, step: int) -> float:
        """What selects the best of a step that `best` named; lower is better."""
        monitor = self._kept.saved[step].monitor
        assert monitor is not None, f"step {step} has no monitor"
        return monitor

    def save(
        self,
        step: int,
        state: Any,
        monitor: float | None = None,
        *,
        slack: float = 0.0,
        notes: Any = None,
        planned: bool = True,
    ) -> bool:
        """Starts to save `state`, and returns whether it did.

        The state's buffers may be donated as soon as this returns; the disk is written in the
        background. A step is never saved twice. A failure is told to `say`, now or at the next
        `save` or `wait`, and leaves the earlier checkpoints as they were.
        `monitor` (lower is better; None or not finite: never the best) selects the best one: a
        later one that is above it by a share of no more than `slack` is taken.
        `notes` is JSON to be kept beside the state. What is not `planned`, but saved because the
        run is stopped, is kept while it is the newest, and costs no other its place: the planned
        ones that are kept are those of a run that was never stopped.
        """
        self.wait()
        latest = self.latest()
        if latest is not None and step <= latest:
            if step not in self.steps():
                self._say(f"checkpoint {step} is not saved: there is a later one, {latest}")
            return False
        monitor = float(monitor) if monitor is not None and math.isfinite(monitor) else None
        try:
            self._kept.saved[step] = saved = Saved(monitor, planned, slack)
            meta: dict[str, Any] = {"step": step, **saved._asdict(), "notes": notes}
            meta |= {"sha256": digest(state), "leaves": leaf_table(state)}
            self._manager.save(
                step,
                args=self._ocp.args.Composite(
                    state=self._ocp.args.StandardSave(state),
                    meta=self._ocp.args.JsonSave({**meta, "check": check(meta)}),
                ),
                force=True,  # Orbax skips, silently, a step below any that it lists, junk included
            )
        except Exception as error:  # a full disk surfaces as OSError, ValueError or others
            self._failed(step, error)
            return False
        self._pending = step
        return True

    def wait(self) -> bool:
        """Waits for the save under way; returns whether the last save is safely on disk."""
        if self._pending is not None:
            step, self._pending = self._pending, None
            try:
                self._manager.wait_until_finished()
                self._safe = True
            except Exception as error:
                self._failed(step, error)
        return self._safe

    def close(self) -> bool:
        """Waits, releases Orbax's threads, and returns what `wait` returned."""
        safe = self.wait()
        try:
            self._manager.close()
        except Exception as error:  # raises the late error of a save once more
            self._say(f"closing the checkpoints failed ({_reason(error)})")
        return safe

    def restore(
        self, fresh_state: Any, step: int | Literal["best"] | None = None
    ) -> tuple[Any, int]:
        """Returns `(state, step)` of the newest checkpoint that verifies.

        The state has the structure, dtypes, shapes and shardings of `fresh_state`, and buffers
        of its own. `step="best"` tries the best checkpoint first; an int tries only that one.

        Raises `NoCheckpoint` if none can be used, and `UserError` if a checkpoint is sound but
        was written by another configuration.
        """
        self.wait()
        tried = self._candidates(step)
        for k in tried:
            try:
                state = self._read(k, fresh_state)
            except UserError:
                raise
            except Exception as error:  # damage surfaces as nearly every type of exception
                self._unusable(k, error)
                continue
            if k != tried[0]:
                self._say(f"checkpoint {k} is used instead")
            return state, k
        wanted = f"checkpoint {step}" if isinstance(step, int) else "usable checkpoint"
        raise NoCheckpoint(
            f"--run: {self.directory} has no {wanted} (usable steps: {self.steps() or 'none'}); "
            "train first, or choose another --run"
        )

    def notes(self, step: int) -> Any:
        """What was saved beside the state of a step that was restored."""
        return self._meta(step)["notes"]

    def told(self) -> str:
        """What there is to go on from, in words."""
        self.wait()
        step = self.latest()
        if step is None:
            return f"no checkpoint was saved in {self.directory}"
        return f"the last good checkpoint, of step {step}, is kept in {self.directory}"

    def _candidates(self, step: int | Literal["best"] | None) -> list[int]:
        """The steps to try, in order."""
        listed = sorted(self._manager.all_steps(), reverse=True)
        if isinstance(step, int):
            return [k for k in listed if k == step]
        if step is None:
            return listed
        best = self.best()
        if best is None:
            if listed:
                self._say(
                    "no checkpoint has a finite monitor, so none is the best: trying the newest"
                )
            return listed
        # One whose monitor cannot be read may have been the best: try it first, so it is named.
        unread = [k for k in listed if k not in self._kept.saved]
        return unread + [best] + [k for k in listed if k != best and k not in unread]

    def _meta(self, step: int) -> dict:
        """The record saved beside the state of a step."""
        args = self._ocp.args.Composite(meta=self._ocp.args.JsonRestore())
        meta = dict(self._manager.restore(step, args=args).meta)
        if meta.pop("check") != check(meta) or meta["step"] != step:
            raise ValueError("its record is damaged")
        return meta

    def _read(self, step: int, fresh_state: Any) -> Any:
        """The verified state of a step."""
        meta = self._meta(step)
        wanted = leaf_table(fresh_state)
        if meta["leaves"] != wanted:
            raise UserError(mismatch(self.directory / str(step), meta["leaves"], wanted))
        abstract = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, fresh_state)
        args = self._ocp.args.Composite(state=self._ocp.args.StandardRestore(abstract))
        state = self._manager.restore(step, args=args).state
        if digest(state) != meta["sha256"]:
            raise ValueError("the data differ from what was saved: digest mismatch")
        return jax.tree.map(jnp.copy, state)  # buffers of our own, before they are donated

    def _unusable(self, step: int, error: Exception) -> None:
        """Says why a checkpoint cannot be used, and moves it out of the way."""
        self._say(f"checkpoint {step} is unusable ({_reason(error)})")
        if self._read_only:
            return
        if jax.process_index() == 0:
            name = f"corrupt-{step}-{time.time_ns()}"
            (self.directory / str(step)).rename(self.directory / name)
        self._scan()

    def _failed(self, step: int, error: Exception) -> None:
        """Says that a save failed, frees its disk space, and lists what is there again."""
        self._safe = False
        self._say(f"checkpoint {step} could not be saved ({_reason(error)})")
        self._remove_partial()
        self._scan()

    def _scan(self) -> None:
        """Reads again, from disk, which steps there are and what is known of them."""
        self._kept.saved.clear()
        if not self.directory.is_dir():
            return
        self._manager.reload()
        for step in self._manager.all_steps():
            try:
                meta = self._meta(step)
                self._kept.saved[step] = Saved(*(meta[n] for n in Saved._fields if n in meta))
            except Exception:  # junk or damage: `restore` says so when it comes to it
                continue

    def _remove_partial(self) -> None:
        """Removes what interrupted saves left: it holds disk space and is of no use."""
        for path in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)

    def _remove_spare(self) -> None:
        """Removes what a kill between a save and its clearing up has left."""
        steps = self.steps()
        for step in sorted({*steps} - self._kept.wanted(steps)):
            self._manager.delete(step)


class _Step(NamedTuple):
    """A step that there is, as Orbax asks for it."""

    step: int
    path: Any
    commit_timestamp: datetime.datetime = datetime.datetime.min
    """No policy here asks how old a checkpoint is."""


class _Undated:
    """An Orbax name format. Orbax's own reads when each step was saved, from a file of the step,
    before any is asked for: a single damaged one keeps it from opening the others."""

    def __init__(self, names: Any) -> None:
        self._names = names

    def build_name(self, step: int) -> str:
        return self._names.build_name(step)

    def find_all(self, base_path: Any) -> Iterator[_Step]:
        return (_Step(found.step, found.path) for found in self._names.find_all(base_path))

    def find_step(self, base_path: Any, step: int) -> _Step:
        found = self._names.find_step(base_path, step)
        return _Step(found.step, found.path)


def _not_orbax(record: logging.LogRecord) -> bool:
    """Drops what Orbax logs: a full disk is 25 kB of traceback, and `say` has it in a line."""
    return f"{os.sep}orbax{os.sep}checkpoint{os.sep}" not in record.pathname


def _reason(error: Exception) -> str:
    """An exception in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
