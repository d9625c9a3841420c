"""What every two-player game can be set to, and what it measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from jaxgen.errors import UserError
from jaxgen.fields import Only, Repeats
from jaxgen.losses.adversarial import SMOOTHED
from jaxgen.model import Metric
from jaxgen.nn.labels import Condition
from jaxgen.optim.net import Precision
from jaxgen.optim.optimizer import Optimizer

LOSSES = "losses of the two players"
LOGITS = "D's logits in use"
JUDGEMENTS = "what D holds to be real (probability)"
CLASSES = "cross-entropy of the classes that D tells (nats)"


@dataclass(frozen=True)
class GameFields:
    """The fields of every game."""

    loss: Literal["minimax", "nonsaturating", "least_squares", "hinge", "wasserstein"] = (
        "nonsaturating"
    )
    """minimax, nonsaturating: the original paper's two; least_squares; hinge: margins; wasserstein:
    a critic's values, for a discriminator whose slope is bounded."""
    updates: Literal["alternating", "simultaneous"] = "alternating"
    """alternating: the generator meets the updated discriminator; simultaneous: the old one."""
    d_steps: Repeats = 1
    """Discriminator steps per generator step, each on a batch of its own."""
    unrolled: int = 0
    """Further discriminator updates, on the same examples, through which the generator's gradient
    looks ahead; they are then thrown away (Metz et al. 2017, arXiv:1611.02163)."""
    r1: float = 0.0
    """gamma of the penalty gamma/2 |grad D|^2 on real examples; it needs a discriminator without
    BatchNorm."""
    slope_penalty: float = 0.0
    """lambda of the penalty lambda (|grad D| - 1)^2 between real and generated examples (WGAN-GP);
    it needs a discriminator without BatchNorm."""
    penalty_every: int = 1
    """Steps from one with the penalties to the next, in which they count as often (lazy
    regularization, Karras et al. 2020, arXiv:1912.04958, appendix B)."""
    condition_by: Condition = "concat"
    """How the discriminator takes labels, of a conditional model. concat: beside its input;
    projection: an inner product of its last features with the label's embedding, which joins the
    logit (Miyato & Koyama 2018, arXiv:1802.05637); auxiliary: not at all; it is to tell them, of
    real and generated examples, and the generator is to draw what it can tell (AC-GAN, Odena et al.
    2017, arXiv:1610.09585)."""
    label_smoothing: float = 0.0
    """How far the target for real examples is below 1, where the loss has one."""
    pack: int = 1
    """Examples that the discriminator judges together (PacGAN, Lin et al. 2018, arXiv:1712.04086):
    a generator that draws too much alike is found out."""
    instance_noise: float = 0.0
    """Standard deviation of the noise on the discriminator's inputs, which lie in [-1, 1]."""
    noise_steps: int = 0
    """Steps over which the instance noise falls linearly to zero; 0 = it stays."""
    ema: float = 0.999
    """Decay of the generator's moving average, which sampling uses."""
    precision: Precision = "float32"
    """What the networks compute in while training. Parameters, losses and statistics stay float32,
    and so do evaluation and sampling."""
    g_optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """How the generator is trained."""
    d_optimizer: Optimizer = Optimizer(learning_rate=2e-4, b1=0.5)
    """How the discriminator is trained."""

    encodes: ClassVar[bool] = False
    """Whether the generator makes a part of what is shown as real, such as a code, and is to make
    that pass for fake."""
    cannot: ClassVar[Mapping[str, str]] = {}
    """The values of `condition_by` that the discriminator cannot take, and why, for people."""
    clock: ClassVar = ("noise_steps",)
    only: ClassVar = {
        "condition_by": Only("without --conditional", lambda game: game.spec.num_classes > 0),
        "noise_steps": Only("without `instance_noise`", lambda game: game.instance_noise > 0),
        "penalty_every": Only(
            "without `r1` or `slope_penalty`", lambda game: game.r1 > 0 or game.slope_penalty > 0
        ),
        "label_smoothing": Only(
            f"without `loss`={', '.join(SMOOTHED[:-1])} or {SMOOTHED[-1]}",
            lambda game: game.loss in SMOOTHED,
        ),
    }
    compared: ClassVar[Mapping[str, str]] = {"d_logit": "d_gap"}
    metrics: ClassVar[Mapping[str, Metric]] = {
        "d_loss": Metric("the discriminator's loss", chart=LOSSES, curve="D"),
        "g_loss": Metric("the generator's loss", chart=LOSSES, curve="G"),
        "d_real": Metric("D(x): held to be real, of real images", "probability", "",
                         JUDGEMENTS, "D(x)"),
        "d_fake": Metric("D(G(z)): held to be real, of generated images", "probability", "",
                         JUDGEMENTS, "D(G(z))", of_x=False),
        "d_logit": Metric("D's logit of real images", "", "", LOGITS, "real"),
        "d_logit_fake": Metric("D's logit of generated images", "", "", LOGITS, "generated",
                               of_x=False),
        "d_gap": Metric("D's logit of validation images over that of train images"),
        "class_real": Metric("cross-entropy of D's classes, of real images", "nats", "",
                             CLASSES, "real"),
        "class_fake": Metric("cross-entropy of D's classes, of generated images", "nats", "",
                             CLASSES, "generated"),
        "variety": Metric("standard deviation of generated over that of real images"),
        "r1": Metric("|grad D|^2 on real images"),
        "slope": Metric("(|grad D| - 1)^2 between real and generated images"),
    }  # fmt: skip


def check_fields(game: Any) -> None:
    """Raises UserError where the fields of a game, beside the spec of its data, cannot be."""
    if not 0 <= game.ema < 1:
        raise UserError(f"`ema` must lie in [0, 1); got {game.ema}")
    if game.d_steps < 1:
        raise UserError(f"`d_steps` must be at least 1; got {game.d_steps}")
    least_0 = "unrolled", "r1", "slope_penalty", "instance_noise", "noise_steps"
    if any(getattr(game, name) < 0 for name in least_0):
        raise UserError(", ".join(f"`{name}`" for name in least_0) + " must not be negative")
    if min(game.penalty_every, game.pack) < 1:
        raise UserError("`penalty_every` and `pack` must be at least 1")
    if not 0 <= game.label_smoothing < 1:
        raise UserError(f"`label_smoothing` must lie in [0, 1); got {game.label_smoothing}")
    if game.pack > 1 and game.spec.num_classes:
        raise UserError(
            f"`pack`={game.pack} judges examples together, which have labels of their own: set "
            "`pack`=1, or leave --conditional out"
        )
    if game.spec.num_classes and game.condition_by in game.cannot:
        others = [by for by in get_args(Condition) if by not in game.cannot]
        raise UserError(
            f"`condition_by`={game.condition_by} {game.cannot[game.condition_by]}: set "
            f"`condition_by`={' or '.join(others)}"
        )
