"""A small feature space for sample scores, fitted on the training split: no download.

Labelled images: the last hidden layer of an MLP classifier. Unlabelled: principal components.
Both are z-scored on the images they were fitted on, the standard deviation being taken as at
least a tenth of the median one; without that, distances depend on an arbitrary scale.
"""

import warnings
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple, Self

import numpy as np

HIDDEN = (128, 64)
COMPONENTS = 64
MAX_EXAMPLES = 20_000
"""A larger training split is represented by a seeded draw of this size."""
VISITS = 200_000
"""How many images (with repeats) the classifier sees, between 8 and 40 epochs of them."""
_CHUNK = 2048

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

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float | None:
        """Returns the share of images whose label is predicted, or None without classes."""
        return None if self.head is None else float(np.mean(self.predict(images) == labels))

    def _hidden(self, images: np.ndarray) -> np.ndarray:
        parts = [images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK)]
        return np.concatenate([np.zeros((0, len(self.mean))), *map(self._hidden_chunk, parts)])

    def _hidden_chunk(self, images: np.ndarray) -> np.ndarray:
        h = _to_float(images, self.levels)
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
    if len(images) > MAX_EXAMPLES:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(images), MAX_EXAMPLES, replace=False))
        images, labels = images[chosen], None if labels is None else labels[chosen]
    head = None
    if labels is not None and _learnable(labels):
        kind = "mlp" + "-".join(map(str, HIDDEN))
        layers, head = _mlp(_to_float(_shifted(images), levels, np.float32), labels, seed)
    else:
        layers = _pca(_to_float(images, levels), seed)
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


def _shifted(images: np.ndarray) -> np.ndarray:
    """The images [n h w c] and their copies shifted by one pixel four ways: [5*n h w c]. Small
    training splits need them: the digits' test accuracy goes from .91 to .95."""
    height, width = images.shape[1:3]
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    corners = (1, 1), (0, 1), (2, 1), (1, 0), (1, 2)
    return np.concatenate([wide[:, i : i + height, j : j + width] for i, j in corners])


def _pca(x: np.ndarray, seed: int) -> Layers:
    """One linear layer; z-scoring then whitens it, but for components of next to no variance."""
    from sklearn.decomposition import PCA

    pca = PCA(min(COMPONENTS, *x.shape), random_state=seed).fit(x)
    weight = np.asarray(pca.components_).T
    return ((weight, -pca.mean_ @ weight),)


def _to_float(images: np.ndarray, levels: int, dtype: Any = np.float64) -> np.ndarray:
    """Levels as floats in [-1, 1]: [n dims]."""
    return images.reshape(len(images), -1).astype(dtype) * dtype(2 / (levels - 1)) - dtype(1)
