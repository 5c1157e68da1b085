"""What an order of pictures by a score is worth: AUROC, average precision, risk against coverage.

None of these is a function of sums over pictures, so the bootstrap of `pathclip.evaluate.stats` does not
do. But given the order, each is a function of running sums of the pictures' weights; so a resample costs
one pass over the pictures. Pictures with the same score count as one step, whatever order they came in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate import stats
from pathclip.evaluate.classification.auroc import Order, area

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
# Resamples side by side: what is read of a picture fills a line of the processor's cache, or a few.
_AT_ONCE = 32
# Weights drawn in all, of 10,000 pictures 1,000 times: a tenth of a second or so for one figure.
_IN_ALL, _LEAST = 10_000_000, 500


@dataclass(frozen=True, slots=True)
class Ranking:
    """Pictures from the highest score to the lowest.

    Attributes:
        order: their numbers, int64 [n].
        ends: places in the order where a run of equal scores ends, int64 [r].
    """

    order: Numbers
    ends: Numbers

    @classmethod
    def of(cls, scores: NDArray[Any]) -> Ranking:
        """Ranks scores [n]."""
        order = np.argsort(-np.asarray(scores), kind="stable")
        ranked = np.asarray(scores)[order]
        return cls(order, np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)))

    def running(self, weights: Floats, values: NDArray[Any] | None = None) -> Floats:
        """Sums of weight x value from the top to the end of each run: [r, b].

        Args:
            weights: [n, b], of the pictures in this order.
            values: [n], of the pictures as they were numbered; None counts the weights alone.
        """
        if values is not None:
            weights = weights * np.asarray(values, np.float64)[self.order, None]
        sums: Floats = np.cumsum(weights, axis=0)
        return sums if len(self.ends) == len(sums) else sums[self.ends]


def auroc(ranking: Ranking, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve of a ranking; see `pathclip.evaluate.classification.auroc`.

    Args:
        ranking: of the scores.
        positive: bool [n].
        weights: [n, b], of the pictures in the ranking's order; see `resampled`.

    Returns:
        float64 [b]; NaN where only one kind has weight.

    >>> scores, positive = np.array([0.9, 0.6, 0.6, 0.1]), np.array([True, True, False, False])
    >>> auroc(Ranking.of(scores), positive, np.ones((4, 1))).tolist()
    [0.875]
    """
    runs = np.searchsorted(ranking.ends, np.arange(len(ranking.order)))
    return area(Order.of(positive[ranking.order], -runs), weights)


