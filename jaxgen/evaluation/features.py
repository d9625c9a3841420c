"""A small feature space for sample scores, fitted on the training split: no download.

Labelled images: the last hidden layer of an MLP classifier. Unlabelled: principal components.
Both are z-scored on the images they were fitted on, the standard deviation being taken as at
least a tenth of the median one; without that, distances depend on an arbitrary scale.
"""

import math
import warnings
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple, Self

import numpy as np

HIDDEN = (128, 64)
COMPONENTS = 64
VARIANCE, LEAST, ROUNDING = 0.95, 8, 1e-12
"""Principal components are kept until they hold this share of the variance, so many at least where
each of them has more than a rounding error's share:
whitening gives those of next to none as much weight as the first ones, and then noise of one level
would be farther from real images than a constant picture is."""
MAX_EXAMPLES = 20_000
"""A larger training split is represented by a seeded draw of this size."""
MAX_BYTES = 2**30
"""The draw is smaller where the array that is fitted on would pass this: 4,369 labelled or 5,461
unlabelled images of 64x64x3."""
VISITS = 200_000
"""How many images (with repeats) the classifier sees, between 8 and 40 epochs of them."""
_CHUNK, _CHUNK_VALUES = 2048, 2**23
_COPIES = (1, 1), (0, 1), (2, 1), (1, 0), (1, 2)
"""Where the images of which a classifier learns begin, within a frame of one pixel."""

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]


class Head(NamedTuple):
    """The classifier on the features, before they are z-scored."""

    weight: np.ndarray
    """[d classes]"""
    bias: np.ndarray
    """[classes]"""
    labels: np.ndarray
    """The label that each class stands for, ascending [classes]."""


@dataclass(frozen=True)
class Features:
    """Images to feature vectors, and to classes where the training split had labels."""

    name: str
    """What a score prints, as `mlp128-64/digits`."""
    examples: int
    """How many training images it was fitted on."""
    seed: int
    levels: int
    layers: Layers
    """(weight [in out], bias [out]) each; a ReLU follows where there is a head."""
    mean: np.ndarray
    scale: np.ndarray
    """The training features' mean and standard deviation, [d] each."""
    head: Head | None
    """None = fitted without labels."""

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Returns z-scored features, float64 [n d], of images [n h w c]."""
        return (self._hidden(images) - self.mean) / self.scale

    def predict(self, images: np.ndarray) -> np.ndarray | None:
        """Returns the most likely label [n] of each image, or None where none were learnt."""
        if self.head is None:
            return None
        logits = self._hidden(images) @ self.head.weight + self.head.bias
        return self.head.labels[logits.argmax(1)]

    def as_floats(self, images: np.ndarray) -> np.ndarray:
        """The images [n h w c] as floats in [-1, 1]."""
        return _to_float(images, self.levels, np.empty(images.shape, np.float64))

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float | None:
        """Returns the share of images whose label is predicted, or None without classes."""
        return None if self.head is None else float(np.mean(self.predict(images) == labels))

    def _hidden(self, images: np.ndarray) -> np.ndarray:
        size = max(1, min(_CHUNK, _CHUNK_VALUES // max(1, math.prod(images.shape[1:]))))
        parts = [images[i : i + size] for i in range(0, len(images), size)]
        return np.concatenate([np.zeros((0, len(self.mean))), *map(self._hidden_chunk, parts)])

    def _hidden_chunk(self, images: np.ndarray) -> np.ndarray:
        h = _to_float(images, self.levels, np.empty((len(images), self.layers[0][0].shape[0])))
        for weight, bias in self.layers:
            h = h @ weight + bias
            h = h if self.head is None else np.maximum(h, 0)
        return h

    def save(self, path: str | PathLike) -> None:
        """Writes one .npz, enough to score samples without the data set."""
        arrays: dict[str, Any] = {"name": self.name, "mean": self.mean, "scale": self.scale}
        arrays["numbers"] = [self.examples, self.seed, self.levels]
        arrays |= {f"layer{i}_{j}": a for i, wb in enumerate(self.layers) for j, a in enumerate(wb)}
        arrays |= {f"head_{f}": a for f, a in self.head._asdict().items()} if self.head else {}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: str | PathLike) -> Self:
        """Reads what `save` wrote, to the bit."""
        with np.load(path, allow_pickle=False) as f:
            depth = sum(name.startswith("layer") for name in f) // 2
            layers = tuple((f[f"layer{i}_0"], f[f"layer{i}_1"]) for i in range(depth))
            head = Head(*(f[f"head_{n}"] for n in Head._fields)) if "head_bias" in f else None
            examples, seed, levels = map(int, f["numbers"])
            name, mean, scale = str(f["name"]), f["mean"], f["scale"]
        return cls(name, examples, seed, levels, layers, mean, scale, head)


def fit_features(
    images: np.ndarray,
    labels: np.ndarray | None,
    levels: int,
    seed: int = 0,
    dataset: str = "custom",
) -> Features:
    """Returns the features of a training split, images [n h w c] and labels [n] or None.

    A function of its arguments: the same bits on the same machine. Labels with fewer than two
    classes, or with fewer than ten examples of some class, count as no labels.
    """
    images, labels = _drawn(images, labels, seed)
    head = None
    if labels is not None and _learnable(labels):
        kind = "mlp" + "-".join(map(str, HIDDEN))
        layers, head = _mlp(_shifted(images, levels), labels, seed)
    else:
        x = _to_float(images, levels, np.empty((len(images), images[:1].size)))
        layers = _pca(x, seed)
        kind = f"pca{layers[0][0].shape[1]}"
    zero, one = np.zeros(layers[-1][1].shape), np.ones(layers[-1][1].shape)
    name = f"{kind}/{dataset}"
    raw = Features(name, len(images), seed, levels, layers, zero, one, head)
    h = raw.embed(images)
    scale = h.std(0)
    # A unit that hardly ever fires would rule every distance the few times it does: measured
    # on MNIST, real against real gave a Fréchet distance of 32 in place of 0.4.
    scale = np.maximum(scale, 0.1 * np.median(scale[scale > 0]) if scale.any() else 1.0)
    return Features(name, len(images), seed, levels, layers, h.mean(0), scale, head)


def _drawn(
    images: np.ndarray, labels: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The examples that are fitted on: at most `MAX_EXAMPLES`, or what `MAX_BYTES` hold."""
    # float32 copies for the classifier; float64, and once more for what scikit-learn makes of it.
    labelled = labels is not None and _learnable(labels)
    row = images[:1].size * (4 * len(_COPIES) if labelled else 2 * 8)
    most = min(MAX_EXAMPLES, max(MAX_BYTES // row, 10))
    if len(images) <= most:
        return images, labels
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(images), most, replace=False))
    return images[chosen], None if labels is None else labels[chosen]


