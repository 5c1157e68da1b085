"""How pictures and captions that were posted before are treated, and the groups that they make."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

MOST_BITS = 12  # hashes of different pictures differ in about 32 of 64 bits; beyond this, chance sets in


@dataclass(frozen=True, slots=True)
class DedupSettings:
    """How pictures and captions that were seen before are treated.

    Attributes:
        near_duplicates: 'drop' the later one; 'group' keeps both and never splits them; 'off' does not look.
        max_distance: bits in which the hashes of near-duplicates may differ, of 64.
        captions: 'group' never splits pairs of one author with nearly the same caption; 'off' does not look.
        min_caption_words: shorter captions are like many others and are not compared.
        min_caption_similarity: share of three-word sequences that two captions must have in common (Jaccard).
        model: folder of an exported model whose embeddings find near-duplicates besides; None for none.
        min_cosine: of the embeddings of near-duplicates.
    """

    near_duplicates: Literal["drop", "group", "off"] = "drop"
    max_distance: int = 6
    captions: Literal["group", "off"] = "group"
    min_caption_words: int = 8
    min_caption_similarity: float = 0.8
    model: str | None = None
    min_cosine: float = 0.97

    def __post_init__(self) -> None:
        if not 0 <= self.max_distance < MOST_BITS:
            raise ValueError(f"max_distance is {self.max_distance}; it must be from 0 to {MOST_BITS - 1}")
        for name in ("min_caption_similarity", "min_cosine"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and at most 1")


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
        if one == other:
            return
        first, second = sorted((str(self.find(one)), str(self.find(other))))
        if first != second:
            self._parent[second] = first
