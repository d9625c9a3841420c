"""What every train step of the PyTorch side has (see `peers.py`): its variants, Adam, the moving
average of the parameters, and batches."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jaxgen.optim.optimizer import Optimizer

Run = Callable[[int], Any]
Step = Callable[[Tensor], None]
NCHW, NHWC = torch.contiguous_format, torch.channels_last


def adam(params: list[Tensor], options: Optimizer) -> torch.optim.Adam:
    """Adam as fused or as foreach, whichever takes these parameters' step in less time."""
    betas = (options.b1, options.b2)

    def seconds(kind: str) -> float:
        copies = [p.detach().clone().requires_grad_() for p in params]
        for p in copies:
            p.grad = torch.ones_like(p)
        optimizer = torch.optim.Adam(copies, 0.0, betas, **{kind: True})
        times = []
        for _ in range(10):
            start = time.perf_counter()
            optimizer.step()
            wait(params[0].device)
            times.append(time.perf_counter() - start)
        return min(times)

    best = min(("fused", "foreach"), key=seconds)
    return torch.optim.Adam(params, options.learning_rate, betas, **{best: True})


class Average:
    """The warmed-up moving average of `jaxgen.optim.net.average`, over lists of tensors."""

    def __init__(self, tensors: list[Tensor], decay: float) -> None:
        self.tensors, self.decay, self.step = tensors, decay, 0
        self.ema = [t.detach().clone() for t in tensors]

    @torch.no_grad()
    def update(self) -> None:
        rate = 1 - min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.ema, self.tensors, rate)
        self.step += 1


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def batches(images: Tensor, size: int) -> Iterator[Tensor]:
    """Batches gathered in an order that is drawn anew every epoch."""
    while True:
        order = torch.randperm(len(images), device=images.device)
        for start in range(0, len(images) - size + 1, size):
            yield images[order[start : start + size]]


def steps(step: Step, images: Tensor, size: int) -> Run:
    order = batches(images, size)

    def run(count: int) -> None:
        for _ in range(count):
            step(next(order))
        wait(images.device)

    return run


class How(NamedTuple):
    """A variant of a peer."""

    form: Any = NCHW
    mode: str = ""
    """Of torch.compile: default, reduce-overhead (CUDA graphs), ...; "" = eager."""
    precision: str = ""
    """float32 or bfloat16 (autocast); "" = bfloat16 on an accelerator, and on a CPU float32, as
    ours."""

    def autocast(self, device: torch.device) -> Any:
        accelerated = device.type != "cpu"
        enabled = self.precision == "bfloat16" if self.precision else accelerated
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled)

    def compile(self, function: Any) -> Any:
        return torch.compile(function, dynamic=False, mode=self.mode) if self.mode else function

    def begin(self) -> None:
        """Before a step: a graph's outputs of the step before may be overwritten."""
        if self.mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()


def floats(images: Tensor, levels: int, form: Any) -> Tensor:
    """Levels as floats in [-1, 1], in that layout."""
    return (images.float() * (2.0 / (levels - 1)) - 1).contiguous(memory_format=form)
