"""What a random order reaches in retrieval: the level that every figure is read against.

In a pool of M pairs drawn from n, the query's own pair is always one of the M; the other M - 1 are drawn
from the rest. With M = n that is the full set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.classification import ranking
from pathclip.evaluate.image_text.retrieval import Relevance


def chance_recall(k: int, relevant: Relevance, pool: int | None = None) -> float:
    """Expected recall@k of a random order.

    Args:
        k: of recall@k; beyond the pool it is the pool.
        relevant: of n pairs.
        pool: pairs of a random pool; by default all n.

    >>> chance_recall(1, Relevance("exact_pair", np.arange(4), np.arange(4)))
    0.25
    >>> chance_recall(1, Relevance("exact_pair", np.arange(4), np.arange(4)), pool=2)
    0.5
    """
    return recall_of(chance_missed(relevant, pool), k)


def chance_median_rank(relevant: Relevance, pool: int | None = None) -> float:
    """Median rank of a random order: the smallest k with an expected recall@k of at least one half.

    That is the median of the ranks of all queries taken together, as the median rank of a model is. The
    expected rank, (n + 1) / (p + 1), would lie above it where a query has several relevant items, because
    the distribution of the first of them has a long tail.

    >>> chance_median_rank(Relevance("exact_pair", np.arange(9), np.arange(9)))
    5.0
    """
    return median_rank_of(chance_missed(relevant, pool))


def recall_of(missed: NDArray[np.float64], k: int) -> float:
    """`chance_recall` from what `chance_missed` gives: for several figures, which then share the work."""
    return float(1 - missed[min(k, len(missed) - 1)])


def median_rank_of(missed: NDArray[np.float64]) -> float:
    """`chance_median_rank` from what `chance_missed` gives."""
    return float(np.argmax(missed <= 0.5 + 1e-12))


def chance_average_precision(relevant: Relevance, pool: int | None = None) -> float:
    """Expected mAP of a random order.

    That of one query, see `ranking.chance_average_precision`, is linear in how many items are relevant. So
    that of random pools of M needs only the mean of those besides its own, which is that of all pairs times
    (M - 1) / (n - 1).

    >>> round(chance_average_precision(Relevance("exact_pair", np.arange(2), np.arange(2))), 3)
    0.75
    """
    n = len(relevant)
    pool = pool or n
    others = float((relevant.positives() - 1).mean()) * (pool - 1) / max(n - 1, 1)
    return float(ranking.chance_average_precision(1 + others, pool))


def chance_missed(relevant: Relevance, pool: int | None = None) -> NDArray[np.float64]:
    """Share of queries without a relevant item among the first k of a random order, for k = 0 … M.

    The query's partner is not among the first k of M places with probability 1 - k / M. Those k are then
    drawn from the n - 1 other items, p - 1 of them relevant: all miss with probability C(n - p, k) /
    C(n - 1, k), the product over i < k of (n - p - i) / (n - 1 - i). Queries with the same p are counted
    together.
    """
    n = len(relevant)
    pool = pool or n
    places = np.arange(pool)
    left = np.maximum(n - 1 - places, 1)
    missed = np.zeros(pool + 1)
    for positives, queries in zip(*np.unique(relevant.positives(), return_counts=True), strict=True):
        steps = np.maximum(n - positives - places, 0) / left
        missed += queries / n * np.concatenate([[1.0], np.cumprod(steps)])
    return missed * (1 - np.arange(pool + 1) / pool)
