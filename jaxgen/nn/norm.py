"""Normalization."""

from typing import Literal

import flax.linen as nn
from jaxtyping import Array


class Norm(nn.Module):
    """BatchNorm over the whole batch, across devices where `axis_name` is mapped; or nothing."""

    kind: Literal["batch", "none"]
    train: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.kind == "none":
            return x
        return nn.BatchNorm(
            use_running_average=not self.train, momentum=0.9, axis_name=self.axis_name
        )(x)
