"""Zero-shot classification: class vectors from prompts, predictions, and what a confusion matrix says.

Every metric here is a function of the confusion matrix alone, [..., true, predicted] with any leading
dimensions, so that a bootstrap can hand it ten thousand at once; and of that only of the diagonal, the
sums of rows and the sums of columns, so that it can be handed these `Margins` instead, which are fewer.

Chance, that is a uniform guess among c classes: 1 / c for accuracy, balanced accuracy and each recall, 0
for MCC, 0.5 for AUROC; that of the F1 scores depends on how skewed the classes are: `chance_levels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.runtime import classify
from pathclip.runtime.encoder import Encoder

Confusion = NDArray[Any]


class Margins(NamedTuple):
    """What the metrics need of confusion matrices, [..., c] each.

    Attributes:
        hits: examples of each class that were classified rightly.
        true: its examples.
        predicted: how often it was said.
    """

    hits: NDArray[Any]
    true: NDArray[Any]
    predicted: NDArray[Any]


Counts = Confusion | Margins


def class_vectors(
    encoder: Encoder, classes: Mapping[str, Sequence[str]], templates: Sequence[str]
) -> NDArray[np.float32]:
    """One L2-normalised vector per class, [classes, d]; see `pathclip.runtime.classify.class_embeddings`.

    Raises:
        DataError: prompts that `check_prompts` refuses, or the text tower gives NaN; names the class.
    """
    check_prompts(classes, templates)
    vectors = classify.class_embeddings(encoder, classes, templates)
    for name, vector in zip(classes, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise DataError(
                f"{encoder.name} ({encoder.precision}): the text embedding of class '{name}' is not a number"
            )
    return vectors


def check_prompts(classes: Mapping[str, Sequence[str]], templates: Sequence[str]) -> None:
    """Refuses prompts that would give a silent, meaningless figure.

    Raises:
        DataError: fewer than two classes, an empty wording, no template or one without `{}`, or two
            classes with the same prompt.
    """
    if len(classes) < 2:
        raise DataError(f"classes: at least two are needed, {len(classes)} given")
    if not templates:
        raise DataError("templates: none given")
    for template in templates:
        if "{}" not in template:
            raise DataError(f"templates: '{template}' has no {{}} where the class goes")
    owner: dict[str, str] = {}
    for name, words in classes.items():
        for word in words or [name]:
            if not word.strip():
                raise DataError(f"classes: class '{name}' has an empty prompt; write at least one wording")
            other = owner.setdefault(" ".join(word.lower().split()), name)
            if other != name:
                raise DataError(
                    f"classes: '{other}' and '{name}' share the prompt '{word}'; no encoder can tell "
                    "them apart"
                )


def similarities(images: NDArray[np.float32], class_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine similarity of L2-normalised images [n, d] to classes [c, d]: [n, c] in [-1, 1]."""
    return images @ class_vectors.T


