"""Looks at what a model is able to do with data and latents, beside sampling."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxgen.abilities import Completes, Decodes, Encodes, Generates, Translates
from jaxgen.distributions.normal import interpolate
from jaxgen.evaluation.results import Results
from jaxgen.evaluation.subject import Subject
from jaxgen.parallel.inference import examples
from jaxgen.report.blocks import Look
from jaxgen.report.pictures import figure
from jaxgen.spec import DataSpec

GIVEN = 16
"""Examples that are reconstructed or translated."""
ROWS, COLUMNS = 8, 11
"""Interpolations, or latents, and the pictures of each."""
REACH = 2.5
"""How far a latent is moved, in standard deviations."""
ANSWERS = 7
"""Completions of each example."""
MIXED = 10
"""Gaussians that are fitted to codes."""
PLANE = 16
"""Pictures along each side of the plane of two latents."""


def floats(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Data as floats in [-1, 1]."""
    return np.asarray(spec.to_float(jnp.asarray(x)))


def shown(subject: Subject, num: int) -> dict[str, np.ndarray]:
    """What the model is given of the first `num` examples of the split."""
    return examples(subject.data, subject.model.spec, slice(num))


def decoded(subject: Subject, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """What latents [rows cols z] stand for, each row of one class: floats [rows cols h w c]."""
    rows, columns = z.shape[:2]
    each = None if label is None else label.astype(np.int32).repeat(columns)
    x = subject.able("decode", rows * columns, {"z": z.reshape(rows * columns, -1), "label": each})
    return x.reshape(rows, columns, *x.shape[1:])


def reconstructions(subject: Subject, results: Results) -> Look | None:
    """Examples above what they become when they are encoded and decoded."""
    if not isinstance(subject.model, Encodes):
        return None
    spec, given = subject.model.spec, shown(subject, GIVEN)
    num = len(given["x"])
    z = subject.able("encode", num, given)
    x = subject.able("decode", num, {"z": z, "label": given.get("label")})
    caption = f"The {subject.split} split (above), encoded and decoded (below)"
    pair = np.stack([floats(given["x"], spec), x])
    return Look("Reconstructions", (figure(pair, spec, caption),))


def resampled(subject: Subject, results: Results) -> Look | None:
    """Examples whose lower layers of latents are drawn anew: what each layer decides."""
    model = subject.model
    if not (isinstance(model, Encodes) and isinstance(model, Generates) and len(model.groups) > 1):
        return None
    given = shown(subject, ROWS)
    rows, label = len(given["x"]), given.get("label")
    code = subject.able("encode", rows, given)
    each = None if label is None else label.repeat(ANSWERS)
    new = subject.able("draw_latents", rows * ANSWERS, {"label": each})
    figures = []
    for kept in range(len(model.groups) - 1, 0, -1):
        upper = sum(model.groups[:kept])
        z = np.concatenate([code[:, None, :upper].repeat(ANSWERS, 1),
                            new.reshape(rows, ANSWERS, -1)[..., upper:]], -1)  # fmt: skip
        x = np.concatenate([floats(given["x"], model.spec)[:, None], decoded(subject, z, label)], 1)
        caption = (
            f"The {subject.split} split (left), with the topmost {kept} of {len(model.groups)} "
            "layers of latents kept and the rest drawn from their priors"
        )
        figures.append(figure(x, model.spec, caption))
    return Look("What each layer of latents decides", tuple(figures))


def near_codes(subject: Subject, results: Results) -> Look | None:
    """Draws of a mixture that is fitted to the codes of data: where the codes are not distributed
    as the prior is, they decode to better data than the prior's draws."""
    model, codes = subject.model, subject.codes
    if codes is None or not isinstance(model, Generates) or len(codes) < 2 * MIXED:
        return None
    z = mixture_draws(codes, ROWS * COLUMNS).reshape(ROWS, COLUMNS, -1)
    x = decoded(subject, z, _every_class(model.spec, ROWS))
    spread = codes.std(0)
    caption = (
        f"Decoded draws of {MIXED} Gaussians, fitted to the codes of {len(codes)} validation "
        f"examples. Each latent's codes have a standard deviation of {spread.min():.2f} to "
        f"{spread.max():.2f} and a mean of at most {np.abs(codes.mean(0)).max():.2f} from 0; the "
        "prior, whose draws are above, has 1 and 0"
    )
    return Look("Draws near the codes", (figure(x, model.spec, caption),))


def mixture_draws(codes: np.ndarray, num: int) -> np.ndarray:
    """That many draws [num z] of a mixture of Gaussians that is fitted to codes [n z]; of many
    latents, each Gaussian has them independent."""
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    kind = "full" if 4 * codes.shape[1] * MIXED <= len(codes) else "diag"
    with threadpool_limits(1):  # the same on any number of cores
        fit = GaussianMixture(MIXED, covariance_type=kind, random_state=0)
        drawn, _ = fit.fit(codes.astype(np.float64)).sample(num)
    return np.random.default_rng(0).permutation(drawn).astype(np.float32)


def interpolations(subject: Subject, results: Results) -> Look | None:
    """Walks between pairs of latents from the prior, on great circles, a part of z at a time."""
    model = subject.model
    if not isinstance(model, Generates):
        return None
    label = _every_class(model.spec, ROWS)
    both = None if label is None else np.concatenate([label, label])
    ends = subject.able("draw_latents", 2 * ROWS, {"label": both})
    a, b = map(jnp.asarray, np.split(ends, 2))
    x = decoded(subject, np.asarray(interpolate(a, b, COLUMNS, model.groups)), label)
    caption = "Between pairs of latents (left and right), a pair a row"
    return Look("Interpolations", (figure(x, model.spec, caption),))


def traversals(subject: Subject, results: Results) -> Look | None:
    """One latent at a time, from the first example, for those that vary most between examples."""
    codes = subject.codes
    if codes is None:
        return None
    x = traversed(subject, codes[0], shown_label(subject), busiest(subject)[:ROWS], COLUMNS)
    far = "" if isinstance(subject.model, Generates) else " standard deviations around its mean"
    caption = (
        f"A latent a row, from {-REACH} to {REACH}{far}, the others as the first validation "
        f"example has them; those that {_busy(subject)} come first"
    )
    return Look("One latent at a time", (figure(x, subject.model.spec, caption),))


def busiest(subject: Subject) -> np.ndarray:
    """The numbers of all latents: those first that tell most of data, or, where that is not known,
    whose codes differ most between examples."""
    told, codes = subject.inspection.told, subject.codes
    assert codes is not None
    return np.argsort(-(codes.var(0) if told is None else np.asarray(told)), kind="stable")


def _busy(subject: Subject) -> str:
    differ = "differ most between examples"
    return differ if subject.inspection.told is None else "have the largest KL"


def traversed(
    subject: Subject, code: np.ndarray, label: np.ndarray | None, latents: np.ndarray, columns: int
) -> np.ndarray:
    """What a code [z] becomes while one latent after the other is moved: a row each, floats
    [rows cols h w c]; of a class [1]."""
    middle, reach = spread(subject, subject.codes)
    z = np.tile(code, (len(latents), columns, 1))
    for row, latent in enumerate(latents):
        z[row, :, latent] = middle[latent] + reach[latent] * np.linspace(-REACH, REACH, columns)
    return decoded(subject, z, None if label is None else label.repeat(len(latents)))


def quantiles(num: int) -> np.ndarray:
    """Numbers [num] that cut a standard normal into parts of one probability."""
    from scipy.stats import norm

    return norm.ppf(np.linspace(0.02, 0.98, num))


def plane(subject: Subject, results: Results) -> Look | None:
    """The whole latent space, where it has one or two dimensions."""
    model = subject.model
    if not isinstance(model, Decodes) or sum(model.groups) > 2:
        return None
    if subject.codes is None and not isinstance(model, Generates):
        return None
    middle, reach = spread(subject, subject.codes)
    sides = quantiles(PLANE)
    two = sum(model.groups) == 2
    unit = np.stack(np.meshgrid(sides, -sides), -1) if two else sides[None, :, None]
    label = _every_class(model.spec, 1)
    each = None if label is None else label.repeat(len(unit))
    x = decoded(subject, (middle + reach * unit).astype(np.float32), each)
    what = "the prior" if isinstance(model, Generates) else "a normal that is fitted to the codes"
    caption = f"What latents stand for, at the quantiles of {what}"
    return Look("The latent space", (figure(x, model.spec, caption),))


def completions(subject: Subject, results: Results) -> Look | None:
    """Examples, and what else could follow their first half."""
    model, spec = subject.model, subject.model.spec
    if not isinstance(model, Completes) or spec.dims < 2:
        return None
    given = shown(subject, ROWS)
    x, rows = given["x"], len(given["x"])
    first = np.arange(spec.dims).reshape(spec.shape) < spec.dims // 2
    many: Mapping[str, np.ndarray] = {
        "x": x.repeat(ANSWERS, 0),
        "known": np.broadcast_to(first, (rows * ANSWERS, *spec.shape)),
        **{n: each.repeat(ANSWERS, 0) for n, each in given.items() if n != "x"},
    }
    filled = subject.able("complete", rows * ANSWERS, many).reshape(rows, ANSWERS, *spec.shape)
    caption = f"The {subject.split} split (left), and its first half, in raster order, completed"
    return Look("Completions", (figure(np.concatenate([x[:, None], filled], 1), spec, caption),))


def translations(subject: Subject, results: Results) -> Look | None:
    """Data of one domain, what they become in the other, and the truth where it is known."""
    model, spec = subject.model, subject.model.spec
    if not isinstance(model, Translates) or spec.source is None:
        return None
    given = shown(subject, GIVEN)
    paired = "source" not in subject.data.apart
    ends = {"forth": ("source", spec.source, "x", spec), "back": ("x", spec, "source", spec.source)}
    blocks = []
    for way in model.ways:
        start, start_spec, end, end_spec = ends[way]
        num = len(given[start])
        made = subject.able("translate", num, {**given, "source": given[start]}, way)
        blocks += [
            figure(given[start], start_spec, f"{way}: given", GIVEN // 2),
            figure(made, end_spec, f"{way}: translated", GIVEN // 2),
        ]
        if paired:
            blocks.append(figure(given[end], end_spec, f"{way}: the truth", GIVEN // 2))
    return Look("Translations", tuple(blocks), "row")


def shown_label(subject: Subject) -> np.ndarray | None:
    """The class [1] of the first validation example, for a conditional model."""
    spec, split = subject.model.spec, subject.dataset.materialize("validation")
    return examples(split, spec, slice(1))["label"] if spec.num_classes else None


def _every_class(spec: DataSpec, rows: int) -> np.ndarray | None:
    """A class a row, in turn, for a conditional model."""
    return (np.arange(rows) % spec.num_classes).astype(np.int32) if spec.num_classes else None


def spread(subject: Subject, codes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The middle and the standard deviation of every latent: those of the prior, or, where there
    is none, of the codes."""
    if isinstance(subject.model, Generates) or codes is None:
        model = subject.model
        assert isinstance(model, Decodes)
        return np.zeros(sum(model.groups)), np.ones(sum(model.groups))
    return codes.mean(0), codes.std(0)
