"""Finds near-duplicates that a hash cannot, such as crops and recoloured copies, by their embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pathclip.curate.near import Near, distinct, within_buckets

# Two embeddings at a cosine of 0.97 lie 14 degrees apart: the signs of 24 random projections all agree with a
# probability of 0.14, those of one of 32 tables at least with 0.99.
TABLES, BITS = 32, 24


def near_embeddings(embeddings: NDArray[Any], min_cosine: float, groups: NDArray[np.int64]) -> Near:
    """Pairs of pictures whose embeddings point nearly the same way.

    Locality-sensitive hashing by the signs of random projections (Charikar 2002): only what falls into one
    bucket is compared, and in a large one not everything with everything; see `within_buckets`. The
    projections are always the same ones, so that a run repeats.

    Args:
        embeddings: unit length, float [n, d], in order of age.
        min_cosine: of near neighbours.
        groups: of each picture, [n]; neighbours of one group are left out.

    Returns:
        Row numbers, and as distance the angle in degrees, rounded.
    """
    rng = np.random.default_rng(0)
    packed: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for _ in range(TABLES):
        planes = rng.standard_normal((embeddings.shape[1], BITS)).astype(np.float32)
        key = _key(embeddings, planes)
        for later, earlier in within_buckets(key):
            kept = groups[later] != groups[earlier]
            packed.append(_alike(embeddings, later[kept], earlier[kept], min_cosine))
        packed = [distinct(np.concatenate(packed))]
    later, earlier = packed[0] >> 32, packed[0] & 0xFFFFFFFF
    cosine = np.einsum("nd,nd->n", embeddings[later], embeddings[earlier], dtype=np.float64)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1))).round().astype(np.int64)
    order = np.lexsort((earlier, angle, later))
    graph = coo_array((np.ones(len(later), np.int8), (later, earlier)), (len(groups), len(groups)))
    label = connected_components(graph, directed=False)[1].astype(np.int64)
    return Near(later[order], earlier[order], angle[order], label)


def _key(embeddings: NDArray[Any], planes: NDArray[np.float32]) -> NDArray[np.int64]:
    key = np.empty(len(embeddings), np.int64)
    weights = 1 << np.arange(BITS)
    for rows in _pieces(len(embeddings)):
        key[rows] = (embeddings[rows].astype(np.float32) @ planes > 0) @ weights
    return key


def _alike(
    embeddings: NDArray[Any], later: NDArray[np.int64], earlier: NDArray[np.int64], min_cosine: float
) -> NDArray[np.int64]:
    found = []
    for rows in _pieces(len(later)):
        # Half precision is for the disk: numpy multiplies it thirty times as slowly.
        one = embeddings[later[rows]].astype(np.float32)
        other = embeddings[earlier[rows]].astype(np.float32)
        alike = np.einsum("nd,nd->n", one, other) >= min_cosine
        found.append(later[rows][alike] << 32 | earlier[rows][alike])
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _pieces(count: int, size: int = 1 << 16) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
