"""Finds near neighbours among millions without comparing all pairs: what is near shares a key of bits.

Time grows with the number of values, not with its square: the keys get longer as there are more values, so
that chance collisions stay few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BITS = 64
_COLLISION_COST = 3  # of comparing one collision, in look-ups of a key
_MOST_DIRECT = 1 << 25  # keys that are looked up in an array of this length at most
_MOST_SPARSE = 16  # nor in one of more places than this for each value
_MOST_NEAR = 8  # hashes near one that are listed
_AT_A_TIME = 1 << 22  # collisions that are compared in one piece


@dataclass(frozen=True, slots=True)
class Near:
    """Pairs of near neighbours, sorted by `later`, then distance, then `earlier`; and what they connect.

    Attributes:
        later: row of the one that comes later, int64 [pairs].
        earlier: row of the other, int64 [pairs]: the nearest ones, where there are very many.
        distance: of the two, [pairs].
        label: of each row, int64 [n]: equal where a chain of near neighbours leads from one to the other,
            also through pairs that are not listed.
    """

    later: NDArray[np.int64]
    earlier: NDArray[np.int64]
    distance: NDArray[np.int64]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.later)


def near_hashes(hashes: NDArray[np.uint64], max_distance: int, groups: NDArray[np.int64]) -> Near:
    """Pairs of pictures whose perceptual hashes differ in few bits, in any flip and rotation.

    Multi-index hashing in the form of Norouzi, Punjani & Fleet (2012): of b bands of bits that differ in at
    most d bits, at least b - d are equal. All pairs that share b - d bands are found through a table for each
    choice of bands, and only those are compared.

    Where very many are near each other, not all of their pairs are listed, which would grow with the square
    of their number: of pictures with one and the same hash the first one and the first of another group, and
    of hashes the nearest few. The labels know all.

    Args:
        hashes: of each picture, in order of age, those of its flips and rotations, the first as it lies;
            uint64 [n, turns].
        max_distance: bits in which near-duplicates differ at most, in [0, 11].
        groups: of each picture, [n].

    Returns:
        Row numbers into `hashes`.
    """
    if len(hashes) == 0:
        return _sorted(np.empty((3, 0), np.int64), np.empty(0, np.int64))
    values, value_of = np.unique(hashes[:, 0], return_inverse=True)
    queries, query_of = np.unique(hashes, return_inverse=True)
    value_of, query_of = value_of.ravel().astype(np.int64), query_of.ravel().astype(np.int64)
    query, value = _near_values(queries, values, max_distance)
    first, other = _first_members(value_of, groups, len(values))
    label = _labels(value_of, query_of, query, value)[value_of]
    query, value = _nearest(query, value, queries, values, first)
    found = []
    # Which pictures ask for the hash of a pair; each asks for those of all its turns.
    for pair, place in collisions(query, query_of):
        later = place // hashes.shape[1]
        distance = np.bitwise_count(queries[query[pair]] ^ values[value[pair]]).astype(np.int64)
        for member in (first, other):
            earlier = member[value[pair]]
            kept = (earlier >= 0) & (earlier < later) & (groups[earlier] != groups[later])
            found.append(np.stack([later[kept], earlier[kept], distance[kept]]))
    return _sorted(np.concatenate(found, axis=1) if found else np.empty((3, 0), np.int64), label)


def near_any(asked: NDArray[np.uint64], known: NDArray[np.uint64], max_distance: int) -> NDArray[np.bool_]:
    """Which values of one set lie near any of another; see `near_hashes`.

    Args:
        asked: hashes, [n].
        known: hashes, [m].
        max_distance: bits in which near ones differ at most, in [0, 11].

    Returns:
        [n].
    """
    found = np.zeros(len(asked), np.bool_)
    edges = [round(BITS * n / (max_distance + 2)) for n in range(max_distance + 3)]
    for spans in combinations([(start, end - start) for start, end in pairwise(edges)], 2):
        # Of two bytes, keys are sorted twenty times as fast as of eight.
        width = np.uint16 if sum(bits for _, bits in spans) <= 16 else np.int64
        left = np.flatnonzero(~found)
        asked_keys: Any = _key(asked[left], spans).astype(width)
        known_keys: Any = _key(known, spans).astype(width)
        for one, other in collisions(asked_keys, known_keys):
            near = np.bitwise_count(asked[left[one]] ^ known[other]) <= max_distance
            found[left[one[near]]] = True
    return found


def _labels(
    value_of: NDArray[np.int64],
    query_of: NDArray[np.int64],
    query: NDArray[np.int64],
    value: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Of each value the label of all that near pairs connect it with, its own turns' included."""
    count = int(value_of.max()) + 1
    asked = distinct(np.repeat(value_of, len(query_of) // len(value_of)) << 32 | query_of)
    label = np.arange(count)
    for row, pair in collisions(asked & 0xFFFFFFFF, query):
        # A piece at a time: what is connected so far stands for what connected it.
        ends = label[asked[row] >> 32], label[value[pair]]
        graph = coo_array((np.ones(len(row), np.int8), ends), (count, count))
        label = connected_components(graph, directed=False)[1].astype(np.int64)[label]
    return label


def _nearest(
    query: NDArray[np.int64],
    value: NDArray[np.int64],
    queries: NDArray[np.uint64],
    values: NDArray[np.uint64],
    first: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the pairs of each query the nearest few, of equals those whose pictures came first."""
    distance = np.bitwise_count(queries[query] ^ values[value])
    order = np.lexsort((first[value], distance, query))
    query, value = query[order], value[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query, "left")
    return query[rank < _MOST_NEAR], value[rank < _MOST_NEAR]


def _near_values(
    queries: NDArray[np.uint64], values: NDArray[np.uint64], max_distance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows of queries, rows of values) that lie within the distance; every value is among the queries."""
    same = (np.searchsorted(queries, values), np.arange(len(values)))
    packed = [np.empty(0, np.int64)]
    for spans in _tables(len(values), max_distance):
        for query, value in collisions(_key(queries, spans), _key(values, spans)):
            distance = np.bitwise_count(queries[query] ^ values[value])
            # The same value meets itself in every table: it is added once, above.
            near = (distance <= max_distance) & (distance > 0)
            packed.append(query[near] << 32 | value[near])
        if sum(map(len, packed)) > 2 * _AT_A_TIME:
            packed = [distinct(np.concatenate(packed))]
    near_by = distinct(np.concatenate(packed))
    return np.concatenate([same[0], near_by >> 32]), np.concatenate([same[1], near_by & 0xFFFFFFFF])


def _first_members(
    value_of: NDArray[np.int64], groups: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each value its first row, and the first one in another group than that; -1 where there is none."""
    rows = np.arange(len(value_of))
    first, other = np.full(count, -1), np.full(count, -1)
    first[value_of[::-1]] = rows[::-1]  # the last to be written is the first row
    elsewhere = rows[groups != groups[first[value_of]]][::-1]
    other[value_of[elsewhere]] = elsewhere
    return first, other


def _sorted(pairs: NDArray[np.int64], label: NDArray[np.int64]) -> Near:
    later, earlier, distance = pairs
    order = np.lexsort((earlier, distance, later))
    later, earlier, distance = later[order], earlier[order], distance[order]
    # A pair may be found through several turns; the nearest of them comes first.
    _, once = np.unique(later << 32 | earlier, return_index=True)
    once.sort()
    return Near(later[once], earlier[once], distance[once], label)


def _tables(count: int, max_distance: int) -> Iterator[list[tuple[int, int]]]:
    """For each table the bands of its key, as (first bit, bits), in the division that costs least."""

    def cost(equal: int) -> float:
        bands = max_distance + equal
        collided = count / 2.0 ** (BITS * equal // bands)
        return comb(bands, equal) * (1 + _COLLISION_COST * collided)

    if max_distance == 0:
        return iter(())  # the same values need no table
    equal = min(range(1, BITS - max_distance), key=cost)
    bands = max_distance + equal
    edges = [round(BITS * n / bands) for n in range(bands + 1)]
    spans = [(start, end - start) for start, end in pairwise(edges)]
    return (list(chosen) for chosen in combinations(spans, equal))


def _key(values: NDArray[np.uint64], spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    key = np.zeros(len(values), np.uint64)
    for start, width in spans:
        part = (values >> np.uint64(start)) & np.uint64((1 << width) - 1)
        key = (key << np.uint64(width)) | part
    return key.astype(np.int64)


def collisions(
    asking: NDArray[np.int64], known: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields (rows of `asking`, rows of `known`) with equal keys, in pieces of bounded size."""
    if len(asking) == 0 or len(known) == 0:
        return
    order = np.argsort(known, kind="stable")
    most = int(max(known.max(), asking.max())) + 1
    if most <= min(_MOST_DIRECT, _MOST_SPARSE * (len(asking) + len(known))):
        sizes = np.bincount(known, minlength=most)
        counts = sizes[asking]
        first = (np.cumsum(sizes) - sizes)[asking]
    else:
        sorted_keys = known[order]
        first = np.searchsorted(sorted_keys, asking, "left")
        counts = np.searchsorted(sorted_keys, asking, "right") - first
    rows = np.flatnonzero(counts)
    ends = np.cumsum(counts[rows])
    start = 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _AT_A_TIME, "right")), start + 1)
        some = rows[start:stop]
        repeats = counts[some]
        offsets = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        yield np.repeat(some, repeats), order[np.repeat(first[some], repeats) + offsets]
        start = stop


def within_buckets(
    keys: NDArray[np.int64], most: int = 32
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields (later rows, earlier rows) with equal keys.

    In a bucket of many, a row meets the first `most` of it and the `most` before it, not all: what is alike
    is then still linked through those, and time does not grow with the square of the bucket.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    places = np.arange(len(keys))
    begins = np.searchsorted(ordered, ordered, "left")
    for step in range(most):
        first = np.flatnonzero(places - begins > step)
        yield order[first], order[begins[first] + step]
    for step in range(1, most + 1):
        before = np.flatnonzero(places - begins >= most + step)
        if len(before) == 0:
            return
        yield order[before], order[before - step]


def distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The distinct values, sorted; of millions fifteen times as fast as numpy's `unique`, which hashes."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
