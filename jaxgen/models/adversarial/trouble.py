"""What the means of a log interval tell of a game, in plain words."""

from collections.abc import Mapping

COLLAPSED = 0.3
"""The variety of generated images, over that of real ones, below which few are drawn."""
WON = 0.9
"""The difference of D's judgements above which it knows nearly always."""
REMEMBERED, LEAST = 0.75, 0.75
"""How far from training images to generated ones D sets validation images, as a share of that way,
and by how much in its logits, from which on it remembers (r_v of Karras et al. 2020,
arXiv:2006.06676, equation 1)."""


def trouble(means: Mapping[str, float], judged: bool) -> str | None:
    """Whether the generator has collapsed, or, where D's logits are `judged` as probabilities, it
    has won, or knows its training images from others; None = nothing of these."""
    varies, real, fake = (means.get(name) for name in ("variety", "d_real", "d_fake"))
    if varies is not None and varies < COLLAPSED:
        return (
            f"generated images vary {varies:.2f} times as much as real ones: the generator has "
            "collapsed to few images; a penalty (`r1`), `pack` or smaller learning rates may help"
        )
    if judged and real is not None and fake is not None and real - fake > WON:
        return (
            f"the discriminator nearly always tells real ({real:.2f}) from generated images "
            f"({fake:.2f}), which leaves the generator little to learn from"
        )
    return remembering(*(means.get(name) for name in ("d_logit", "d_logit_fake", "d_gap")))


def remembering(seen: float | None, fake: float | None, gap: float | None) -> str | None:
    """Whether D takes images of the validation split for generated ones, as it has `seen` them less
    often than those of the train split: its mean logits, and how far the former are above the
    latter."""
    if seen is None or fake is None or gap is None or gap > -LEAST:
        return None
    whole = seen - gap - fake
    if whole <= 0 or -gap / whole <= REMEMBERED:
        return None
    return (
        "the discriminator remembers the training images: real images that it has not seen are "
        f"{min(-gap / whole, 1):.0%} of the way from these to generated ones; augmentation, a "
        "penalty on gradients, or fewer steps may help"
    )
