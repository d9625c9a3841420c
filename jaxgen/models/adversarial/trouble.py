"""What the means of a log interval tell of a game, in plain words."""

from collections.abc import Mapping

COLLAPSED = 0.3
"""The variety of generated images, over that of real ones, below which few are drawn."""
WON = 0.9
"""The difference of D's judgements above which it knows nearly always."""


def trouble(means: Mapping[str, float], judged: bool) -> str | None:
    """Whether the generator has collapsed, or, where D's logits are `judged` as probabilities, it
    has won; None = neither."""
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
    return None
