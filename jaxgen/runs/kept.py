"""Which checkpoints of a run are kept."""

from typing import Any, NamedTuple

LATEST = 2
"""How many of the newest planned checkpoints are kept."""


class Saved(NamedTuple):
    """What decides how long a checkpoint is kept."""

    monitor: float | None
    """Lower is better; None = never the best."""
    planned: bool
    """Whether a run that is never stopped saves it too."""
    slack: float = 0.0
    """The share of it by which a monitor that is as good may be above it, by chance."""


class Kept:
    """An Orbax preservation policy: the latest planned ones, the best, the one it is measured by,
    the newest, and whatever is not ours to judge."""

    def __init__(self) -> None:
        self.saved: dict[int, Saved] = {}

    def best(self, steps: list[int]) -> int | None:
        """The step with the lowest monitor; of those within its slack, the latest."""
        monitors, lowest = self._monitors(steps), self._lowest(steps)
        if lowest is None:
            return None
        most = monitors[lowest] + self.saved[lowest].slack * abs(monitors[lowest])
        return max(k for k in monitors if monitors[k] <= most)

    def _monitors(self, steps: list[int]) -> dict[int, float]:
        return {k: m for k in steps if (m := self.saved[k].monitor) is not None}

    def _lowest(self, steps: list[int]) -> int | None:
        """The step with the lowest monitor; of equals, the later."""
        monitors = self._monitors(steps)
        return min(monitors, key=lambda k: (monitors[k], -k), default=None)

    def wanted(self, steps: list[int]) -> set[int | None]:
        """Those of the steps, ascending, that are kept."""
        planned = [k for k in steps if self.saved[k].planned]
        return {*steps[-1:], *planned[-LATEST:], self.best(steps), self._lowest(steps)}

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Whether each of the checkpoints is kept."""
        wanted = self.wanted(sorted(c.step for c in checkpoints if c.step in self.saved))
        return [c.step in wanted or c.step not in self.saved for c in checkpoints]
