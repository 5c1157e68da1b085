"""Which held-out captions a text tower is judged on, and which pairs stand or fall together by them.

Sets that share no group may still share captions: feeds repeat them, and templates make few. A caption that
ranges were read off or recipes were chosen on is no test of the text tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathclip.export.calibration.samples import LEAST, Samples


@dataclass(frozen=True, slots=True)
class JudgedCaptions:
    """The captions of the gate's text lines.

    Attributes:
        rows: the first held-out pair of each caption that is judged, in order.
        distinct: different held-out captions.
        fitted: how many of these were calibrated or chosen on.
    """

    rows: tuple[int, ...]
    distinct: int
    fitted: int

    @property
    def note(self) -> str:
        """What a reader must know of them; '' if none was calibrated on."""
        if len(self.rows) == self.distinct:
            return f"{self.fitted} of {self.distinct} captions were calibrated on" if self.fitted else ""
        return f"without the {self.fitted} of {self.distinct} captions that were calibrated on"


def judged_captions(held_out: Samples, fitted: Sequence[Samples] = ()) -> JudgedCaptions:
    """Each held-out caption once, without those that the recipe has seen, if at least 8 are left.

    Captions are compared as the tower sees them, so two that differ behind the cut of the context length are
    one.

    Args:
        held_out: pairs of the gate.
        fitted: texts that ranges were read off or recipes chosen on.
    """
    seen = {row.tobytes() for samples in fitted for row in samples.tokens}
    first: dict[bytes, int] = {}
    for number, row in enumerate(held_out.tokens):
        first.setdefault(row.tobytes(), number)
    fresh = [number for row, number in first.items() if row not in seen]
    rows = fresh if len(fresh) >= LEAST else list(first.values())
    return JudgedCaptions(tuple(rows), len(first), len(first) - len(fresh))


def connected(groups: Sequence[str], captions: Sequence[str]) -> tuple[str, ...]:
    """A name per pair, the same for pairs that are linked by groups and captions, over others or not.

    >>> connected(["a", "a", "b", "", ""], ["x", "y", "y", "z", "z"])
    ('0', '0', '0', '3', '3')
    """
    parents = np.arange(len(groups))
    first: dict[tuple[str, str], int] = {}
    for number, (group, caption) in enumerate(zip(groups, captions, strict=True)):
        # A pair whose group nobody knows is one of its own, but for its caption.
        for key in [("caption", caption), *([("group", group)] if group else [])]:
            one, other = _root(parents, first.setdefault(key, number)), _root(parents, number)
            parents[max(one, other)] = min(one, other)
    return tuple(str(_root(parents, number)) for number in range(len(groups)))


def _root(parents: NDArray[np.int64], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = int(parents[number])
    return number
