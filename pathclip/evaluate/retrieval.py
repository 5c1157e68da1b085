"""Retrieval between pictures and texts: recall@k and median rank, text to image and image to text.

Two definitions of a hit are in use, and they give different figures on the same data:

- `exact_pair`: only the query's own partner counts;
- `same_text_or_group`: any item counts that has the query's text or group. Several pictures of one case
  often share one caption, and then no encoder can know which of them was meant.

The rank of a query is the place of the first item that counts. Items of equal similarity keep their order
in the data, so that a model that gives the same vector to everything scores chance and not 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Definition = Literal["exact_pair", "same_text_or_group"]
DEFINITIONS: tuple[Definition, ...] = ("exact_pair", "same_text_or_group")
# Similarities held at once: 32 MB of float32, so that a million items fit beside their vectors.
_AT_ONCE = 8_000_000


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which item counts for which query; query i and item i are a pair.

    Attributes:
        definition: see the module.
        texts: int64 [n]; equal numbers are equal texts.
        groups: int64 [n]; equal numbers are one group.
    """

    definition: Definition
    texts: NDArray[np.int64]
    groups: NDArray[np.int64]

    def mask(self, start: int, stop: int) -> NDArray[np.bool_]:
        """For the queries start … stop-1, which of the n items count: bool [stop - start, n]."""
        if self.definition == "exact_pair":
            return np.arange(start, stop)[:, None] == np.arange(len(self.texts))[None]
        same_text = self.texts[start:stop, None] == self.texts[None]
        return same_text | (self.groups[start:stop, None] == self.groups[None])


def relevance(definition: Definition, texts: Sequence[str], group_numbers: NDArray[np.int64]) -> Relevance:
    """Relevance of n pairs; texts are compared without regard to case and spacing."""
    numbers: dict[str, int] = {}
    keys = [numbers.setdefault(" ".join(text.lower().split()), len(numbers)) for text in texts]
    return Relevance(definition, np.array(keys, np.int64), group_numbers)


def ranks(
    queries: NDArray[np.float32], items: NDArray[np.float32], relevant: Relevance, chunk: int | None = None
) -> NDArray[np.int64]:
    """Place, from 1, of the first relevant item among all items ordered by similarity.

    Args:
        queries: L2-normalised [n, d].
        items: L2-normalised [n, d]; item i is the partner of query i.
        relevant: which items count.
        chunk: queries compared at once; by default as many as keep the memory small.

    Returns:
        int64 [n].
    """
    n = len(items)
    chunk = chunk or max(1, min(n, _AT_ONCE // max(1, n)))
    found = np.empty(len(queries), np.int64)
    columns = np.arange(n)
    for start in range(0, len(queries), chunk):
        stop = min(start + chunk, len(queries))
        similarity = queries[start:stop] @ items.T
        counts = np.where(relevant.mask(start, stop), similarity, -np.inf)
        best = np.argmax(counts, axis=1)  # of equals the first, as the order of equals demands
        level = np.take_along_axis(counts, best[:, None], axis=1)
        ahead = (similarity > level) | ((similarity == level) & (columns < best[:, None]))
        found[start:stop] = 1 + ahead.sum(axis=1)
    return found


def recall_at(k: int, rank: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 where a relevant item is among the first k, else 0, per query; the mean is recall@k.

    As in Karpathy and Fei-Fei 2015 (arXiv:1412.2306) and in the CLIP literature since: a hit per query,
    not the share of relevant items found.

    >>> recall_at(5, np.array([1, 5, 6])).tolist()
    [1.0, 1.0, 0.0]
    """
    return (rank <= k).astype(np.float64)


def chance_recall(k: int, relevant: Relevance) -> float:
    """Expected recall@k of a random order: the mean over queries of 1 - C(n - p, k) / C(n, k).

    p is the number of items relevant to the query among n.

    >>> chance_recall(1, Relevance("exact_pair", np.arange(4), np.arange(4)))
    0.25
    """
    n = len(relevant.texts)
    missed = _chance_missed(relevant)
    return float(1 - missed[min(k, n)])


def chance_median_rank(relevant: Relevance) -> float:
    """Median rank of a random order: the smallest k with an expected recall@k of at least one half.

    That is the median of the ranks of all queries taken together, as the median rank of a model is. The
    expected rank, (n + 1) / (p + 1), would lie above it where a query has several relevant items, because
    the distribution of the first of them has a long tail.

    >>> chance_median_rank(Relevance("exact_pair", np.arange(9), np.arange(9)))
    5.0
    """
    return float(np.argmax(_chance_missed(relevant) <= 0.5 + 1e-12))


def _chance_missed(relevant: Relevance) -> NDArray[np.float64]:
    """Share of queries without a relevant item among the first k of a random order, for k = 0 … n.

    A query with p relevant items of n is missed with probability C(n - p, k) / C(n, k), the product over
    i < k of (n - p - i) / (n - i). Queries with the same p are counted together.
    """
    n = len(relevant.texts)
    left = n - np.arange(n)
    missed = np.zeros(n + 1)
    for positives, queries in zip(*np.unique(positives_per_query(relevant), return_counts=True), strict=True):
        steps = np.maximum(left - positives, 0) / left
        missed += queries / n * np.concatenate([[1.0], np.cumprod(steps)])
    return missed


def positives_per_query(relevant: Relevance) -> NDArray[np.int64]:
    """Number of items that count for each query: int64 [n], at least 1."""
    n = len(relevant.texts)
    if relevant.definition == "exact_pair":
        return np.ones(n, np.int64)
    # |text ∪ group| = |text| + |group| - |both|, each counted once: no n x n table.
    joint = relevant.texts * (int(relevant.groups.max(initial=0)) + 1) + relevant.groups
    total = np.zeros(n, np.int64)
    for keys, sign in ((relevant.texts, 1), (relevant.groups, 1), (joint, -1)):
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        total += sign * counts[inverse]
    return total
