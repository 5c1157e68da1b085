"""Divides pairs into train, validation and test so that nothing of one is in another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pathclip.curate.near import Near
from pathclip.errors import DataError

SPLITS = ("train", "val", "test")
By = Literal["time", "hash", "source"]
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How groups are divided.

    Attributes:
        by: 'time' (train before validation before test), 'hash' (of the group's name), 'source' (as the
            source prescribes), or 'auto': by source if it prescribes splits, else by time if there are
            dates, else by hash.
        val: share of the pairs for validation, in [0, 1).
        test: share for test.
        seed: of 'hash'.
    """

    by: Literal["auto", "time", "hash", "source"] = "auto"
    val: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise ValueError(f"val {self.val} and test {self.test} are shares whose sum is below 1")


@dataclass(frozen=True, slots=True)
class Member:
    """What the division looks at in a pair.

    Attributes:
        id: of the pair.
        group: that must stay whole.
        created_at: ISO 8601 in UTC, None if unknown.
        prescribed: split that the source prescribes, None if none.
        sha256: of the image.
    """

    id: str
    group: str
    created_at: str | None
    prescribed: str | None
    sha256: str


def decide(members: Sequence[Member], settings: SplitSettings) -> By:
    """What the pairs are divided by: what was asked for, or with 'auto' what they bring.

    'auto' never passes over what only some pairs have: a prescribed test set or the order of time would be
    lost because of one incomplete row. `split` then refuses the pairs that lack it.
    """
    if settings.by != "auto":
        return settings.by
    if any(member.prescribed for member in members):
        return "source"
    return "time" if any(member.created_at for member in members) else "hash"


def split(members: Sequence[Member], settings: SplitSettings) -> list[str]:
    """The split of each pair: 'train', 'val' or 'test'.

    Raises:
        DataError: a pair has no date or no known split where that is what decides; see `decide`.
    """
    by = decide(members, settings)
    if by == "source":
        _refuse_without_split(members)
        return [_prescribed(member) for member in members]
    groups = _by_time(members, settings) if by == "time" else _by_hash(members, settings)
    return [groups[member.group] for member in members]


def _refuse_without_split(members: Sequence[Member]) -> None:
    without = [member.id for member in members if not member.prescribed]
    if without:
        raise DataError(
            f"{_some(without, members)} have no split that the source prescribes; fill that column "
            "(source.columns.split), or let split.by=time or split.by=hash divide all pairs anew"
        )


def _refuse_without_date(members: Sequence[Member]) -> None:
    without = [member.id for member in members if not member.created_at]
    if without:
        raise DataError(
            f"{_some(without, members)} have no date and cannot be split by time; "
            "use split.by=hash, or leave their posts out of the dump"
        )


def _some(names: Sequence[str], members: Sequence[Member]) -> str:
    return f"{len(names)} of {len(members)} pairs (such as {', '.join(names[:3])})"


def _prescribed(member: Member) -> str:
    name = _NAMES.get(str(member.prescribed).strip().lower())
    if name is None:
        raise DataError(
            f"{member.id}: split '{member.prescribed}' is none of train, val, test; "
            "with split.by=hash the source's own splits are not used"
        )
    return name


def _by_time(members: Sequence[Member], settings: SplitSettings) -> Mapping[str, str]:
    """Groups in the order of their first post; the newest for test, those before for validation."""
    _refuse_without_date(members)
    first: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for member in members:
        moment = str(member.created_at)
        first[member.group] = min(first.get(member.group, moment), moment)
        sizes[member.group] = sizes.get(member.group, 0) + 1
    chosen, behind = {}, 0
    for group in sorted(first, key=lambda name: (first[name], name), reverse=True):
        # The share of newer pairs decides, so that a split of 0 stays empty.
        share = behind / len(members)
        chosen[group] = _name_at(share, settings)
        behind += sizes[group]
    return chosen


def _by_hash(members: Sequence[Member], settings: SplitSettings) -> Mapping[str, str]:
    """By a hash of the name: a group stays where it is when others are added."""
    chosen = {}
    for group in {member.group for member in members}:
        digest = hashlib.sha256(f"{settings.seed}:{group}".encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        chosen[group] = _name_at(share, settings)
    return chosen


def _name_at(share: float, settings: SplitSettings) -> str:
    """The split of what stands at `share` of the way from the test end, in [0, 1)."""
    rounding = 1e-9  # 0.1 + 0.2 is a little more than 0.3
    if share < settings.test - rounding:
        return "test"
    return "val" if share < settings.test + settings.val - rounding else "train"


def check_leaks(
    members: Sequence[Member],
    splits: Sequence[str],
    near: Callable[[NDArray[np.int64]], Iterable[Near]] = lambda groups: (),
) -> None:
    """Fails if two splits share a group, an image or a near-duplicate.

    Args:
        members: all pairs.
        splits: of each.
        near: from a group of each pair to near-duplicates in different groups; looks for none by default.

    Raises:
        DataError: names the two pairs.
    """
    for what in ("group", "sha256"):
        first: dict[str, int] = {}
        for number, member in enumerate(members):
            other = first.setdefault(getattr(member, what), number)
            if splits[other] != splits[number]:
                _leak(members[other], splits[other], member, splits[number], f"the same {what}")
    # Within a split there is nothing to find: it counts as one group.
    for found in near(np.array([SPLITS.index(name) for name in splits], np.int64)):
        connected: dict[int, int] = {}
        for number, label in enumerate(found.label.tolist()):
            other = connected.setdefault(label, number)
            if splits[other] != splits[number]:
                _leak(members[other], splits[other], members[number], splits[number], "nearly the same image")


def _leak(one: Member, its: str, other: Member, others: str, how: str) -> None:
    raise DataError(
        f"leak: '{one.id}' in {its} and '{other.id}' in {others} have {how}. Give both one split in the "
        "source, leave one out, or let split.by=time or split.by=hash divide by groups. A group is a thread "
        "or a case with all others that show one of its pictures, also one that was dropped as a duplicate"
    )
