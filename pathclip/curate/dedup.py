"""Finds pictures that were posted before, exactly or turned, mirrored, resized and re-encoded."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal

BITS = 64
BANDS = 4
_BAND_BITS = BITS // BANDS
_MASK = (1 << _BAND_BITS) - 1


@dataclass(frozen=True, slots=True)
class DedupSettings:
    """How pictures that were seen before are treated.

    Attributes:
        near_duplicates: 'drop' the later one; 'group' keeps both and never splits them; 'off' does not look.
        max_distance: bits in which the hashes of near-duplicates may differ, of 64.
    """

    near_duplicates: Literal["drop", "group", "off"] = "drop"
    max_distance: int = 6

    def __post_init__(self) -> None:
        if not 0 <= self.max_distance < 3 * BANDS:
            raise ValueError(f"max_distance is {self.max_distance}; it must be from 0 to {3 * BANDS - 1}")


class HashIndex:
    """Finds 64-bit hashes within a Hamming distance without comparing all pairs.

    Multi-index hashing (Norouzi, Punjani & Fleet 2012): if two hashes differ in at most d bits, then in one
    of four bands of 16 bits they differ in at most d // 4. Looking up every band with that many bits turned
    finds them all; the cost of one look-up does not grow with pairs that are far apart.
    """

    def __init__(self, max_distance: int):
        self._max_distance = max_distance
        self._tables: list[dict[int, list[int]]] = [{} for _ in range(BANDS)]
        self._hashes: list[int] = []

    def add(self, value: int) -> int:
        """Adds a hash and returns its number, counted from 0."""
        number = len(self._hashes)
        self._hashes.append(value)
        for band, table in enumerate(self._tables):
            table.setdefault(value >> (band * _BAND_BITS) & _MASK, []).append(number)
        return number

    def near(self, values: Iterable[int]) -> list[tuple[int, int]]:
        """Hashes near any of `values`, as (distance, number), the nearest and then the oldest first.

        Args:
            values: the hashes of one picture, one per flip and rotation.
        """
        best: dict[int, int] = {}
        for value in values:
            for number in self._candidates(value):
                distance = (value ^ self._hashes[number]).bit_count()
                if distance <= self._max_distance:
                    best[number] = min(distance, best.get(number, BITS))
        return sorted((distance, number) for number, distance in best.items())

    def _candidates(self, value: int) -> Iterator[int]:
        for band, table in enumerate(self._tables):
            part = value >> (band * _BAND_BITS) & _MASK
            for change in _changes(self._max_distance // BANDS):
                yield from table.get(part ^ change, ())


@cache
def _changes(radius: int) -> tuple[int, ...]:
    """All ways to turn up to `radius` bits of a band."""
    return tuple(
        sum(1 << bit for bit in bits)
        for count in range(radius + 1)
        for bits in combinations(range(_BAND_BITS), count)
    )


class Groups:
    """Union-find over hashable keys; a group is named by its first key in order."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, key: Hashable) -> Hashable:
        """The name of the key's group; the key itself if it was never joined."""
        root = key
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while (parent := self._parent.get(key, key)) != root:
            self._parent[key] = root
            key = parent
        return root

    def join(self, one: str, other: str) -> None:
        """Puts both into one group."""
        first, second = sorted((str(self.find(one)), str(self.find(other))))
        self._parent[second] = first


def near_pairs(hashes: Sequence[Sequence[int]], max_distance: int) -> Iterator[tuple[int, int, int]]:
    """Pairs of near-duplicates as (later, earlier, distance), for a sequence of pictures.

    Args:
        hashes: of each picture the hashes of its flips and rotations; the first as it lies.
        max_distance: in bits.
    """
    index = HashIndex(max_distance)
    for later, values in enumerate(hashes):
        if values:
            for distance, earlier in index.near(values):
                yield later, earlier, distance
        index.add(values[0] if values else -1 & ((1 << BITS) - 1))
