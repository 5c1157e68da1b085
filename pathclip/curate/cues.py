"""Groups of wordings that tell something together: each counts once, with a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pathclip.curate.wordings import BAR, Wordings, read_wordings
from pathclip.errors import DataError


@dataclass(frozen=True, slots=True)
class Cue:
    """A group of wordings that say the same.

    Attributes:
        name: as the file calls the group.
        weight: how much one of its wordings tells.
        wordings: of the group.
    """

    name: str
    weight: float
    wordings: Wordings


@dataclass(frozen=True)
class Cues:
    """Groups that are weighed together.

    Attributes:
        groups: the heaviest first.
    """

    groups: tuple[Cue, ...]

    @cached_property
    def _filed(self) -> Mapping[str, frozenset[int]]:
        """Word → places of the groups that it may belong to."""
        filed: dict[str, set[int]] = {}
        for place, cue in enumerate(self.groups):
            for word in cue.wordings.triggers | cue.wordings.beginnings:
                filed.setdefault(word, set()).add(place)
        return {word: frozenset(places) for word, places in filed.items()}

    @cached_property
    def triggers(self) -> frozenset[str]:
        """Words of which a text holds one if it holds any cue."""
        return frozenset(self._filed)

    def _places(self, words: Sequence[str]) -> list[int]:
        held = self.triggers.intersection(words)
        return sorted(frozenset().union(*(self._filed[word] for word in held))) if held else []

    def may_weigh(self, words: Sequence[str], score: float) -> bool:
        """Whether the groups that these words may belong to could weigh as much as `score`; quick."""
        return sum(self.groups[place].weight for place in self._places(words)) >= score

    def weigh(self, text: str, words: Sequence[str], score: float) -> list[str]:
        """The cues that weigh `score` together, each with its words; empty if they do not.

        Args:
            text: as `spaced` makes it, perhaps with parts taken out.
            words: of the whole text, in order.
            score: weight that is asked for.
        """
        weight, told = 0.0, []
        for place in self._places(words):
            cue = self.groups[place]
            if match := cue.wordings.match(text, words):
                weight += cue.weight
                told.append(f"{cue.name}: {match.group().strip()}")
                text = f"{text[: match.start()]} {BAR} {text[match.end() :]}"  # no word tells twice
                if weight >= score:
                    return told
        return []


def read_cues(content: Mapping[str, Any], key: str, file: str) -> Cues:
    """The groups of one mapping of a YAML file.

    Raises:
        DataError: a group has no weight or no wordings.
    """
    groups = content.get(key)
    if not isinstance(groups, Mapping):
        raise DataError(f"{file}: groups '{key}' are needed")
    cues = []
    for name, group in groups.items():
        weight = group.get("weight") if isinstance(group, Mapping) else None
        if not isinstance(weight, int | float):
            raise DataError(f"{file}: {key}.{name} needs a weight and wordings")
        part = {"classes": content.get("classes", {}), f"{key}.{name}": group.get("wordings")}
        cues.append(Cue(str(name), float(weight), read_wordings(part, f"{key}.{name}", file)))
    return Cues(tuple(sorted(cues, key=lambda cue: -cue.weight)))
