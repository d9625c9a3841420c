"""Progress for people: a bar on a terminal, plain lines elsewhere."""

import time
from typing import TextIO

QUIET = 10.0
"""Seconds between the plain progress lines that a terminal's bar is replaced by elsewhere."""


class Bar:
    """Progress on a terminal: a tqdm bar."""

    def __init__(self, stream: TextIO, total: int, start: int, images_per_step: int) -> None:
        from tqdm import tqdm

        form = "{n_fmt}/{total_fmt} |{bar}| {percentage:3.0f}%  {elapsed}<{remaining}{postfix}"
        self._stream, self._tqdm = stream, tqdm
        self._bar = tqdm(
            total=total, initial=start, file=stream, bar_format=form, dynamic_ncols=True
        )
        self._rate = _Rate(start, images_per_step)

    def show(self, step: int, metrics: dict[str, float]) -> None:
        self._bar.set_postfix_str(_facts(metrics, self._rate(step)), refresh=False)
        self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        self._tqdm.write(text, file=self._stream)

    def close(self) -> None:
        self._bar.close()


class Lines:
    """Progress anywhere else: a plain line now and then, and for the last step."""

    def __init__(self, stream: TextIO, total: int, start: int, images_per_step: int) -> None:
        self._stream, self._total = stream, total
        self._rate = _Rate(start, images_per_step)
        self._first = start, time.monotonic()
        self._shown: float | None = None

    def show(self, step: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if self._shown is not None and now - self._shown < QUIET and step < self._total:
            return
        self._shown = now
        done, seconds = step - self._first[0], now - self._first[1]
        left = round(seconds / done * (self._total - step)) if done > 0 else 0
        facts = _facts(metrics, self._rate(step))
        self.say(f"step {step}/{self._total}  {facts}, {left // 60}:{left % 60:02d} left")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class _Rate:
    """Images per second since the call before."""

    def __init__(self, start: int, images_per_step: int) -> None:
        self._last = start, time.monotonic()
        self._images = images_per_step

    def __call__(self, step: int) -> float:
        (before, then), now = self._last, time.monotonic()
        self._last = step, now
        return (step - before) * self._images / max(now - then, 1e-9)


def _facts(metrics: dict[str, float], images_per_second: float) -> str:
    """The metrics and the speed, for people."""
    facts = [f"{name}={value:.4g}" for name, value in metrics.items()]
    if images_per_second > 0:
        facts.append(f"{images_per_second:,.0f} images/s")
    return ", ".join(facts)
