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
    each other: they share a group anyway. A duplicate that is dropped still joins its group with that of the
    picture it repeats: both posts show one case, and the other fields of the later post must not be parted
    from it.

    Args:
        candidates: of one run.
        pictures: what was seen of each candidate's picture.
        settings: of the search for duplicates.

    Returns:
        The pairs in the order of their posts, and what was dropped.
    """
    dropped: list[Dropped] = []
    groups = Groups()
    captioned: dict[tuple[str, str], Candidate] = {}
    left: list[tuple[Candidate, Picture]] = []
    for number in sorted(range(len(candidates)), key=lambda n: (*_age(candidates[n]), n)):
        candidate, picture = candidates[number], pictures[number]
        content = (picture.sha256, candidate.text)
        if picture.sha256 and content in captioned:
            first = captioned[content]
            groups.join(candidate.group, first.group)
            dropped.append(Dropped(candidate.id, "duplicate_pair", f"as {first.id}"))
            continue
        captioned.setdefault(content, candidate)
        if picture.reason:
            dropped.append(Dropped(candidate.id, picture.reason, picture.detail))
        else:
            left.append((candidate, picture))
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
    """Joins the groups of near-duplicates, the same ones whether the later picture is dropped or kept."""
    index = HashIndex(settings.max_distance)
    kept: list[Kept] = []
    gone: set[str] = set()
    first_with: dict[str, str] = {}
    for candidate, picture in left:
        near = index.near(picture.hashes) if settings.near_duplicates != "off" else []
        # Dropped pictures are in the index too: they link the posts of one case.
        index.add(picture.hashes[0])
        others = [(distance, left[n][0]) for distance, n in near if left[n][0].group != candidate.group]
        for _, other in others:
            groups.join(candidate.group, other.group)
        # The very same image is one group even where nobody looks for near-duplicates.
        groups.join(candidate.group, first_with.setdefault(picture.sha256, candidate.group))
        shown = [(distance, other.id) for distance, other in others if other.id not in gone]
        if shown and settings.near_duplicates == "drop":
            distance, original = shown[0]
            gone.add(candidate.id)
            dropped.append(Dropped(candidate.id, "near_duplicate", f"{distance} bits from {original}"))
        else:
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
