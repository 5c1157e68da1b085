"""Figures of pictures that show any number of classes: per class by rank, and all together by thresholds.

Whether a class is there is a question of its own, so each has its own threshold. Figures at thresholds are
functions of counts, [..., classes, 3] of right, needless and missed, with any leading dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def f1_thresholds(scores: Floats, present: NDArray[np.bool_]) -> Floats:
    """The threshold of each class that gives it the highest F1 on these pictures: [c].

    A picture shows a class if its score is not below. Of equals the highest is taken; a class that none
    of the pictures shows gets infinity.

    Args:
        scores: [n, c].
        present: bool [n, c].

    >>> f1_thresholds(np.array([[0.9], [0.7], [0.2]]), np.array([[True], [True], [False]])).round(3).tolist()
    [0.45]
    """
    found = []
    for column, truth in zip(scores.T, present.T, strict=True):
        order = np.argsort(-column, kind="stable")
        ranked, right = column[order], np.cumsum(truth[order])
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        if not len(ranked) or not right[-1]:
            found.append(np.inf)
            continue
        f1 = 2 * right[ends] / (ends + 1 + right[-1])
        best = int(ends[np.argmax(f1)])
        # Half way to the next lower score, so that a new picture a little below the last still counts.
        found.append(ranked[best] if best + 1 == len(ranked) else (ranked[best] + ranked[best + 1]) / 2)
    return np.array(found)


def counts(predicted: NDArray[np.bool_], present: NDArray[np.bool_]) -> Floats:
    """Whether each class of each picture was right, needless or missed: [n, c, 3] of 0 and 1."""
    kinds = (predicted & present, predicted & ~present, ~predicted & present)
    return np.stack(kinds, axis=-1).astype(np.float64)


def f1_per_class(sums: Floats) -> Any:
    """2 right / (2 right + needless + missed): [..., c]; NaN where nothing was there nor said."""
    return _divide(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


def macro_f1(sums: Floats) -> Any:
    """Plain mean of the classes' F1, those that are not defined left out.

    >>> round(float(macro_f1(np.array([[2.0, 0, 0], [1, 1, 1]]))), 3)
    0.75
    """
    f1 = f1_per_class(sums)
    defined = np.isfinite(f1)
    return _divide(np.where(defined, f1, 0.0).sum(axis=-1), defined.sum(axis=-1))


def micro_f1(sums: Floats) -> Any:
    """F1 of all classes' counts together: a common class weighs more.

    >>> round(float(micro_f1(np.array([[2.0, 0, 0], [1, 1, 1]]))), 3)
    0.75
    """
    return f1_per_class(sums.sum(axis=-2))


def _divide(above: Any, below: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below