def average_precision(ranking: Ranking, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Mean of the precision at each positive picture, without interpolation, as scikit-learn defines it.

    Args and result as in `auroc`. Scores that are all the same have the share of positives; what a random
    order has is `chance_average_precision`.

    >>> average_precision(Ranking.of(np.array([3, 2, 1])), np.array([True, False, True]), np.ones((3, 1)))
    array([0.83333333])
    """
    found = ranking.running(weights, positive)
    precision = _divide(found, ranking.running(weights))
    gained = np.diff(found, axis=0, prepend=0.0)
    return _divide(np.einsum("rb,rb->b", gained, np.nan_to_num(precision)), found[-1])


def chance_average_precision(positives: Any, n: int) -> Any:
    """What `average_precision` of a random order is expected to be: more than the share of positives.

    Place r holds a positive with probability p / n, and then each of the r - 1 before it with (p - 1) /
    (n - 1). The expected precision there, summed over places and divided by p, is H / n + (p - 1) (n - H) /
    (n (n - 1)) with H = 1 + 1/2 + … + 1/n (Bestgen 2015, Prague Bulletin of Mathematical Linguistics 103,
    states the same baseline).

    Args:
        positives: how many of the pictures are, at least 1; any shape.
        n: pictures.

    >>> round(float(chance_average_precision(1, 2)), 3)
    0.75
    """
    harmonic = float((1 / np.arange(1, n + 1)).sum())
    return harmonic / n + (np.asarray(positives) - 1) * (n - harmonic) / (n * max(n - 1, 1))


def accuracy_at(
    ranking: Ranking, right: NDArray[np.bool_], weights: Floats, coverages: NDArray[Any]
) -> Floats:
    """Accuracy on the surest part of the pictures: [b, coverages].

    Args:
        ranking: by confidence.
        right: bool [n], whether each answer is right.
        weights: as in `auroc`.
        coverages: parts of the pictures in (0, 1]; within a run of equal confidence the errors are spread
            evenly.
    """
    kept = np.pad(ranking.running(weights), ((1, 0), (0, 0)))
    rights = np.pad(ranking.running(weights, right), ((1, 0), (0, 0)))
    columns = []
    for coverage in coverages:
        target = coverage * kept[-1]
        end = np.maximum(1, np.argmax(kept >= target * (1 - 1e-12), axis=0))[None]
        low, high = np.take_along_axis(kept, end - 1, 0)[0], np.take_along_axis(kept, end, 0)[0]
        part = np.nan_to_num(_divide(target - low, high - low))
        first, last = np.take_along_axis(rights, end - 1, 0)[0], np.take_along_axis(rights, end, 0)[0]
        columns.append(_divide(first + part * (last - first), target))
    return np.stack(columns, axis=1)


def area_under_risk(ranking: Ranking, right: NDArray[np.bool_], weights: Floats) -> Floats:
    """AURC: the share of wrong answers among the surest pictures, averaged over how many are kept: [b].

    Geifman, Uziel and El-Yaniv 2019 (arXiv:1805.08206). The lower the better; a confidence that says
    nothing gives the error rate itself.
    """
    kept = ranking.running(weights)
    risk = 1 - _divide(ranking.running(weights, right), kept)
    steps = np.diff(kept, axis=0, prepend=0.0)
    return _divide(np.einsum("rb,rb->b", steps, np.nan_to_num(risk)), kept[-1])


def resampled(
    ranking: Ranking, groups: Numbers, statistic: Callable[[Floats], Floats], resamples: int, seed: int
) -> stats.Resampled:
    """A statistic of weights [n, b] in the ranking's order, of all pictures and of resamples of groups.

    It costs n numbers per resample; beyond some thousand pictures fewer are drawn than asked for, at least
    500. They are the first of those that `stats.bootstrap` draws, so statistics of several rankings of the
    same pictures can be subtracted or averaged row by row.

    Args:
        ranking: of n pictures.
        groups: group numbers int64 [n], from `stats.group_index`.
        statistic: weights [n, b] to values [b, ...].
        resamples: as many as wished for.
        seed: of the draws.
    """
    in_order = groups[ranking.order]
    value = np.asarray(statistic(np.ones((len(in_order), 1))))[0]
    used = min(resamples, max(_LEAST, _IN_ALL // max(1, len(in_order))))
    drawn: list[Floats] = []
    done = 0
    n_groups = int(groups.max(initial=-1)) + 1
    for counts in stats.drawn_counts(n_groups, resamples, seed, _AT_ONCE):
        if done >= used:
            break
        weights = np.ascontiguousarray(counts[: used - done].T)[in_order].astype(np.float64)
        drawn.append(np.asarray(statistic(weights)))
        done += weights.shape[1]
    return stats.Resampled(value, stats.of_groups(np.concatenate(drawn), n_groups))


def mean(parts: Sequence[stats.Resampled]) -> stats.Resampled:
    """Row by row the mean of statistics of the same groups, those that are not defined left out."""
    return stats.Resampled(_mean([one.value for one in parts]), _mean([one.drawn for one in parts]))


def difference(first: stats.Resampled, second: stats.Resampled) -> stats.Resampled:
    """Row by row the first minus the second: paired by the groups drawn."""
    return stats.Resampled(first.value - second.value, first.drawn - second.drawn)


def _mean(values: Sequence[Floats]) -> Floats:
    stacked = np.stack(values)
    defined = np.isfinite(stacked)
    return _divide(np.where(defined, stacked, 0.0).sum(axis=0), defined.sum(axis=0))


def _divide(above: Any, below: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above / below, np.float64)
