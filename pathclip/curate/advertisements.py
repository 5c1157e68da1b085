"""Tells whether a post sells, announces or recruits instead of describing its picture.

OpenPath has no such rule; feeds are full of such posts. The cues stand in `data/advertisements.yaml`, in
groups with weights: a post advertises if the groups of which it holds a cue weigh enough together. So an
invitation is heard in words that no list foresaw ("details by email" and "bootcamp"), while either alone says
little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pathclip.curate.cues import Cues, read_cues
from pathclip.curate.vocabulary import read_yaml
from pathclip.curate.wordings import BAR, CLOSING, Wordings, read_wordings, spaced


@dataclass(frozen=True)
class Advertisements:
    """Finds what a text advertises.

    Attributes:
        cues: groups of wordings.
        described: wordings that hold a cue and sell nothing.
        score: weight from which a post advertises.
    """

    cues: Cues
    described: Wordings
    score: float = 2.0

    def find(self, tokens: Sequence[str]) -> str | None:
        """The cues that weigh enough, with the words that gave them away; None if they do not.

        Args:
            tokens: of the text of a post without links, as `tokens_of` returns them.
        """
        if not self.cues.may_weigh(tokens, self.score):
            return None
        words = [BAR if token[0] in CLOSING else token for token in tokens if token != ","]
        told = self.cues.weigh(self.described.without(spaced(words), words), words, self.score)
        return ", ".join(told) if told else None


def read_advertisements(file: str = "advertisements.yaml", score: float = 2.0) -> Advertisements:
    """Reads the cues.

    Raises:
        DataError: no such file, a group has no weight, or a wording cannot be read.
    """
    content = read_yaml(file)
    return Advertisements(read_cues(content, "cues", file), read_wordings(content, "described", file), score)