def _learnable(labels: np.ndarray) -> bool:
    counts = np.unique_counts(labels).counts
    return len(counts) >= 2 and min(counts) >= 10


def _mlp(x: np.ndarray, labels: np.ndarray, seed: int) -> tuple[Layers, Head]:
    """The hidden layers and the head of a classifier of x [copies*n dims] with labels [n].

    The number of epochs is fixed: an early stop would hold out copies of what it trains on.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    epochs = int(np.clip(VISITS // len(x), 8, 40))
    model = MLPClassifier(HIDDEN, max_iter=epochs, n_iter_no_change=epochs, random_state=seed)
    # One thread: faster at this size, and the result does not depend on the number of cores.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, np.resize(labels, len(x)))
    weights = [
        (w.astype(np.float64), b.astype(np.float64))
        for w, b in zip(model.coefs_, model.intercepts_, strict=True)
    ]
    *layers, (weight, bias) = weights
    if len(model.classes_) == 2:  # one logit, of the second class
        weight, bias = np.pad(weight, ((0, 0), (1, 0))), np.pad(bias, (1, 0))
    return tuple(layers), Head(weight, bias, model.classes_)


def _shifted(images: np.ndarray, levels: int) -> np.ndarray:
    """The images [n h w c] and their copies shifted by one pixel four ways, as float32
    [5*n dims] in [-1, 1]. Small training splits need them: the digits' test accuracy goes from
    .91 to .95."""
    num, height, width = images.shape[:3]
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    copies = np.empty((len(_COPIES) * num, images[:1].size), np.float32)
    for k, (i, j) in enumerate(_COPIES):
        shifted = wide[:, i : i + height, j : j + width]
        _to_float(shifted, levels, copies[k * num : (k + 1) * num])
    return copies


def _pca(x: np.ndarray, seed: int) -> Layers:
    """One linear layer, which z-scoring then whitens."""
    from sklearn.decomposition import PCA

    # Of constant data no component has a share of the variance: 0 / 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        pca = PCA(min(COMPONENTS, *x.shape), random_state=seed, copy=False).fit(x)
    share = pca.explained_variance_ratio_
    enough = 1 + int(np.searchsorted(np.cumsum(share), VARIANCE))
    # What is left of few different images is rounding, which whitening would make the measure.
    rank = max(1, int((share > ROUNDING).sum()))
    weight = np.asarray(pca.components_)[: min(max(enough, LEAST), rank)].T
    return ((weight, -pca.mean_ @ weight),)


def _to_float(images: np.ndarray, levels: int, out: np.ndarray) -> np.ndarray:
    """Writes levels, as floats in [-1, 1], or floats as they are, to `out` [n dims]; returns it."""
    out.reshape(images.shape)[...] = images
    if not np.issubdtype(images.dtype, np.floating):
        out *= out.dtype.type(2 / (levels - 1))
        out -= out.dtype.type(1)
    return out
