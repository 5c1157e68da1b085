"""Retrieval between pictures and texts: where the first right item stands, and average precision.

Two definitions of a hit are in use, and they give different figures on the same data:

- `exact_pair`: only the query's own partner counts;
- `same_text_or_group`: any item counts that has the query's text or group. Several pictures of one case
  often share one caption, and then no encoder can know which of them was meant.

The rank of a query is the place of the first item that counts. Items of equal similarity keep their order
in the data, so that a model that gives the same vector to everything scores chance and not 1.

Similarities are computed in blocks of queries and items (`retrieval_blocks`), so that memory does not grow
with their product, and no figure depends on how they were cut: they are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pathclip.evaluate.image_text.retrieval_blocks import HALF_STEP, fixed_point, products

Definition = Literal["exact_pair", "same_text_or_group"]
DEFINITIONS: tuple[Definition, ...] = ("exact_pair", "same_text_or_group")
Numbers = NDArray[np.int64]
# Queries and items of one block: 64 MB of similarities.
QUERIES = 4096
ITEMS = 2048
# A query with more relevant items is ordered as a whole row instead of by comparing with each of them.
_FEW = 16
# Similarities of whole rows that are held at once: 256 MB; and of those that are ordered at once.
_KEPT = 32_000_000
_ORDERED = 4_000_000


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which item counts for which query; query i and item i are a pair.

    Attributes:
        definition: see the module.
        texts: int64 [n]; equal numbers are equal texts.
        groups: int64 [n]; equal numbers are one group.
    """

    definition: Definition
    texts: Numbers
    groups: Numbers

    def __len__(self) -> int:
        return len(self.texts)

    def mask(self, queries: Numbers) -> NDArray[np.bool_]:
        """For queries of these numbers, which of the n items count: bool [queries, n]."""
        if self.definition == "exact_pair":
            return queries[:, None] == np.arange(len(self))[None]
        same_text = self.texts[queries, None] == self.texts[None]
        return same_text | (self.groups[queries, None] == self.groups[None])

    def part(self, numbers: Numbers) -> Relevance:
        """That of the pairs of these numbers among themselves."""
        return Relevance(self.definition, self.texts[numbers], self.groups[numbers])

    def positives(self) -> Numbers:
        """Number of items that count for each query: int64 [n], at least 1."""
        if self.definition == "exact_pair":
            return np.ones(len(self), np.int64)
        # |text ∪ group| = |text| + |group| - |both|, each counted once: no n x n table.
        joint = self.texts * (int(self.groups.max(initial=0)) + 1) + self.groups
        return _occurrences(self.texts) + _occurrences(self.groups) - _occurrences(joint)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the relevant items stand among all n, ordered by similarity to each of m queries.

    Attributes:
        rank: place of the first of them, from 1: int64 [m].
        average_precision: float64 [m], in (0, 1]: the mean, over all items that count for the query, of
            the share of such items among those up to and with it. The whole pool is ordered and nothing
            is cut off; the mean over queries is mAP (Manning, Raghavan and Schütze 2008, Introduction to
            Information Retrieval, 8.4). Without ties it equals scikit-learn's `average_precision_score`.
    """

    rank: Numbers
    average_precision: NDArray[np.float64]


def relevance(definition: Definition, texts: Sequence[str], group_numbers: Numbers) -> Relevance:
    """Relevance of n pairs; texts are compared without regard to case and spacing."""
    numbers: dict[str, int] = {}
    keys = [numbers.setdefault(" ".join(text.lower().split()), len(numbers)) for text in texts]
    return Relevance(definition, np.array(keys, np.int64), group_numbers)


def places(
    queries: NDArray[Any],
    items: NDArray[Any],
    relevant: Sequence[Relevance],
    chunk: int = QUERIES,
    block: int = ITEMS,
) -> list[Places]:
    """Orders the items by similarity to each query.

    For a million items of 512 numbers in files the process stays below 2 GB. That holds for the search:
    what is made of the places for a report comes on top, see `retrieval_figures`.

    Args:
        queries: L2-normalised, any float [m, d] with m <= n; may be an `np.memmap`, which is read in blocks.
        items: L2-normalised [n, d], the same; item i is the partner of query i.
        relevant: which items count, one or several definitions that share the work.
        chunk: queries compared at once, at most.
        block: items they are compared with at once.

    Returns:
        One for each of `relevant`.

    Raises:
        DataError: a row is not a number or not normalised.
    """
    total = len(queries)
    positives = [one.positives()[:total] for one in relevant]
    finders = [_Finder(one) for one in relevant]
    found = [Places(np.empty(total, np.int64), np.empty(total)) for _ in relevant]
    for start, stop in _chunks(positives, len(items), total, chunk):
        rows = fixed_point(queries, start, stop)
        counters = [
            _Counter(finder, start, counts[start:stop], rows, items)
            for finder, counts in zip(finders, positives, strict=True)
        ]
        for first in range(0, len(items), block):
            similarity = rows @ fixed_point(items, first, min(first + block, len(items))).T
            for counter in counters:
                counter.see(first, similarity)
        for counter, one in zip(counters, found, strict=True):
            one.rank[start:stop], one.average_precision[start:stop] = counter.places()
    return found


def ranks(queries: NDArray[Any], items: NDArray[Any], relevant: Relevance) -> Numbers:
    """Place, from 1, of the first relevant item for each query: int64 [m]; see `places`."""
    return places(queries, items, [relevant])[0].rank


def recall_at(k: int, rank: NDArray[Any]) -> NDArray[np.float64]:
    """1 where a relevant item is among the first k, else 0, per query; the mean is recall@k.

    As in Karpathy and Fei-Fei 2015 (arXiv:1412.2306) and in the CLIP literature since: a hit per query,
    not the share of relevant items found.

    >>> recall_at(5, np.array([1, 5, 6])).tolist()
    [1.0, 1.0, 0.0]
    """
    return (rank <= k).astype(np.float64)


class _Finder:
    """Numbers of the items that count for a query, without looking at all n."""

    def __init__(self, relevant: Relevance):
        self.relevant = relevant
        exact = relevant.definition == "exact_pair"
        self._lists = [] if exact else [_Lists(relevant.texts), _Lists(relevant.groups)]

    def items(self, queries: Numbers) -> tuple[Numbers, Numbers]:
        """Positions in `queries` and item numbers of all that count, ordered by both."""
        if not self._lists:
            return np.arange(len(queries)), queries
        n = len(self.relevant)
        keys = [position * n + item for position, item in (one.of(queries) for one in self._lists)]
        return np.divmod(np.unique(np.concatenate(keys)), n)


class _Lists:
    """Items by key: those of one key stand together in `order`."""

    def __init__(self, keys: Numbers):
        self.order = np.argsort(keys, kind="stable")
        _, number, self.count = np.unique(keys, return_inverse=True, return_counts=True)
        self.number = number
        self.first = np.cumsum(self.count) - self.count

    def of(self, queries: Numbers) -> tuple[Numbers, Numbers]:
        """Positions in `queries`, and items with the same key as the query there."""
        number = self.number[queries]
        count, first = self.count[number], self.first[number]
        position = np.repeat(np.arange(len(queries)), count)
        within = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
        return position, self.order[np.repeat(first, count) + within]


class _Counter:
    """Counts, block by block, the items that stand before each relevant one of some queries.

    Queries with few relevant items compare every similarity with theirs. The rows of those with many are
    kept and ordered at the end: their cost does not grow with the number of relevant items.
    """

    def __init__(
        self, finder: _Finder, start: int, count: Numbers, queries: NDArray[np.float64], items: NDArray[Any]
    ):
        self._relevant, self._start, self._count = finder.relevant, start, count
        self._few, self._many = np.flatnonzero(count <= _FEW), np.flatnonzero(count > _FEW)
        self._kept = np.empty((len(self._many), len(items)))
        # One column per relevant item; n in the columns that a query does not need.
        self._item = np.full((len(self._few), int(count[self._few].max(initial=0))), len(items))
        self._level = np.full(self._item.shape, np.inf)
        self._ahead = np.zeros(self._item.shape, np.int64)
        position, item = finder.items(start + self._few)
        where = position, np.arange(len(position)) - np.searchsorted(position, position)
        self._item[where] = item
        self._level[where] = products(queries, self._few[position], items, item)

    def see(self, first: int, similarity: NDArray[np.float64]) -> None:
        """Takes the similarities [queries, width] to the items from number `first`."""
        width = similarity.shape[1]
        if len(self._many):
            self._kept[:, first : first + width] = similarity[self._many]
        for column in range(self._item.shape[1]):
            item, level = self._item[:, column], self._level[:, column]
            needed = np.flatnonzero(np.isfinite(level))
            rows = self._few[needed]
            part = similarity if len(rows) == len(similarity) else similarity[rows]
            # Items before the relevant one are ahead of it if equal, and items after it are not.
            threshold = np.where(item >= first + width, level - HALF_STEP, level)[needed, None]
            self._ahead[needed, column] += (part > threshold).sum(axis=1)
            inside = np.flatnonzero((item >= first) & (item < first + width))
            equal = similarity[self._few[inside]] == level[inside, None]
            before = np.arange(first, first + width) < item[inside, None]
            self._ahead[inside, column] += (equal & before).sum(axis=1)

    def places(self) -> tuple[Numbers, NDArray[np.float64]]:
        """Rank and average precision of the queries, all items seen."""
        rank, precision = np.empty(len(self._count), np.int64), np.empty(len(self._count))
        place = np.sort(np.where(np.isfinite(self._level), self._ahead + 1.0, np.inf), axis=1)
        if len(self._few):
            rank[self._few] = place[:, 0]
            shares = np.arange(1, place.shape[1] + 1) / place
            precision[self._few] = shares.sum(axis=1) / self._count[self._few]
        n = self._kept.shape[1]
        step = max(1, _ORDERED // n)
        for start in range(0, len(self._many), step):
            rows = self._many[start : start + step]
            order = np.argsort(-self._kept[start : start + step], axis=1, kind="stable")
            hit = np.take_along_axis(self._relevant.mask(self._start + rows), order, axis=1)
            rank[rows] = 1 + np.argmax(hit, axis=1)
            shares = np.cumsum(hit, axis=1) / np.arange(1, n + 1)
            precision[rows] = (shares * hit).sum(axis=1) / self._count[rows]
        return rank, precision


def _chunks(positives: Sequence[Numbers], n: int, total: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Ranges of queries: at most `chunk`, with few enough whose rows must be kept."""
    kept = np.cumsum(sum((count > _FEW).astype(np.int64) for count in positives))
    most = max(1, _KEPT // max(1, n))
    start = 0
    while start < total:
        before = int(kept[start - 1]) if start else 0
        stop = int(np.searchsorted(kept, before + most, side="right"))
        stop = max(start + 1, min(start + chunk, stop, total))
        yield start, stop
        start = stop


def _occurrences(keys: Numbers) -> Numbers:
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return counts[inverse]
