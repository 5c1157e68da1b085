"""Area under the ROC curve, one class against the rest, and its bootstrap over groups.

The area is the share of pairs of a picture of the class and one of the rest of which the first has the
higher score; pairs that are equal count one half (Mann and Whitney 1947; Hanley and McNeil 1982,
doi:10.1148/radiology.143.1.7063747). Chance is 0.5, however skewed the classes are.

It is no function of sums over pictures, as the confusion matrix is, but the pairs' weights are: in a
resample a pair counts as often as its groups were drawn, one times the other. So no draw is sorted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.stats import Resampled, drawn_counts, of_groups

Floats = NDArray[np.float64]
# Pictures x classes x encoders x resamples that are worth the wait: about three seconds.
_WORK = 1_000_000_000
_FEWEST = 500
# Resamples side by side: what is read of a picture fills a line of the processor's cache.
_AT_ONCE = 128
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Order:
    """Pictures of a class and of the rest by their score; see `area`.

    Attributes:
        positive: numbers of the pictures of the class [p].
        negative: of the rest [q], the lowest score first.
        below: how many of the rest each positive is above [p].
        not_above: the same and those equal to it [p].
    """

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    below: NDArray[np.int64]
    not_above: NDArray[np.int64]

    @classmethod
    def of(cls, positive: NDArray[np.bool_], scores: NDArray[Any]) -> Order:
        """Of pictures of the class, bool [n], by scores [n]."""
        own, rest = np.flatnonzero(positive), np.flatnonzero(~positive)
        rest = rest[np.argsort(scores[rest], kind="stable")]
        below = np.searchsorted(scores[rest], scores[own], "left")
        return cls(own, rest, below, np.searchsorted(scores[rest], scores[own], "right"))


def log_odds(similarity: NDArray[np.float32], logit_scale: float) -> Floats:
    """Log odds of the softmax of logit_scale x similarity [n, c]: no ties where a probability is nearly 1."""
    logits = logit_scale * np.asarray(similarity, np.float64)
    found = np.empty_like(logits)
    for number in range(logits.shape[1]):
        rest = np.delete(logits, number, axis=1)
        found[:, number] = logits[:, number] - np.logaddexp.reduce(rest, axis=1)
    return found


def auroc(truth: NDArray[np.int64], scores: NDArray[np.floating]) -> float:
    """Macro one-vs-rest area: the plain mean over the classes (scikit-learn's `multi_class='ovr'`).

    Args:
        truth: int64 [n].
        scores: [n, c]; column k orders the pictures by how much they look like class k.

    Returns:
        A share in [0, 1]; classes that have no picture, or all of them, are left out; NaN if none is left.

    >>> scores = np.array([[0.1, 0.9], [0.4, 0.6], [0.35, 0.65], [0.8, 0.2]])
    >>> auroc(np.array([1, 1, 0, 0]), scores)
    0.75
    """
    ones = np.ones((len(truth), 1), np.float32)
    return float(_macro([area(order, ones) for order in _orders(truth, scores)])[0])


def bootstrap_auroc(
    truth: NDArray[np.int64],
    scores: Sequence[NDArray[np.floating]],
    groups: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> Resampled:
    """The area of several encoders, of all pictures and of each resample of groups.

    It costs pictures x classes per encoder and resample; where that is too much, fewer resamples are
    drawn than asked for, at least 500. They are the first of those that `stats.bootstrap` draws.

    Args:
        truth: int64 [n].
        scores: of each encoder, [n, c].
        groups: int64 [n], from `stats.group_index`.
        resamples: as many as wished for.
        seed: of the draws.

    Returns:
        `value` float64 [encoders], `drawn` float64 [resamples used, encoders].
    """
    orders = [_orders(truth, one) for one in scores]
    work = sum(len(of_one) for of_one in orders) * len(truth)
    used = min(resamples, max(_FEWEST, _WORK // max(1, work)))
    drawn: list[Floats] = []
    done = 0
    n_groups = int(groups.max(initial=-1)) + 1
    for rows in drawn_counts(n_groups, resamples, seed, _AT_ONCE):
        if done >= used:
            break
        times = np.ascontiguousarray(rows[: used - done].T)[groups].astype(np.float32)
        drawn.append(np.stack([_macro([area(order, times) for order in of]) for of in orders], axis=1))
        done += times.shape[1]
    values = np.array([auroc(truth, one) for one in scores])
    return Resampled(values, of_groups(np.concatenate(drawn), n_groups))


def area(order: Order, times: NDArray[np.floating]) -> Floats:
    """Areas [b] of one class, where picture i counts times [n, b]; NaN where a side has no weight."""
    rest = _running_totals(times, order.negative)
    own = times[order.positive]
    twice = rest[order.below] + rest[order.not_above]
    won = np.einsum("ib,ib->b", own, twice, dtype=np.float64) / 2
    pairs = own.sum(axis=0, dtype=np.float64) * rest[len(order.negative)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(won / pairs)


def _orders(truth: NDArray[np.int64], scores: NDArray[np.floating]) -> list[Order]:
    """One for each class that has pictures and a rest."""
    examples = np.bincount(truth, minlength=scores.shape[1])
    return [
        Order.of(truth == number, scores[:, number])
        for number in range(scores.shape[1])
        if 0 < examples[number] < len(truth)
    ]


def _running_totals(times: NDArray[np.floating], chosen: NDArray[np.int64]) -> NDArray[np.floating]:
    """Sums of the first 0, 1, 2 … chosen rows, [at least 1 + len(chosen), b].

    Whole blocks of rows are added to one another, which is several times as fast as `np.cumsum` down the
    rows. float32 counts exactly up to 16 million: more than the pictures of a task.
    """
    blocks = -(-(len(chosen) + 1) // _BLOCK)
    totals = np.zeros((blocks, _BLOCK, times.shape[1]), times.dtype)
    rows = totals.reshape(blocks * _BLOCK, -1)
    np.take(times, chosen, axis=0, out=rows[1 : len(chosen) + 1], mode="clip")
    for number in range(1, _BLOCK):
        totals[:, number] += totals[:, number - 1]
    totals[1:] += np.cumsum(totals[:-1, -1], axis=0)[:, None]
    return rows


def _macro(areas: Sequence[Floats]) -> Floats:
    """Mean over the classes for which the area is defined, [b]."""
    if not areas:
        return np.array([np.nan])
    stacked = np.stack(areas)
    defined = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, stacked, 0).sum(axis=0) / defined.sum(axis=0))
