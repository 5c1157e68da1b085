"""From posts to candidates: a picture with the caption that may go with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pathclip.curate.rules import RuleSettings, Seen, first_reason, most_liked
from pathclip.curate.text import TextCleaner
from pathclip.types import Dropped, Malformed, Media, Post


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture and a caption, before anybody has looked at the picture.

    Attributes:
        id: of the pair to be.
        media: the picture.
        text: cleaned caption.
        post: id of the post that the text is from.
        group: key of what must never be split: a case, or a thread with its pictures.
        source: platform or data set.
        created_at: of the post, in UTC.
        licence: where known.
        label: class name, for evaluation only.
        split: as the source prescribes it.
    """

    id: str
    media: Media
    text: str
    post: str
    group: str
    source: str
    created_at: datetime | None = None
    licence: str | None = None
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What the rules on posts leave: `read` posts and lines = `kept` posts + `dropped`."""

    read: int
    kept: int
    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]


def select(
    posts: Iterable[Post | Malformed],
    settings: RuleSettings,
    cleaner: TextCleaner,
    deleted: frozenset[str] = frozenset(),
) -> Selection:
    """Applies the rules on posts and pairs what is left with its pictures.

    A reply that names a disease and is the most liked of its thread describes the first picture of the
    post it answers; that post may itself fall by its words (a question, say), not by its nature.

    Args:
        posts: of one dump.
        settings: of the rules.
        cleaner: makes captions.
        deleted: ids from the file of tombstones.
    """
    dropped: list[Dropped] = []
    found: list[Post] = []
    for item in posts:
        if isinstance(item, Malformed):
            dropped.append(Dropped(f"{item.file}:{item.line}", "malformed", item.reason))
        else:
            found.append(item)
    by_id = {post.id: post for post in found}

    described: list[tuple[Post, str, Post]] = []  # whose text, caption, whose pictures
    replies: dict[str, list[Post]] = {}
    for post in found:
        answered = _answered(post, by_id)
        seen = Seen(post, cleaner, answered, deleted)
        if reason := first_reason(seen, settings):
            dropped.append(Dropped(post.id, *reason))
        elif not post.media and answered is None:
            where = "the post it answers has none here" if seen.is_reply else "none in the post"
            dropped.append(Dropped(post.id, "image_missing", f"no picture: {where}"))
        else:
            described.append((post, seen.caption, answered or post))
            if answered is not None:
                replies.setdefault(answered.id, []).append(post)

    best = most_liked(replies)
    kept = []
    for post, caption, pictured in described:
        if pictured is not post and post.id not in best:
            detail = f"{post.metrics.get('like_count', 0)} likes under {pictured.id}"
            dropped.append(Dropped(post.id, "reply_not_most_liked", detail))
        else:
            kept.append((post, caption, pictured))
    candidates = _distinct(candidate for one in kept for candidate in _candidates(*one))
    lines = sum(row.reason == "malformed" for row in dropped)
    return Selection(len(found) + lines, len(kept), candidates, tuple(dropped))


def _distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The candidates with ids that occur once: tables may have several captions for one image."""
    taken: set[str] = set()
    distinct = []
    for candidate in candidates:
        name, number = candidate.id, 1
        while name in taken:
            number += 1
            name = f"{candidate.id}-{number}"
        taken.add(name)
        distinct.append(candidate if number == 1 else replace(candidate, id=name))
    return tuple(distinct)


def _answered(post: Post, by_id: Mapping[str, Post]) -> Post | None:
    """The post with pictures that a reply without any speaks of: its parent, or the first of its thread."""
    if post.media or post.in_reply_to is None:
        return None
    for name in (post.in_reply_to, post.conversation):
        other = by_id.get(name) if name else None
        if other is not None and other.media and other.id != post.id:
            return other
    return None


def _candidates(post: Post, caption: str, pictured: Post) -> Iterator[Candidate]:
    media = pictured.media if pictured is post else pictured.media[:1]
    # A thread often goes on with more pictures of its case, by the same author or by others.
    thread = pictured.conversation or pictured.id
    group = f"{post.platform}:case:{pictured.case}" if pictured.case else f"{post.platform}:{thread}"
    for picture in media:
        name = post.id if picture.key == post.id else f"{post.id}_{picture.key}"
        yield Candidate(
            id=file_name(name),
            media=picture,
            text=caption,
            post=post.id,
            group=group,
            source=post.platform,
            created_at=post.created_at,
            licence=post.licence,
            label=post.label,
            split=post.split,
        )


def file_name(name: str) -> str:
    """The name with only letters, digits, '_' and '-'; a hash keeps changed names apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    if plain == name and len(name) <= 200:
        return name
    return f"{plain.strip('-')[-150:]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