def predict(similarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """The most similar class of each image: int64 [n]; of equals the first."""
    return np.argmax(similarity, axis=1)


def grouped_confusion(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The confusion matrix of each group alone, [G, c, c]: what the bootstrap draws from.

    Args:
        truth: int64 [n].
        predicted: int64 [n].
        classes: c.
        groups: int64 [n], from `pathclip.evaluate.stats.group_index`.
    """
    n_groups = int(groups.max(initial=-1)) + 1
    cells = (groups * classes + truth) * classes + predicted
    counts = np.bincount(cells, minlength=n_groups * classes**2)
    return counts.reshape(n_groups, classes, classes).astype(np.float64)


def grouped_margins(
    truth: NDArray[np.int64],
    predicted: Sequence[NDArray[np.int64]],
    classes: int,
    groups: NDArray[np.int64],
) -> Margins:
    """The margins of each group alone for several encoders at once: what the bootstrap draws from.

    Args:
        truth: int64 [n].
        predicted: of each encoder, int64 [n].
        classes: c.
        groups: int64 [n], from `pathclip.evaluate.stats.group_index`.

    Returns:
        float64 [G, encoders, c], `true` [G, 1, c].
    """
    n_groups = int(groups.max(initial=-1)) + 1

    def counted(cells: NDArray[np.int64], where: Any = slice(None)) -> NDArray[np.float64]:
        counts = np.bincount((groups * classes + cells)[where], minlength=n_groups * classes)
        return counts.reshape(n_groups, classes).astype(np.float64)

    return Margins(
        np.stack([counted(truth, truth == one) for one in predicted], axis=1),
        counted(truth)[:, None],
        np.stack([counted(one) for one in predicted], axis=1),
    )


def confusion_matrix(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts [true class, predicted class].

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def margins(counts: Counts) -> Margins:
    """Diagonal, sums of rows and sums of columns of confusion matrices [..., c, c].

    >>> [part.tolist() for part in margins(np.array([[8, 0], [1, 1]]))]
    [[8, 1], [8, 2], [9, 1]]
    """
    if isinstance(counts, Margins):
        return counts
    return Margins(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2))


def accuracy(counts: Counts) -> Any:
    """Share of images classified rightly: trace / total.

    >>> float(accuracy(np.array([[8, 0], [1, 1]])))
    0.9
    """
    hits, true, _ = margins(counts)
    return _divide(hits.sum(axis=-1), true.sum(axis=-1))


def recalls(counts: Counts) -> Any:
    """The share of each class's examples that was classified rightly, [..., c]; NaN without examples.

    >>> recalls(np.array([[8, 0], [1, 1]])).tolist()
    [1.0, 0.5]
    """
    hits, true, _ = margins(counts)
    return _divide(hits, true)


def balanced_accuracy(counts: Counts) -> Any:
    """Mean of the recalls of the classes that have examples (Brodersen et al. 2010,
    doi:10.1109/ICPR.2010.764): sum_c n_cc / n_c. / classes. Chance is 1 / classes, however skewed they are.

    >>> float(balanced_accuracy(np.array([[8, 0], [1, 1]])))
    0.75
    """  # noqa: D205
    counts = margins(counts)
    return _mean(recalls(counts), counts.true > 0)


def f1_per_class(counts: Counts) -> Any:
    """F1 of each class, 2 n_cc / (n_c. + n_.c), the harmonic mean of precision and recall: [..., c].

    NaN for a class that has no example and was never predicted (van Rijsbergen 1979, chapter 7).

    >>> f1_per_class(np.array([[8, 0], [1, 1]])).round(3).tolist()
    [0.941, 0.667]
    """
    hits, true, predicted = margins(counts)
    return _divide(2 * hits, true + predicted)


def macro_f1(counts: Counts) -> Any:
    """Plain mean of the classes' F1 (scikit-learn's `average='macro'`): every class weighs the same.

    >>> round(float(macro_f1(np.array([[8, 0], [1, 1]]))), 3)
    0.804
    """
    f1 = f1_per_class(counts)
    return _mean(np.nan_to_num(f1), np.isfinite(f1))


def weighted_f1(counts: Counts) -> Any:
    """Mean of the classes' F1, weighted by their examples (`average='weighted'`); published as F1 by PLIP.

    >>> round(float(weighted_f1(np.array([[8, 0], [1, 1]]))), 3)
    0.886
    """
    counts = margins(counts)
    return _mean(np.nan_to_num(f1_per_class(counts)), counts.true)


def mcc(counts: Counts) -> Any:
    """Matthews' correlation of truth and prediction for any number of classes, in [-1, 1].

    R_K of Gorodkin 2004 (doi:10.1016/j.compbiolchem.2004.09.006), from the margins alone: with N images,
    (N trace - sum_c n_c. n_.c) / sqrt((N² - sum_c n_c.²) (N² - sum_c n_.c²)). 0 for a guess of any kind,
    and, as scikit-learn has it, where all images are of one class or got one answer.

    >>> round(float(mcc(np.array([[8, 0], [1, 1]]))), 3)
    0.667
    """
    hits, true, predicted = (part.astype(np.float64) for part in margins(counts))
    total = true.sum(axis=-1)
    above = total * hits.sum(axis=-1) - (true * predicted).sum(axis=-1)
    below = (total**2 - (true**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return np.where(below > 0, _divide(above, np.sqrt(below)), 0.0)[()]


METRICS: Mapping[str, Callable[[Counts], Any]] = {
    "balanced_accuracy": balanced_accuracy,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "mcc": mcc,
}


def chance_levels(examples: NDArray[np.int64]) -> dict[str, float]:
    """What a uniform guess among the classes gets, by name of the metric.

    Args:
        examples: of each class, [c].

    Returns:
        Expected values; of the F1 scores those for many images, where a class with the share s of them
        has recall 1 / c and precision s, so F1 2 s / (1 + c s).

    >>> [round(value, 3) for value in chance_levels(np.array([30, 10])).values()]
    [0.5, 0.5, 0.467, 0.533, 0.0, 0.5]
    """
    classes, shares = len(examples), examples / examples.sum()
    f1 = 2 * shares / (1 + classes * shares)
    return {
        "balanced_accuracy": 1 / classes,
        "accuracy": 1 / classes,
        "macro_f1": float(f1.mean()),
        "weighted_f1": float((shares * f1).sum()),
        "mcc": 0.0,
        "auroc": 0.5,
    }


def _divide(above: Any, below: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below


def _mean(values: Any, weight: Any) -> Any:
    """Weighted mean over the last axis; values without weight may be NaN."""
    return _divide(np.where(weight > 0, values * weight, 0).sum(axis=-1), weight.sum(axis=-1))
