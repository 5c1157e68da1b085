"""Retrieval in random pools of a fixed size, as figures on data of different sizes are compared.

Recall@k falls as the pool grows, so sets of 800 and of 8,000 pairs can be compared only in pools of one size.
The pairs are shuffled and cut into pools of M; every query is looked for in its own pool. That is repeated,
and a query's figures are the means over its pools. Both definitions are drawn the same way, so that their
figures differ by the definition only; for `exact_pair` what is drawn has a known expectation, the
hypergeometric distribution of the items ahead, and the tests hold it against that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.image_text.retrieval import Places, Relevance, places

# Similarities per size of pool: the number of shuffles follows from it.
_SIMILARITIES = 20_000_000
_MOST_SHUFFLES = 100


@dataclass(frozen=True, slots=True)
class Pooled:
    """Places in random pools, or in the one pool of all.

    Attributes:
        size: pairs in a pool.
        rank: place of the first relevant item of the pool: int32 [n, shuffles].
        average_precision: mean over the shuffles: float64 [n].
    """

    size: int
    rank: NDArray[np.int32]
    average_precision: NDArray[np.float64]


def shuffles(n: int, size: int) -> int:
    """How often n pairs are shuffled: 1 to 100 times, the less often the more pairs there are.

    >>> [shuffles(n, 100) for n in (500, 10_000, 1_000_000)]
    [100, 20, 1]
    """
    return int(np.clip(_SIMILARITIES // (n * size), 1, _MOST_SHUFFLES)) if size < n else 1


def in_full_set(found: Places) -> Pooled:
    """Places among all n items as one pool of n."""
    return Pooled(len(found.rank), found.rank[:, None].astype(np.int32), found.average_precision)


def pooled(
    queries: NDArray[Any],
    items: NDArray[Any],
    relevant: Sequence[Relevance],
    size: int,
    seed: int,
) -> list[Pooled]:
    """Places of n queries in random pools, each query once per shuffle.

    Where n is no multiple of the size, the last pool of a shuffle is filled up with pairs of the pool
    before, which are items there and not queries again.

    Args:
        queries: L2-normalised [n, d].
        items: L2-normalised [n, d]; item i is the partner of query i.
        relevant: of the n pairs, one or several definitions that share the work.
        size: pairs in a pool, at most n.
        seed: of the shuffles; the same for every encoder, which makes differences paired.

    Returns:
        One for each of `relevant`.
    """
    from threadpoolctl import threadpool_limits

    n, times = len(items), shuffles(len(items), size)
    found = [Pooled(size, np.zeros((n, times), np.int32), np.zeros(n)) for _ in relevant]
    rng = np.random.default_rng([seed, size])
    with threadpool_limits(1):  # threads of so small products wait for one another on a busy machine
        for shuffle in range(times):
            order = rng.permutation(n)
            for start in range(0, n, size):
                # In the order of the data, which decides between items of equal similarity.
                pool = np.sort(order[min(start, n - size) :][:size])
                own = np.isin(pool, order[start : start + size])
                parts = [one.part(pool) for one in relevant]
                for one, place in zip(found, places(queries[pool], items[pool], parts), strict=True):
                    one.rank[pool[own], shuffle] = place.rank[own]
                    one.average_precision[pool[own]] += place.average_precision[own] / times
    return found
