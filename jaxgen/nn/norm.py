"""Normalization."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
from jaxtyping import Array

NormName = Literal["batch", "spectral", "none"]
"""BatchNorm of what a layer returns, spectral normalization of its weights, or neither."""


def weighed(layer: nn.Module, kind: NormName, train: bool) -> Callable[[Array], Array]:
    """The layer; under spectral normalization (Miyato et al. 2018, arXiv:1802.05957, algorithm 1),
    with its kernel divided by its largest singular value. One step of power iteration estimates
    that, from where the last training pass, of which the collection "spectral" is kept, left it."""
    if kind != "spectral":
        return layer  # type: ignore[return-value]
    normed = nn.SpectralNorm(layer, collection_name="spectral")
    return lambda x: normed(x, update_stats=train)


class Norm(nn.Module):
    """BatchNorm over the whole batch, across devices where `axis_name` is mapped; or nothing."""

    kind: NormName
    train: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.kind != "batch":
            return x
        return nn.BatchNorm(
            use_running_average=not self.train, momentum=0.9, axis_name=self.axis_name
        )(x)
