"""From candidates and what was seen of their pictures to pairs: duplicates out, groups joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pathclip.curate.dedup import DedupSettings, Groups, HashIndex
from pathclip.curate.images import Picture
from pathclip.curate.select import Candidate
from pathclip.types import Dropped, Pair


@dataclass(frozen=True, slots=True)
class Kept:
    """A pair with its picture and the split that its source prescribes."""

    pair: Pair
    picture: Picture
    prescribed: str | None


def make_pairs(
    candidates: Sequence[Candidate], pictures: Sequence[Picture], settings: DedupSettings
) -> tuple[list[Kept], list[Dropped]]:
    """Applies the rules on pictures and pairs, in the published order, the oldest post first.

    Of duplicates the earliest stays. Pictures of one post and of its replies are never near-duplicates of
    each other: they share a group anyway.

    Args:
        candidates: of one run.
        pictures: what was seen of each candidate's picture.
        settings: of the search for duplicates.

    Returns:
        The pairs in the order of their posts, and what was dropped.
    """
    dropped: list[Dropped] = []
    captioned: dict[tuple[str, str], str] = {}
    left: list[tuple[Candidate, Picture]] = []
    for number in sorted(range(len(candidates)), key=lambda n: (*_age(candidates[n]), n)):
        candidate, picture = candidates[number], pictures[number]
        content = (picture.sha256, candidate.text)
        if picture.sha256 and content in captioned:
            dropped.append(Dropped(candidate.id, "duplicate_pair", f"as {captioned[content]}"))
            continue
        captioned.setdefault(content, candidate.id)
        if picture.reason:
            dropped.append(Dropped(candidate.id, picture.reason, picture.detail))
        else:
            left.append((candidate, picture))
    groups = Groups()
    kept = _without_near_duplicates(left, settings, groups, dropped)
    return [
        replace(one, pair=replace(one.pair, group=str(groups.find(one.pair.group)))) for one in kept
    ], dropped


def _age(candidate: Candidate) -> tuple[bool, float]:
    moment = candidate.created_at
    return moment is None, moment.timestamp() if moment else 0.0


def _without_near_duplicates(
    left: Sequence[tuple[Candidate, Picture]],
    settings: DedupSettings,
    groups: Groups,
    dropped: list[Dropped],
) -> list[Kept]:
    index = HashIndex(settings.max_distance)
    kept: list[Kept] = []
    first_with: dict[str, str] = {}
    for candidate, picture in left:
        near = index.near(picture.hashes) if settings.near_duplicates != "off" else []
        others = [(distance, kept[n].pair) for distance, n in near if kept[n].pair.group != candidate.group]
        if others and settings.near_duplicates == "drop":
            distance, other = others[0]
            dropped.append(Dropped(candidate.id, "near_duplicate", f"{distance} bits from {other.id}"))
            continue
        for _, other in others:
            groups.join(candidate.group, other.group)
        # The very same image is one group even where nobody looks for near-duplicates.
        groups.join(candidate.group, first_with.setdefault(picture.sha256, candidate.group))
        index.add(picture.hashes[0])
        kept.append(Kept(_pair(candidate, picture), picture, candidate.split))
    return kept


def _pair(candidate: Candidate, picture: Picture) -> Pair:
    return Pair(
        id=candidate.id,
        image_sha256=picture.sha256,
        text=candidate.text,
        post=candidate.post,
        group=candidate.group,
        source=candidate.source,
        created_at=candidate.created_at.isoformat() if candidate.created_at else None,
        licence=candidate.licence,
        label=candidate.label,
    )
