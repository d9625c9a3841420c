"""How networks take labels: beside their inputs, or, discriminators, at their end.

Labels are int [b], or None for a network without classes.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Condition = Literal["concat", "projection", "auxiliary"]
"""How a discriminator takes labels: concat, beside its input; projection, at its end; auxiliary, as
what it is to find out."""


def with_label(
    x: Float[Array, "b *s f"], label: Int[Array, " b"] | None, num_classes: int
) -> Float[Array, "b *s f+k"]:
    """x with the one-hot label as `num_classes` further features at every place."""
    if label is None:
        return x
    one_hot = jax.nn.one_hot(label, num_classes, dtype=x.dtype)
    one_hot = one_hot.reshape(len(x), *(1,) * (x.ndim - 2), num_classes)
    return jnp.concatenate([x, jnp.broadcast_to(one_hot, (*x.shape[:-1], num_classes))], -1)


def entered(
    x: Float[Array, "b *s f"], label: Int[Array, " b"] | None, num_classes: int, by: Condition
) -> Float[Array, "b *s k"]:
    """What a discriminator that takes labels so is given of x."""
    return with_label(x, label, num_classes) if by == "concat" else x


def judged(
    h: Float[Array, "b f"],
    label: Int[Array, " b"] | None,
    num_classes: int,
    by: Condition,
    layer: Callable[[int, str], Callable[[Array], Array]],
    classes: bool = False,
    length: float = 1.0,
) -> Array | tuple[Array, Array]:
    """The logit [b] of being real, of a discriminator's last features; with `classes` also the
    logits [b k] of the classes, of one with an auxiliary head (Odena et al. 2017,
    arXiv:1610.09585).

    `layer` makes a linear layer of a width: "out", "embed" or "classes". Projection adds the inner
    product of the features with the label's embedding, over `length` (Miyato & Koyama 2018,
    arXiv:1802.05637): the log ratio of p(label | x) under data and generator.
    """
    logit = layer(1, "out")(h)[:, 0]
    if by == "projection" and label is not None:
        one_hot = jax.nn.one_hot(label, num_classes, dtype=h.dtype)
        product = (layer(h.shape[-1], "embed")(one_hot) * h).sum(-1)
        logit = logit + (product if length == 1.0 else product / length)
    if by != "auxiliary" or not num_classes:
        return logit
    found = layer(num_classes, "classes")(h)
    return (logit, found) if classes else logit
