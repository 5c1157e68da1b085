"""Zero-shot classification: class vectors from prompts, predictions, and what a confusion matrix says.

Every metric here is a function of the confusion matrix alone, [..., true, predicted] with any leading
dimensions, so that a bootstrap can hand it ten thousand at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.errors import DataError
from pathclip.runtime import classify
from pathclip.runtime.encoder import Encoder

Confusion = NDArray[Any]


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


def probabilities(similarity: NDArray[np.float32], logit_scale: float) -> NDArray[np.float64]:
    """Softmax of logit_scale x similarity over the classes: [n, c], rows sum to 1."""
    logits = logit_scale * similarity.astype(np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


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


def confusion_matrix(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts [true class, predicted class].

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def accuracy(confusion: Confusion) -> Any:
    """Share of images classified rightly: trace / total.

    >>> float(accuracy(np.array([[8, 0], [1, 1]])))
    0.9
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def balanced_accuracy(confusion: Confusion) -> Any:
    """Mean of the recalls of the classes that have examples (Brodersen et al. 2010,
    doi:10.1109/ICPR.2010.764): sum_c n_cc / n_c. / classes. Chance is 1 / classes, however skewed they are.

    >>> float(balanced_accuracy(np.array([[8, 0], [1, 1]])))
    0.75
    """  # noqa: D205
    true = confusion.sum(axis=-1)
    return _mean(_divide(_diagonal(confusion), true), true > 0)


def f1_per_class(confusion: Confusion) -> Any:
    """F1 of each class, 2 n_cc / (n_c. + n_.c), the harmonic mean of precision and recall: [..., c].

    NaN for a class that has no example and was never predicted (van Rijsbergen 1979, chapter 7).

    >>> f1_per_class(np.array([[8, 0], [1, 1]])).round(3).tolist()
    [0.941, 0.667]
    """
    return _divide(2 * _diagonal(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: Confusion) -> Any:
    """Plain mean of the classes' F1 (scikit-learn's `average='macro'`): every class weighs the same.

    >>> round(float(macro_f1(np.array([[8, 0], [1, 1]]))), 3)
    0.804
    """
    f1 = f1_per_class(confusion)
    return _mean(np.nan_to_num(f1), np.isfinite(f1))


def weighted_f1(confusion: Confusion) -> Any:
    """Mean of the classes' F1, weighted by their examples (`average='weighted'`); published as F1 by PLIP.

    >>> round(float(weighted_f1(np.array([[8, 0], [1, 1]]))), 3)
    0.886
    """
    return _mean(np.nan_to_num(f1_per_class(confusion)), confusion.sum(axis=-1))


METRICS: Mapping[str, Callable[[Confusion], Any]] = {
    "balanced_accuracy": balanced_accuracy,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
}


def _diagonal(confusion: Confusion) -> Any:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _divide(above: Any, below: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below


def _mean(values: Any, weight: Any) -> Any:
    """Weighted mean over the last axis; values without weight may be NaN."""
    return _divide(np.where(weight > 0, values * weight, 0).sum(axis=-1), weight.sum(axis=-1))
